package main

import (
	"context"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
)

// handedOver is the summary of deploy --archive.
type handedOver struct {
	transferred
	Removed int64 `json:"removed,omitempty"` // inodes of the tree
}

func (h handedOver) String() string {
	if h.Removed == 0 {
		return h.transferred.String()
	}
	return h.transferred.String() + "\n" + removed{Inodes: h.Removed}.String()
}

// archive packs a tree for somebody, and removes it if that is asked for.
func (c *deployCmd) archive(ctx context.Context, env envFunc, g *Globals, out *Out) error {
	if !c.Archive {
		return &userns.UsageError{What: "--target, --exclude and --remove go with --archive"}
	}
	if c.From != "" || c.All || c.Give || c.Symlink != "" || c.Sha256 || c.Bmap || c.Compress != "none" || c.ExpectSize != nil || c.ExpectSHA256 != "" {
		return &userns.UsageError{What: "--archive takes --target, --exclude, --remove, --force, --level, --file-mode and --clamp-mtime only"}
	}
	if len(c.Paths) != 2 {
		return &userns.UsageError{What: "deploy --archive needs a tree and an output"}
	}
	files, err := c.options(g)
	if err != nil {
		return err
	}
	e, err := env()
	if err != nil {
		return err
	}
	dir, dest := c.Paths[0], c.Paths[1]
	o := ferry.PackOptions{
		Level: c.Level, Workers: g.Jobs, Exclude: c.Exclude, ClampMTime: c.ClampMtime, Mode: files.Mode,
		Replace: c.Force, Target: ferry.Target(c.Target),
	}
	p := out.Progress("deploy", 0)
	if p != nil {
		o.Progress = func(n int64) { p.Set(n, n) }
	}
	var sum archive.Summary
	var gone tree.Removed
	if c.Remove {
		sum, gone, err = ferry.HandOver(ctx, e, dir, dest, o)
	} else {
		sum, err = ferry.Pack(ctx, e, dir, dest, o)
	}
	p.Done()
	if err != nil {
		return err
	}
	warnSkipped(out, sum)
	out.Summary(handedOver{transferred{"deployed", dir, sum}, gone.Inodes})
	return nil
}
