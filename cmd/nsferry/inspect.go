package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
)

// envFunc makes an Env for commands that need one only when an argument turns out to be a tree.
type envFunc func() (*userns.Env, error)

type lsCmd struct {
	Path        string   `arg:"" help:"A tree or an archive; - is standard input."`
	Exclude     []string `sep:"none" placeholder:"PATTERN" help:"Of a tree, leave out what matches. May be repeated."`
	CrossMounts bool     `help:"Of a tree, also list what is mounted in it."`
}

// Run prints one line an inode.
func (c *lsCmd) Run(ctx context.Context, env envFunc, g *Globals, out *Out) error {
	o := ferry.ListOptions{Workers: g.Jobs, Exclude: c.Exclude, CrossMounts: c.CrossMounts}
	if g.JSON {
		nodes := []listing.Node{}
		err := ferry.List(ctx, env, c.Path, o, collect(&nodes))
		if err != nil {
			return err
		}
		return out.Answer(lines(nodes), nil)
	}
	w, release, err := archive.UnstalledWriter(ctx, out.Stdout)
	if err != nil {
		return err
	}
	defer release()
	line, flush := archive.WriteLines(w)
	if err := ferry.List(ctx, env, c.Path, o, line); err != nil {
		_ = flush() // the listing's error says more
		return err
	}
	return flush()
}

// collect appends to nodes.
func collect(nodes *[]listing.Node) func(listing.Node) error {
	return func(n listing.Node) error {
		*nodes = append(*nodes, n)
		return nil
	}
}

// lines is a listing as JSON: the lines, because names are bytes and lines quote them.
func lines(nodes []listing.Node) []string {
	text := make([]string, len(nodes))
	for i, n := range nodes {
		text[i] = n.Line()
	}
	return text
}

type catCmd struct {
	Archive string `arg:"" help:"An archive."`
	Path    string `arg:"" help:"A file in it; symlinks are followed within the archive."`
}

// Run prints the content of one file.
func (c *catCmd) Run(ctx context.Context, g *Globals, out *Out) error {
	in, err := os.Open(c.Archive)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := archive.Cat(ctx, in, c.Path, ferry.Workers(g.Jobs), out.TakeStdout()); err != nil {
		return fmt.Errorf("%s: %w", c.Archive, err)
	}
	return nil
}

type diffCmd struct {
	A string `arg:"" help:"A tree or an archive."`
	B string `arg:"" help:"A tree or an archive."`

	Exclude     []string `sep:"none" placeholder:"PATTERN" help:"Of trees, leave out what matches. May be repeated."`
	CrossMounts bool     `help:"Of trees, also compare what is mounted in them."`
}

// Run prints what differs; that anything does is exit status 1.
func (c *diffCmd) Run(ctx context.Context, env envFunc, g *Globals, out *Out) error {
	o := ferry.ListOptions{Workers: g.Jobs, Exclude: c.Exclude, CrossMounts: c.CrossMounts}
	var sides [2][]listing.Node
	for i, path := range []string{c.A, c.B} {
		if err := ferry.List(ctx, env, path, o, collect(&sides[i])); err != nil {
			return err
		}
	}
	found := []archive.Difference{}
	err := archive.Compare(sides[0], sides[1], func(d archive.Difference) error {
		found = append(found, d)
		return nil
	})
	if err != nil {
		return err
	}
	err = out.Answer(found, func(w io.Writer) error {
		for _, d := range found {
			if _, err := fmt.Fprintln(w, d); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && len(found) > 0 {
		err = exitStatus(exitFailed)
	}
	return err
}

type verifyCmd struct {
	Archive string `arg:"" help:"An archive."`
	Target  string `enum:",sbuild" default:"" placeholder:"READER" help:"Also check that this reader takes it: sbuild, as the tarball of an unshare chroot."`
}

// verified is what verify reports.
type verified struct {
	Name string `json:"-"`
	archive.Verified
}

func (v verified) String() string {
	if v.Own {
		return fmt.Sprintf("%s: whole: %d entries, %s, %d frames, all sums right", v.Name, v.Entries, bytesText(v.Content), v.Frames)
	}
	return fmt.Sprintf("%s: a whole tar stream (%s) of another make: %d entries, %s; it has no sums to check", v.Name, v.Kind, v.Entries, bytesText(v.Content))
}

// Run reads all of an archive.
func (c *verifyCmd) Run(ctx context.Context, g *Globals, out *Out) error {
	in, err := ferry.Open(c.Archive)
	if err != nil {
		return err
	}
	defer in.Close()
	v, err := archive.Verify(ctx, in, ferry.Workers(g.Jobs))
	if err != nil {
		return fmt.Errorf("%s: %w", c.Archive, err)
	}
	if _, err := ferry.Target(c.Target).Check(ctx, in, c.Archive, g.Jobs); err != nil {
		return fmt.Errorf("%s: %w", c.Archive, err)
	}
	out.Summary(verified{c.Archive, v})
	return nil
}
