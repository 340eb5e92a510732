package ferry

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/idshift/userns"
)

// PackOptions say how a tree becomes an archive.
type PackOptions struct {
	Format      archive.Format // empty: by the output's name
	Level       int
	Workers     int
	Policy      archive.Policy
	Exclude     archive.Excludes
	CrossMounts bool
	ClampMTime  *int64
	Mode        uint32   // of the output; 0 is 0644 less the umask
	Replace     bool     // the output may exist, and is replaced when the new one is whole
	Target      Target   // what the archive is for; not with PackTo, whose output nobody can check
	Progress    Progress `json:"-"`
}

type packArgs struct {
	Rest    string
	IDs     archive.IDs
	Options PackOptions
}

// FormatOf returns the format that an output's name asks for: .tar, .tar.gz and .tgz, else framed zstd.
func FormatOf(name string) archive.Format {
	switch {
	case strings.HasSuffix(name, ".tar"):
		return archive.Plain
	case strings.HasSuffix(name, ".gz"), strings.HasSuffix(name, ".tgz"):
		return archive.Gzip
	}
	return archive.Framed
}

// Pack writes the tree dir to a new file at out, which is the caller's by birth and appears when it is whole.
func Pack(ctx context.Context, e *userns.Env, dir, out string, o PackOptions) (archive.Summary, error) {
	if o.Format == "" {
		o.Format = FormatOf(out)
	}
	if err := o.Target.apply(&o.Policy, &o.Exclude); err != nil {
		return archive.Summary{}, err
	}
	return publish(ctx, out, output{o.Mode, o.Replace, o.Format, o.Target}, func(f *os.File) (archive.Summary, error) {
		return PackTo(ctx, e, dir, f, o)
	})
}

// PackTo writes the tree dir to an open file or pipe, which stays the caller's. After an error what was
// written is worthless.
func PackTo(ctx context.Context, e *userns.Env, dir string, out *os.File, o PackOptions) (archive.Summary, error) {
	root, rest, err := userns.OpenTree(dir)
	if err != nil {
		return archive.Summary{}, err
	}
	defer root.Close()
	o.Policy = o.Policy.WithDefaults(privileged(e))
	progress := o.Progress
	o.Progress = nil
	sum, err := packHalf.Run(ctx, e, packArgs{rest, ids(e), o}, progress.raw(), root, out)
	if err != nil {
		return sum, fmt.Errorf("pack %s: %w", dir, err)
	}
	return sum, nil
}

// packHalf gets the tree's root and the output.
var packHalf = userns.Half[packArgs, archive.Summary]{Name: "pack", Func: func(ctx context.Context, in *userns.Inner, a packArgs) (archive.Summary, error) {
	root, err := userns.ReopenDir(in.Files[0], a.Rest)
	if err != nil {
		return archive.Summary{}, err
	}
	defer root.Close()
	o := a.Options
	return archive.Create(ctx, root, in.Files[1], archive.CreateOptions{
		ScanOptions: archive.ScanOptions{IDs: a.IDs, Policy: o.Policy, Exclude: o.Exclude, CrossMounts: o.CrossMounts, ClampMTime: o.ClampMTime},
		Format:      o.Format, Level: o.Level, Workers: Workers(o.Workers), Header: o.Target.header(), Progress: report(in),
	})
}}
