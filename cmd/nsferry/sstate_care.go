package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nsferry/nsferry/ephemeral"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/sstate"
	"github.com/nsferry/nsferry/sstate/store"
)

type sstateLsCmd struct{}

// listed is one line of ls.
type listed struct {
	Key  string `json:"key"`
	Size int64  `json:"size"`
	Used string `json:"used"`
	Odd  string `json:"odd,omitempty"`
}

// Run lists the entries.
func (c *sstateLsCmd) Run(f *sstateCmd, out *Out) error {
	s, err := f.open(out, false)
	if err != nil {
		return err
	}
	entries, err := s.List()
	if err != nil {
		return err
	}
	all := make([]listed, len(entries))
	for i, e := range entries {
		all[i] = listed{e.Key.String(), e.Size, e.Used.UTC().Format(time.RFC3339), e.Odd}
	}
	return out.Answer(all, func(w io.Writer) error {
		for _, l := range all {
			line := fmt.Sprintf("%s  %10s  %s", l.Used, bytesText(l.Size), l.Key)
			if l.Odd != "" {
				line += "  (" + l.Odd + ")"
			}
			if _, err := fmt.Fprintln(w, line); err != nil {
				return err
			}
		}
		return nil
	})
}

type sstateVerifyCmd struct {
	Key        []string `arg:"" optional:"" help:"Keys; none: all entries."`
	Tree       string   `type:"path" placeholder:"DIR" help:"Also compare the entry, one, with this tree."`
	Exclude    []string `sep:"none" placeholder:"PATTERN" help:"Of the tree, leave out what matches. May be repeated."`
	VerifyKey  []string `type:"existingfile" sep:"none" placeholder:"FILE" help:"Also demand a signature of this public key. May be repeated: one of them is enough."`
	Quarantine bool     `help:"Move damaged entries away."`
}

// Run reads entries. One that is not in order is exit status 1, one that is missing 3.
func (c *sstateVerifyCmd) Run(ctx context.Context, env envFunc, g *Globals, f *sstateCmd, out *Out) error {
	o := sstate.VerifyOptions{Workers: g.Jobs, Tree: c.Tree, Exclude: c.Exclude, Quarantine: c.Quarantine}
	var err error
	if o.Signed, err = sstate.ReadPublicKeys(c.VerifyKey); err != nil {
		return err
	}
	if c.Tree != "" && len(c.Key) != 1 {
		return &userns.UsageError{What: "--tree compares with one entry; name its key"}
	}
	s, err := f.open(out, false)
	if err != nil {
		return err
	}
	keys, err := keysOr(c.Key, s)
	if err != nil {
		return err
	}
	results, err := sstate.Verify(ctx, env, s, keys, o)
	if err != nil {
		return err
	}
	worst := exitDone
	for _, r := range results {
		worst = max(worst, r.Status())
	}
	err = out.Answer(results, func(w io.Writer) error {
		for _, r := range results {
			if _, err := fmt.Fprintln(w, r); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && worst > 0 {
		err = exitStatus(worst)
	}
	return err
}

// keysOr parses keys; none are all that the store has.
func keysOr(texts []string, s *store.Store) (keys []store.Key, err error) {
	for _, text := range texts {
		k, err := store.ParseKey(text)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	if len(texts) > 0 {
		return keys, nil
	}
	all, err := s.List()
	for _, e := range all {
		keys = append(keys, e.Key)
	}
	return keys, err
}

type sstateGcCmd struct {
	MaxSize        string `placeholder:"SIZE" help:"What all entries together may take, such as 20G; those used last stay."`
	MaxAge         string `placeholder:"AGE" help:"Entries that were not used for so long go: 30d, 12h. Trees of ephemeral runs, too."`
	MaxTrees       string `placeholder:"SIZE" help:"What all trees of ephemeral runs together may take."`
	KeepReferenced bool   `help:"Entries that a tree of yours was restored from, or saved as, stay while the tree is there."`
	DryRun         bool   `short:"n" help:"Only tell what would go."`
}

// collected is the summary of gc.
type collected struct {
	store.Collected
	DryRun bool               `json:"dryRun,omitempty"`
	Trees  []ephemeral.Master `json:"trees,omitempty"` // that went
}

func (c collected) String() string {
	text := "removed"
	if c.DryRun {
		text = "would remove"
	}
	text += fmt.Sprintf(" %d entries, %s, and %d leftovers; %d entries stay, %s", len(c.Evicted), bytesText(c.Freed), c.Litter, c.Kept, bytesText(c.Size))
	if len(c.Trees) > 0 {
		text += fmt.Sprintf("; %d trees of ephemeral runs", len(c.Trees))
	}
	if len(c.Busy) > 0 {
		text += fmt.Sprintf("; in use: %s", strings.Join(c.Busy, ", "))
	}
	return text
}

// Run collects.
func (c *sstateGcCmd) Run(ctx context.Context, f *sstateCmd, env envFunc, g *Globals, out *Out) error {
	o := store.GCOptions{DryRun: c.DryRun}
	trees := ephemeral.GCOptions{DryRun: c.DryRun, Workers: g.Jobs}
	var err error
	if trees.MaxBytes, err = parseSize(c.MaxTrees); err != nil {
		return err
	}
	if o.MaxSize, err = parseSize(c.MaxSize); err != nil {
		return err
	}
	if o.MaxAge, err = parseAge(c.MaxAge); err != nil {
		return err
	}
	trees.MaxAge = o.MaxAge
	gone, treeErr := collectTrees(ctx, env, trees)
	s, err := f.open(out, false)
	if err != nil {
		return errors.Join(err, treeErr)
	}
	if c.KeepReferenced {
		keys, err := newCache(nil, s).Referenced()
		if err != nil {
			return err
		}
		o.Keep = func(k store.Key) bool { return keys[k.String()] }
	}
	r, err := s.GC(o)
	err = errors.Join(err, treeErr)
	for _, key := range r.Evicted {
		out.Verbose("%s", key)
	}
	if err == nil || len(r.Evicted) > 0 {
		out.Summary(collected{r, c.DryRun, gone})
	}
	return err
}

// collectTrees collects the masters of ephemeral runs, if there has been any, and returns those that went.
func collectTrees(ctx context.Context, env envFunc, o ephemeral.GCOptions) ([]ephemeral.Master, error) {
	path, err := ephemeral.StatePath()
	if err != nil {
		return nil, nil // nobody can have made one
	}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	e, err := env()
	if err != nil {
		return nil, err
	}
	s, err := ephemeral.Open(path)
	if err != nil {
		return nil, err
	}
	all, err := s.GC(ctx, e, o)
	gone := slices.DeleteFunc(all, func(m ephemeral.Master) bool { return m.Why == "" })
	return gone, errors.Join(err, s.Close())
}

type sstateExplainCmd struct {
	Key string `arg:"" help:"The key that was not found."`
}

// Run explains a miss.
func (c *sstateExplainCmd) Run(ctx context.Context, f *sstateCmd, out *Out) error {
	key, err := store.ParseKey(c.Key)
	if err != nil {
		return err
	}
	s, err := f.openFor(out, key)
	if err != nil {
		return err
	}
	x, err := s.Explain(ctx, key)
	if err != nil {
		return err
	}
	err = out.Answer(x, func(w io.Writer) error { return printExplanation(w, x) })
	if err == nil && !x.Hit {
		err = exitStatus(store.ExitMiss)
	}
	return err
}

func printExplanation(w io.Writer, x store.Explanation) error {
	if x.Hit {
		_, err := fmt.Fprintf(w, "%s: in the store\n", x.Key)
		return err
	}
	text := fmt.Appendf(nil, "%s: miss: %s\n", x.Key, x.Reason)
	for _, m := range x.Moved {
		text = fmt.Appendf(text, "was damaged earlier and lies in %s\n", m)
	}
	for _, n := range x.Nearest {
		text = fmt.Appendf(text, "like it: %s (used %s)\n", n.Key, time.Unix(n.Used, 0).UTC().Format(time.RFC3339))
		for _, d := range n.Differs {
			text = fmt.Appendf(text, "  %s\n", d)
		}
	}
	_, err := w.Write(text)
	return err
}

type sstateSignCmd struct {
	Key     []string `arg:"" help:"Keys of entries."`
	SignKey string   `type:"existingfile" required:"" placeholder:"FILE" help:"The secret key of minisign's; it must have no password."`
}

// Run signs entries.
func (c *sstateSignCmd) Run(ctx context.Context, f *sstateCmd, out *Out) error {
	secret, err := sstate.ReadSecretKey(c.SignKey)
	if err != nil {
		return err
	}
	s, err := f.open(out, false)
	if err != nil {
		return err
	}
	keys, err := keysOr(c.Key, s)
	if err != nil {
		return err
	}
	for _, key := range keys {
		if err := (&sstate.Cache{Store: s}).Sign(ctx, key, secret); err != nil {
			return err
		}
		out.Verbose("signed %s", key)
	}
	return nil
}
