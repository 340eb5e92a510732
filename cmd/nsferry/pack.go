package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
)

// policyFlags are what both directions may do with things that cannot go through.
type policyFlags struct {
	Devices  string `enum:"auto,skip,fail,store" default:"auto" help:"Device nodes: leave out and count (skip), refuse (fail), or keep (store); auto stores them as real root and skips them otherwise. Whiteouts (char 0:0) are always kept."`
	Sockets  string `enum:"skip,fail" default:"skip" help:"Sockets, for which tar has no type: one of ${enum}."`
	Xattrs   string `enum:"portable,all,none" default:"portable" help:"Extended attributes: ACLs, capabilities and user.* (portable), also trusted.* and security.* (all), or none at all."`
	Unmapped string `enum:"fail,nobody" default:"fail" help:"Ids that the map has no place for: refuse, naming all of them (fail), or give owners to 65534 and leave ACL entries out (nobody)."`
}

func (f policyFlags) policy() archive.Policy {
	p := archive.Policy{Sockets: archive.Action(f.Sockets), Xattrs: archive.Xattrs(f.Xattrs), Unmapped: archive.Action(f.Unmapped)}
	if f.Devices != "auto" {
		p.Devices = archive.Action(f.Devices)
	}
	return p
}

// transferred is the summary of a pack or unpack.
type transferred struct {
	What, Name string `json:"-"`
	archive.Summary
	Explain bool `json:"-"`
}

func (t transferred) String() string {
	s := fmt.Sprintf("%s %s: %d entries, %s in %d files", t.What, t.Name, t.Entries, bytesText(t.Content), t.Files)
	if t.Stored > 0 {
		s += fmt.Sprintf(", %s stored", bytesText(t.Stored))
	}
	if t.Explain && t.Reuse != nil {
		s += "\n" + strings.Join(t.Reuse.Lines(), "\n")
	}
	return s
}

// bytesText is a size for people, in the units of IEC 80000-13.
func bytesText(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	v, i := float64(n), 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}

// warnSkipped reports what a policy left out.
func warnSkipped(out *Out, s archive.Summary) {
	for what, n := range s.Skipped {
		out.Warn(Warning{What: "× left out: " + what, Count: n})
	}
}

type packCmd struct {
	Dir         string   `arg:"" help:"The tree."`
	Output      string   `short:"o" required:"" placeholder:"FILE" help:"The archive; - is standard output. It appears when it is whole."`
	Force       bool     `short:"f" help:"Replace FILE if it exists, in one step."`
	Format      string   `enum:"auto,zst,gz,tar" default:"auto" help:"One of ${enum}; auto goes by the name: .tar, .tar.gz, .tgz, else zst."`
	Level       int      `placeholder:"N" help:"Compression level, as of zstd(1) (default 3) or gzip(1) (default 6)."`
	Exclude     []string `sep:"none" placeholder:"PATTERN" help:"Leave out what matches, anchored at the root of the tree: var/cache/apt/archives, tmp/*. May be repeated."`
	CrossMounts bool     `help:"Also take what is mounted in the tree."`
	ClampMtime  *int64   `placeholder:"EPOCH" help:"Store no modification time later than EPOCH seconds."`
	Base        string   `placeholder:"FILE" help:"An archive of an earlier state of the tree, made with the same level: what of it is still true is copied, not compressed again. The result is the same as without."`
	Explain     bool     `help:"Say what was copied from the base, and why not the rest."`
	policyFlags
}

// Run packs a tree.
func (c *packCmd) Run(ctx context.Context, e *userns.Env, g *Globals, out *Out) error {
	o := ferry.PackOptions{
		Level: c.Level, Workers: g.Jobs, Policy: c.policy(), Exclude: c.Exclude,
		CrossMounts: c.CrossMounts, ClampMTime: c.ClampMtime, Replace: c.Force,
	}
	o.Explain = c.Explain
	if c.Base != "" {
		base, err := os.Open(c.Base)
		if err != nil {
			return err
		}
		defer base.Close()
		o.Base = base
	}
	if c.Format != "auto" {
		o.Format = archive.Format(c.Format)
	}
	p := out.Progress("pack", 0)
	if p != nil {
		o.Progress = func(n int64) { p.Set(n, n) }
	}
	var sum archive.Summary
	var err error
	if c.Output == "-" {
		if isTerminal(os.Stdout) {
			return &userns.UsageError{What: "an archive is nothing for a terminal; redirect standard output, or name a file with -o"}
		}
		out.TakeStdout()
		sum, err = ferry.PackTo(ctx, e, c.Dir, os.Stdout, o)
	} else {
		sum, err = ferry.Pack(ctx, e, c.Dir, c.Output, o)
	}
	p.Done()
	if err != nil {
		return err
	}
	warnSkipped(out, sum)
	out.Summary(transferred{"packed", c.Dir, sum, c.Explain})
	return nil
}

type unpackCmd struct {
	Archive string   `arg:"" help:"Any tar archive: plain, zstd, gzip, xz or bzip2; - is standard input."`
	Dir     string   `arg:"" help:"The tree to make: absent, or an empty directory. It appears when all is in it."`
	Exclude []string `sep:"none" placeholder:"PATTERN" help:"Leave out what matches, anchored at the root of the tree. May be repeated."`
	Top     string   `placeholder:"NAME" help:"Strip this single top directory. Without it, one named rootfs is stripped."`
	KeepTop bool     `help:"Strip nothing."`
	policyFlags
}

// Run unpacks an archive.
func (c *unpackCmd) Run(ctx context.Context, e *userns.Env, g *Globals, out *Out) error {
	in, err := ferry.Open(c.Archive)
	if err != nil {
		return err
	}
	defer in.Close()
	o := ferry.UnpackOptions{Workers: g.Jobs, Policy: c.policy(), Exclude: c.Exclude, Top: c.Top, KeepTop: c.KeepTop}
	total := archive.RawSize(in)
	p := out.Progress("unpack", total)
	if p != nil {
		o.Progress = func(n int64) { p.Set(n, max(n, total)) }
	}
	sum, err := ferry.Unpack(ctx, e, in, c.Dir, o)
	p.Done()
	if err != nil {
		return err
	}
	warnSkipped(out, sum)
	out.Summary(transferred{What: "unpacked", Name: c.Archive, Summary: sum})
	return nil
}
