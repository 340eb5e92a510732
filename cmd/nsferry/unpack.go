package main

import (
	"context"
	"fmt"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
)

type unpackCmd struct {
	Archive string   `arg:"" help:"Any tar archive: plain, zstd, gzip, xz or bzip2; - is standard input."`
	Dir     string   `arg:"" help:"The tree to make: absent, or an empty directory. It appears when all is in it."`
	Refresh bool     `help:"Turn the tree DIR, if there is one, into what an archive of ours holds: only what differs is touched, what the archive does not have is removed. All of the tree must belong to the map."`
	Only    []string `sep:"none" placeholder:"PATH" help:"Of an archive of ours unpack only PATH, with what is in it and the directories above, and read no more than that takes. May be repeated."`
	Exclude []string `sep:"none" placeholder:"PATTERN" help:"Leave out what matches, anchored at the root of the tree; --refresh leaves it as it is. May be repeated."`
	Top     string   `placeholder:"NAME" help:"Strip this single top directory. Without it, one named rootfs is stripped."`
	KeepTop bool     `help:"Strip nothing."`
	policyFlags
}

// Run unpacks an archive.
func (c *unpackCmd) Run(ctx context.Context, e *userns.Env, g *Globals, out *Out) error {
	if c.Refresh && (len(c.Only) > 0 || c.Top != "" || c.KeepTop) {
		return &userns.UsageError{What: "--refresh is about all of an archive of ours: it goes neither with --only nor with --top or --keep-top"}
	}
	in, err := ferry.Open(c.Archive)
	if err != nil {
		return err
	}
	defer in.Close()
	total := archive.RawSize(in)
	p := out.Progress("unpack", total)
	var progress ferry.Progress
	if p != nil {
		progress = func(n int64) { p.Set(n, max(n, total)) }
	}
	if c.Refresh {
		r, err := ferry.Refresh(ctx, e, in, c.Dir, ferry.RefreshOptions{Workers: g.Jobs, Policy: c.policy(), Exclude: c.Exclude, Progress: progress})
		p.Done()
		return refreshed(out, c.Archive, r, err)
	}
	sum, err := ferry.Unpack(ctx, e, in, c.Dir, ferry.UnpackOptions{
		Workers: g.Jobs, Policy: c.policy(), Exclude: c.Exclude, Only: c.Only, Top: c.Top, KeepTop: c.KeepTop, Progress: progress,
	})
	p.Done()
	if err != nil {
		return err
	}
	warnSkipped(out, sum)
	out.Summary(transferred{"unpacked", c.Archive, sum})
	return nil
}

// refreshedTree is the summary of a refresh.
type refreshedTree struct {
	name, fresh string // fresh: what it is called when there was no tree
	ferry.Refreshed
}

// String is the summary for people.
func (r refreshedTree) String() string {
	switch {
	case r.Fresh:
		return transferred{r.fresh, r.name, r.Summary}.String()
	case !r.Changed():
		return fmt.Sprintf("%s: the tree is in its state already, %d entries", r.name, r.Entries)
	}
	return fmt.Sprintf("refreshed from %s: %d of %d entries kept, %d with other metadata, %d made, %d linked, %d removed, %s written", r.name,
		r.Kept, r.Entries, r.Adjusted, r.Made, r.Linked, r.Removed, bytesText(r.Written))
}

// refreshed reports what a refresh has done, or err.
func refreshed(out *Out, name string, r ferry.Refreshed, err error) error {
	if err != nil {
		return err
	}
	warnSkipped(out, r.Summary)
	out.Summary(refreshedTree{name, "unpacked", r})
	return nil
}
