package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/nsferry/nsferry/deploy"
	"github.com/nsferry/nsferry/idshift/userns"
)

type deployCmd struct {
	Paths        []string `arg:"" name:"src-dest" help:"SRC… DEST: files of the tree that --from names, or else of yours or your sub-ids, or - for standard input; last, a directory or the output's name. *, ? and [] in SRC stand for exactly one file."`
	From         string   `placeholder:"ROOTFS" help:"The tree that SRC is in. Links to directories are followed as if it were the root directory; the file itself may be none."`
	All          bool     `help:"SRC may stand for several files."`
	Archive      bool     `help:"SRC is a tree, and DEST the archive to make of it."`
	Target       string   `enum:",sbuild" default:"" placeholder:"READER" help:"With --archive: what it is for; see convert."`
	Exclude      []string `sep:"none" placeholder:"PATTERN" help:"With --archive: leave out what matches. May be repeated."`
	Remove       bool     `help:"With --archive: remove the tree, after the archive is on the disk under its name."`
	Give         bool     `help:"No copies: SRC itself becomes yours and moves to DEST, on the same filesystem."`
	Force        bool     `short:"f" help:"Replace outputs that exist, each in one step."`
	FileMode     string   `short:"m" placeholder:"MODE" help:"Of the outputs, octal; default is 0644 less the umask."`
	ClampMtime   *int64   `placeholder:"EPOCH" help:"Give no output a modification time later than EPOCH seconds."`
	Symlink      string   `placeholder:"NAME" help:"Make NAME, beside the output, a symbolic link to it: last, and in one step."`
	Sha256       bool     `name:"sha256" help:"Write OUTPUT.sha256 beside each output, for sha256sum --check."`
	Bmap         bool     `help:"Write OUTPUT.bmap beside each output, for bmaptool."`
	Compress     string   `enum:"none,zst,gz" default:"none" help:"Compress on the way; in a directory, OUTPUT gets the suffix. One of ${enum}."`
	Level        int      `placeholder:"N" help:"Compression level, as of zstd(1) (default 3) or gzip(1) (default 6)."`
	ExpectSize   *int64   `placeholder:"BYTES" help:"Deploy nothing unless SRC has this size."`
	ExpectSHA256 string   `name:"expect-sha256" placeholder:"HEX" help:"Deploy nothing unless SRC has this digest."`
}

// deployed is the summary of deploy.
type deployed struct{ deploy.Summary }

func (d deployed) String() string {
	var lines []string
	for _, o := range d.Outputs {
		s := fmt.Sprintf("deployed %s to %s: %s", o.Source, o.Output, bytesText(o.Bytes))
		if o.Holes > 0 {
			s += fmt.Sprintf(", %s of it holes", bytesText(o.Holes))
		}
		s += ", by " + o.Method
		if o.Stored != o.Bytes {
			s += fmt.Sprintf(", %s stored", bytesText(o.Stored))
		}
		lines = append(lines, s)
	}
	if d.Symlink != "" {
		lines = append(lines, "set the link "+d.Symlink)
	}
	return strings.Join(lines, "\n")
}

// Run deploys.
func (c *deployCmd) Run(ctx context.Context, env envFunc, g *Globals, out *Out) error {
	o, err := c.options(g)
	if err != nil {
		return err
	}
	last := len(c.Paths) - 1
	if last < 1 {
		return &userns.UsageError{What: "deploy needs a source and a destination"}
	}
	sources, dest := c.Paths[:last], c.Paths[last]
	if c.Archive || c.Target != "" || c.Exclude != nil || c.Remove {
		return c.archive(ctx, env, g, out)
	}
	p := out.Progress("deploy", 0)
	if p != nil {
		o.Progress = p.Set
	}
	var sum deploy.Summary
	if len(sources) == 1 && sources[0] == "-" {
		sum, err = deploy.Stream(ctx, os.Stdin, dest, o)
	} else {
		var e *userns.Env
		if e, err = env(); err == nil {
			sum, err = deploy.Files(ctx, e, sources, dest, o)
		}
	}
	p.Done()
	if err != nil {
		return err
	}
	out.Summary(deployed{sum})
	return nil
}

func (c *deployCmd) options(g *Globals) (o deploy.Options, err error) {
	o = deploy.Options{
		From: c.From, All: c.All, Give: c.Give, Replace: c.Force, ClampMTime: c.ClampMtime, Symlink: c.Symlink, Sum: c.Sha256, Map: c.Bmap,
		Level: c.Level, Workers: g.Jobs, Expect: deploy.Expectation{Size: c.ExpectSize, SHA256: c.ExpectSHA256},
	}
	if c.Compress != "none" {
		o.Compress = deploy.Compression(c.Compress)
	}
	if c.FileMode != "" {
		mode, err := strconv.ParseUint(c.FileMode, 8, 12)
		if err != nil || mode == 0 {
			return o, &userns.UsageError{What: fmt.Sprintf("--file-mode %s is not an octal mode", c.FileMode)}
		}
		o.Mode = uint32(mode)
	}
	return o, nil
}
