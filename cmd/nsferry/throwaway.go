package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/ephemeral"
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/sstate"
	"github.com/nsferry/nsferry/sstate/store"
)

// throwaway is what run needs for a tree that is not to change.
type throwaway struct {
	archive *os.File // nil for a directory
	upper   ephemeral.Upper
	size    string
	jobs    int

	commit func(context.Context, ferry.Source) (archive.Summary, error) // nil when nothing is kept
	undo   []func() error                                               // at the end; has no effect on what was committed
}

// throwaway returns nil for a run that changes the tree.
func (c *runCmd) throwaway(ctx context.Context, e *userns.Env, g *Globals, out *Out) (t *throwaway, err error) {
	where, size, _ := strings.Cut(c.Upper, ":")
	t = &throwaway{upper: ephemeral.Upper(where), size: size, jobs: g.Jobs}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.close())
		}
	}()
	switch t.upper {
	case ephemeral.Disk, ephemeral.Memory, ephemeral.Clone:
	default:
		return t, &userns.UsageError{What: "--upper " + c.Upper + ": want disk, tmpfs, tmpfs:SIZE or clone"}
	}
	if size != "" && t.upper != ephemeral.Memory {
		return t, &userns.UsageError{What: "--upper " + c.Upper + ": only tmpfs has a size"}
	}
	if err := c.openArchive(ctx, t, out); err != nil {
		return t, err
	}
	keep := c.Commit != "" || c.CommitKey != ""
	switch {
	case c.Ephemeral && c.Rootfs == "":
		return t, &userns.UsageError{What: "--ephemeral needs --rootfs"}
	case t.archive == nil && !c.Ephemeral && keep:
		return t, &userns.UsageError{What: "--commit needs --ephemeral, or an archive as --rootfs; a directory that was changed is packed by nsferry pack"}
	case t.archive == nil && !c.Ephemeral:
		return nil, nil
	}
	if keep {
		err = c.openCommit(ctx, t, e, out)
	}
	return t, err
}

// openArchive opens what --rootfs names if it is no directory: a file, or where there is nothing of that name, an entry of the store.
func (c *runCmd) openArchive(ctx context.Context, t *throwaway, out *Out) error {
	if c.Rootfs == "" {
		return nil
	}
	st, err := os.Stat(c.Rootfs)
	switch {
	case err == nil && !st.IsDir():
		t.archive, err = os.Open(c.Rootfs)
		t.undo = append(t.undo, t.archive.Close)
		return err
	case !errors.Is(err, os.ErrNotExist) || strings.Contains(c.Rootfs, "/"):
		return nil // a directory, or something that is told when it is opened as one
	}
	key, err := store.ParseKey(c.Rootfs)
	if err != nil {
		return err
	}
	dir, err := c.dir()
	if err != nil {
		return err
	}
	s, err := sstate.OpenStore(dir, key, store.Options{Note: out.Note})
	var entry *store.Object
	if err == nil {
		entry, err = s.Get(ctx, key)
	}
	if err != nil { // 3 for a miss could be the command's own status
		return ownError{fmt.Errorf("%s: no such file or directory, nor an entry of the store: %w", c.Rootfs, err), userns.ExitOwn}
	}
	t.archive, t.undo = entry.File, append(t.undo, entry.Close)
	return nil
}

// openCommit makes ready for the archive of the changed tree, so that what forbids it shows before the command runs.
func (c *runCmd) openCommit(ctx context.Context, t *throwaway, e *userns.Env, out *Out) error {
	o := ferry.PackOptions{Workers: t.jobs, Replace: c.Force}
	if c.Commit != "" {
		f, err := ferry.NewOutput(c.Commit, o)
		if err != nil {
			return err
		}
		t.undo = append(t.undo, f.Abort)
		t.commit = func(ctx context.Context, tree ferry.Source) (archive.Summary, error) { return f.Pack(ctx, e, tree) }
		return nil
	}
	key, err := store.ParseKey(c.CommitKey)
	if err != nil {
		return err
	}
	s, err := c.open(out, true)
	if err != nil {
		return err
	}
	d, err := (&sstate.Cache{Env: e, Store: s}).Draft(ctx, key)
	if err != nil {
		return err
	}
	t.undo = append(t.undo, d.Abort)
	t.commit = func(ctx context.Context, tree ferry.Source) (archive.Summary, error) { return d.Save(ctx, tree, o) }
	return nil
}

// run runs the command, and packs what it made of the tree.
func (t *throwaway) run(ctx context.Context, e *userns.Env, command userns.Spec, out *Out) (status int, err error) {
	path, err := ephemeral.StatePath()
	if err != nil {
		return userns.ExitOwn, err
	}
	state, err := ephemeral.Open(path)
	if err != nil {
		return userns.ExitOwn, err
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	o := ephemeral.Options{Command: command, Archive: t.archive, Upper: t.upper, Size: t.size, Workers: t.jobs}
	if t.archive != nil {
		total := archive.RawSize(t.archive)
		p := out.Progress("unpack", total)
		if p != nil {
			o.Progress = func(n int64) { p.Set(n, max(n, total)) }
			o.Ready = p.Done // nothing of ours comes between what the command prints
		}
	}
	if t.commit != nil {
		o.Commit = func(ctx context.Context, tree ferry.Source) error {
			sum, err := t.commit(ctx, tree)
			if err != nil {
				return err
			}
			delete(sum.Skipped, archive.SkippedPlaceholder) // of this run itself
			warnSkipped(out, sum)
			return nil
		}
	}
	return ephemeral.Run(ctx, e, state, o)
}

func (t *throwaway) close() error {
	if t == nil {
		return nil
	}
	var errs []error
	for _, f := range slices.Backward(t.undo) {
		errs = append(errs, f())
	}
	t.undo = nil
	return errors.Join(errs...)
}
