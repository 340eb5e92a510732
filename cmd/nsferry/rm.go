package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
)

type rmCmd struct {
	Path   []string `arg:"" help:"Trees and files of yours or of your sub-ids; directories with all that is in them."`
	Force  bool     `short:"f" help:"It is no error that a path does not exist."`
	DryRun bool     `short:"n" help:"Remove nothing; count, and name what would stay and why."`
}

// removed is the summary of rm.
type removed struct {
	Inodes int64 `json:"inodes"`
	DryRun bool  `json:"dryRun,omitempty"`
}

func (r removed) String() string {
	if r.DryRun {
		return fmt.Sprintf("would remove %d inodes", r.Inodes)
	}
	return fmt.Sprintf("removed %d inodes", r.Inodes)
}

// Run removes every path, also when one of them fails.
func (c *rmCmd) Run(ctx context.Context, g *Globals, e *userns.Env, out *Out) error {
	sum := removed{DryRun: c.DryRun}
	var errs []error
	for _, path := range c.Path {
		r, err := ferry.Remove(ctx, e, path, ferry.RemoveOptions{Force: c.Force, DryRun: c.DryRun, Workers: g.Jobs})
		sum.Inodes += r.Inodes
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	out.Summary(sum)
	return nil
}
