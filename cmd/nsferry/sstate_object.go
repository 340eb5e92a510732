package main

import (
	"context"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/sstate"
)

// objectFlags are what both directions of an object have.
type objectFlags struct {
	Rootfs string `arg:"" help:"The tree."`
	Dir    string `type:"path" default:"." help:"The directory of the object; where bitbake calls its functions."`
	Lock   string `type:"path" placeholder:"FILE" help:"The lock to hold meanwhile; default: ROOTFS.lock, as bitbake has it."`
}

type sstatePackObjectCmd struct {
	objectFlags
	Format   string `enum:"tar,zst" default:"tar" help:"rootfs.tar (tar), or rootfs.tar.zst (zst), which needs less room and is not compressed twice."`
	KeepDebs bool   `help:"Also take the packages in var/cache/apt/archives."`
	packFlags
	policyFlags
}

// Run makes the object.
func (c *sstatePackObjectCmd) Run(ctx context.Context, e *userns.Env, g *Globals, out *Out) error {
	o := sstate.ObjectOptions{Dir: c.Dir, Lock: c.Lock, Wait: out.Note, Pack: c.options(g, c.policyFlags)}
	if o.Pack.Format = archive.Plain; c.Format == "zst" {
		o.Pack.Format = archive.Framed
	}
	if !c.KeepDebs {
		o.Pack.Exclude = append(o.Pack.Exclude, sstate.DefaultExcludes()...)
	}
	p := out.Progress("pack", 0)
	if p != nil {
		o.Pack.Progress = func(n int64) { p.Set(n, n) }
	}
	r, err := sstate.PackObject(ctx, e, c.Rootfs, o)
	p.Done()
	if err != nil {
		return err
	}
	warnSkipped(out, r.Summary)
	out.Summary(object{"packed", r})
	return nil
}

type sstateRestoreObjectCmd struct {
	objectFlags
	Keep bool `help:"Leave the archive where it is."`
	policyFlags
}

// Run makes the tree of the object.
func (c *sstateRestoreObjectCmd) Run(ctx context.Context, e *userns.Env, g *Globals, out *Out) error {
	o := sstate.ObjectOptions{Dir: c.Dir, Lock: c.Lock, Wait: out.Note, Keep: c.Keep, Unpack: ferry.UnpackOptions{Workers: g.Jobs, Policy: c.policy()}}
	p := out.Progress("unpack", 0)
	if p != nil {
		o.Unpack.Progress = func(n int64) { p.Set(n, n) }
	}
	r, err := sstate.RestoreObject(ctx, e, c.Rootfs, o)
	p.Done()
	if err != nil {
		return err
	}
	warnSkipped(out, r.Summary)
	out.Summary(object{"restored", r})
	return nil
}

// object is the summary of both.
type object struct {
	what string
	sstate.Object
}

func (o object) String() string {
	if o.File == "" {
		return "nothing to restore: no rootfs.tar and no rootfs.tar.zst here"
	}
	return transferred{o.what, o.File, o.Summary}.String()
}
