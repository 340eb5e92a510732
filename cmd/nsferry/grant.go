package main

import (
	"context"
	"fmt"
	"io"

	"github.com/nsferry/nsferry/grant"
	"github.com/nsferry/nsferry/idshift/userns"
)

type grantCmd struct {
	Dir      []string      `arg:"" help:"Directories; those that are missing are made."`
	AlsoID   []uint32      `name:"also-id" placeholder:"N" help:"Let this inner id in as well, such as sbuild's. May be repeated."`
	Default  bool          `help:"What is made in the directory shall be open as well; for caches, not for trees."`
	Traverse bool          `help:"Where a directory above is closed to inner root, let it through (--x)."`
	OrTake   bool          `help:"Where the filesystem keeps no ACLs, make inner root the owner."`
	Force    []grant.Force `enum:"inheritable,debs" placeholder:"WHAT" help:"Grant what is refused for a reason: a default ACL above a rootfs (inheritable), or on a directory of Debian packages (debs)."`
	Check    bool          `help:"Change nothing; say whether the grants still hold. Exit status 1 if one does not."`
}

// Run grants, or looks whether grants hold.
func (c *grantCmd) Run(ctx context.Context, e *userns.Env, out *Out) error {
	if c.Check {
		return c.check(e, out)
	}
	r, err := grant.Grant(ctx, e, c.Dir, grant.Options{AlsoIDs: c.AlsoID, Default: c.Default, Traverse: c.Traverse, OrTake: c.OrTake, Force: c.Force})
	if err == nil || len(r.Changes) > 0 {
		out.Summary(r)
	}
	return err
}

func (c *grantCmd) check(e *userns.Env, out *Out) error {
	all, err := grant.Check(e, c.Dir, c.AlsoID)
	if err != nil {
		return err
	}
	broken := false
	err = out.Answer(all, func(w io.Writer) error {
		for _, h := range all {
			text := h.Path + ": holds"
			if !h.Holds {
				text = h.Error()
			} else if !h.Record {
				text += ", without a grant of ours"
			}
			if _, err := fmt.Fprintln(w, text); err != nil {
				return err
			}
		}
		return nil
	})
	for _, h := range all {
		broken = broken || !h.Holds
	}
	if err == nil && broken {
		err = exitStatus(exitFailed)
	}
	return err
}

type revokeCmd struct {
	Dir []string `arg:"" help:"Directories that were granted; they may be gone."`
}

// Run takes every grant back, also when one fails.
func (c *revokeCmd) Run(ctx context.Context, e *userns.Env, out *Out) error {
	r, err := grant.Revoke(ctx, e, c.Dir)
	if err == nil || len(r.Changes) > 0 {
		out.Summary(r)
	}
	return err
}
