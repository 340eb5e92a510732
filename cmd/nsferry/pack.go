package main

import (
	"context"
	"fmt"
	"os"

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
}

func (t transferred) String() string {
	s := fmt.Sprintf("%s %s: %d entries, %s in %d files", t.What, t.Name, t.Entries, bytesText(t.Content), t.Files)
	if t.Stored > 0 {
		s += fmt.Sprintf(", %s stored", bytesText(t.Stored))
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
	Dir    string `arg:"" help:"The tree."`
	Output string `short:"o" required:"" placeholder:"FILE" help:"The archive; - is standard output. It appears when it is whole."`
	Force  bool   `short:"f" help:"Replace FILE if it exists, in one step."`
	Format string `enum:"auto,zst,gz,tar" default:"auto" help:"One of ${enum}; auto goes by the name: .tar, .tar.gz, .tgz, else zst."`
	packFlags
	Base string `placeholder:"FILE" help:"An archive of an earlier state of the tree: what of it is still true is copied, not compressed again. The result is the same whatever it is."`
	policyFlags
}

// packFlags are what can be said of a tree on its way into an archive.
type packFlags struct {
	Level       int      `placeholder:"N" help:"Compression level, as of zstd(1) (default 3) or gzip(1) (default 6)."`
	Exclude     []string `sep:"none" placeholder:"PATTERN" help:"Leave out what matches, anchored at the root of the tree: var/cache/apt/archives, tmp/*. May be repeated."`
	CrossMounts bool     `help:"Also take what is mounted in the tree."`
	ClampMtime  *int64   `placeholder:"EPOCH" help:"Store no modification time later than EPOCH seconds."`
	Explain     bool     `help:"Say what was copied from the base, and why not the rest."`
}

func (f packFlags) options(g *Globals, p policyFlags) ferry.PackOptions {
	return ferry.PackOptions{
		Level: f.Level, Workers: g.Jobs, Policy: p.policy(), Exclude: f.Exclude, CrossMounts: f.CrossMounts, ClampMTime: f.ClampMtime,
		Increment: ferry.Increment{Explain: f.Explain},
	}
}

// explain prints what was reused, if that is asked for. With --json it is in the result.
func (f packFlags) explain(out *Out, sum archive.Summary) {
	if !f.Explain || sum.Reuse == nil || out.json {
		return
	}
	for _, line := range sum.Reuse.Lines() {
		out.Note(line)
	}
}

// Run packs a tree.
func (c *packCmd) Run(ctx context.Context, e *userns.Env, g *Globals, out *Out) error {
	o := c.options(g, c.policyFlags)
	o.Replace = c.Force
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
	c.explain(out, sum)
	out.Summary(transferred{"packed", c.Dir, sum})
	return nil
}
