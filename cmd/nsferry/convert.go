package main

import (
	"context"
	"os"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
)

type convertCmd struct {
	Archive    string   `arg:"" help:"Any tar archive: plain, zstd, gzip, xz or bzip2; - is standard input."`
	Output     string   `short:"o" required:"" placeholder:"FILE" help:"The new archive; - is standard output. It appears when it is whole."`
	Force      bool     `short:"f" help:"Replace FILE if it exists, in one step."`
	Member     string   `placeholder:"NAME" help:"Convert the archive that is an entry of ARCHIVE, as rootfs.tar in an sstate object."`
	Target     string   `enum:",sbuild" default:"" placeholder:"READER" help:"What the archive is for. sbuild: its unshare mode takes it, on Debian 12 and 13, which is checked before FILE appears; device nodes, the packages of apt's cache and isar-apt are left out."`
	Format     string   `enum:"auto,zst,gz,tar" default:"auto" help:"One of ${enum}; auto goes by the name: .tar, .tar.gz, .tgz, else zst."`
	Level      int      `placeholder:"N" help:"Compression level, as of zstd(1) (default 3) or gzip(1) (default 6)."`
	Exclude    []string `sep:"none" placeholder:"PATTERN" help:"Leave out what matches, anchored at the root of the tree: var/cache/apt/archives, tmp/*. May be repeated."`
	ClampMtime *int64   `placeholder:"EPOCH" help:"Keep no modification time later than EPOCH seconds."`
	Top        string   `placeholder:"NAME" help:"Strip this single top directory. Without it, one named rootfs is stripped."`
	KeepTop    bool     `help:"Strip nothing."`
	Devices    string   `enum:"auto,store,skip,fail" default:"auto" help:"Device nodes: keep (store), leave out and count (skip), or refuse (fail); auto keeps them, except for sbuild. Whiteouts (char 0:0) are kept, too."`
	Xattrs     string   `enum:"portable,all,none" default:"portable" help:"Extended attributes: ACLs, capabilities and user.* (portable), also trusted.* and security.* (all), or none at all."`
}

// Run converts an archive.
func (c *convertCmd) Run(ctx context.Context, g *Globals, out *Out) error {
	in, err := ferry.Open(c.Archive)
	if err != nil {
		return err
	}
	defer in.Close()
	o := ferry.ConvertOptions{
		Member: c.Member, Level: c.Level, Workers: g.Jobs, Exclude: c.Exclude, Top: c.Top, KeepTop: c.KeepTop,
		ClampMTime: c.ClampMtime, Replace: c.Force,
		Policy: archive.Policy{Xattrs: archive.Xattrs(c.Xattrs)}, Target: ferry.Target(c.Target),
	}
	if c.Devices != "auto" {
		o.Policy.Devices = archive.Action(c.Devices)
	}
	if c.Format != "auto" {
		o.Format = archive.Format(c.Format)
	}
	p := out.Progress("convert", 0)
	if p != nil {
		o.Progress = func(n int64) { p.Set(n, n) }
	}
	var sum archive.Summary
	if c.Output == "-" {
		if isTerminal(os.Stdout) {
			return &userns.UsageError{What: "an archive is nothing for a terminal; redirect standard output, or name a file with -o"}
		}
		if c.Target != "" {
			return &userns.UsageError{What: "what is made for " + c.Target + " is checked before it appears, and needs a file: name one with -o"}
		}
		out.TakeStdout()
		sum, err = ferry.ConvertTo(ctx, in, os.Stdout, o)
	} else {
		sum, err = ferry.Convert(ctx, in, c.Output, o)
	}
	p.Done()
	if err != nil {
		return err
	}
	warnSkipped(out, sum)
	out.Summary(transferred{"converted", c.Archive, sum})
	return nil
}
