package ferry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/idshift/userns/mounts"
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
	// Hold are files that the inner half keeps open as long as it works: locks, which so outlive a killed caller.
	Hold []*os.File `json:"-"`
	Increment
}

type packArgs struct {
	Rest    string
	IDs     archive.IDs
	Options PackOptions
	At      incrementAt
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
func Pack(ctx context.Context, e *userns.Env, dir, out string, o PackOptions) (sum archive.Summary, err error) {
	f, err := NewOutput(out, o)
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, f.Abort()) }() // no effect once committed
	tree, err := openSource(dir)
	if err != nil {
		return sum, err
	}
	defer tree.Root.Close()
	if sum, err = f.Pack(ctx, e, tree); err != nil {
		return sum, fmt.Errorf("pack %s: %w", dir, err)
	}
	return sum, nil
}

// Source is a tree to be packed. The files are the caller's.
type Source struct {
	Root *os.File
	Rest string // from Root on; see userns.OpenTree
	// Changes, if not nil, is the layer of changes over Root: both are what mounts.Take has returned.
	Changes *os.File
}

func openSource(dir string) (s Source, err error) {
	s.Root, s.Rest, err = userns.OpenTree(dir)
	return s, err
}

// Output is an archive that is to be packed, and has no name before it is whole.
type Output struct {
	*pending
	options PackOptions
}

// NewOutput makes ready for an archive at out, so that what forbids it shows before there is any work. Abort it.
func NewOutput(out string, o PackOptions) (*Output, error) {
	if o.Format == "" {
		o.Format = FormatOf(out)
	}
	if err := o.Target.apply(&o.Policy, &o.Exclude); err != nil {
		return nil, err
	}
	p, err := newPending(out, appearance{o.Mode, o.Replace, o.Format, o.Target})
	if err != nil {
		return nil, err
	}
	return &Output{p, o}, nil
}

// Pack writes the tree, and gives the archive its name.
func (f *Output) Pack(ctx context.Context, e *userns.Env, tree Source) (sum archive.Summary, err error) {
	if sum, err = PackSource(ctx, e, tree, f.File(), f.options); err != nil {
		return sum, err
	}
	return sum, f.publish(ctx, sum)
}

// PackTo writes the tree dir to an open file or pipe, which stays the caller's. After an error what was
// written is worthless.
func PackTo(ctx context.Context, e *userns.Env, dir string, out *os.File, o PackOptions) (archive.Summary, error) {
	tree, err := openSource(dir)
	if err != nil {
		return archive.Summary{}, err
	}
	defer tree.Root.Close()
	sum, err := PackSource(ctx, e, tree, out, o)
	if err != nil {
		return sum, fmt.Errorf("pack %s: %w", dir, err)
	}
	return sum, nil
}

// PackSource writes the tree to an open file or pipe, as PackTo does.
func PackSource(ctx context.Context, e *userns.Env, tree Source, out *os.File, o PackOptions) (archive.Summary, error) {
	o.Policy = o.Policy.WithDefaults(Privileged(e))
	progress := o.Progress
	o.Progress = nil
	half, files := packHalf, []*os.File{out, tree.Root}
	if tree.Changes != nil {
		half, files = packMergedHalf, append(files, tree.Changes)
	}
	at, files := o.Increment.add(append(files, o.Hold...))
	return half.Run(ctx, e, packArgs{tree.Rest, ids(e), o, at}, progress.raw(), files...)
}

// packHalf gets the output and the tree's root.
var packHalf = userns.Half[packArgs, archive.Summary]{Name: "pack", Func: func(ctx context.Context, in *userns.Inner, a packArgs) (archive.Summary, error) {
	root, err := userns.ReopenDir(in.Files[1], a.Rest)
	if err != nil {
		return archive.Summary{}, err
	}
	defer root.Close()
	return a.create(ctx, in, root)
}}

// packMergedHalf gets the output and two layers. It mounts, so it is isolated.
var packMergedHalf = userns.Half[packArgs, archive.Summary]{Name: "pack-merged", Isolated: true, Func: func(ctx context.Context, in *userns.Inner, a packArgs) (archive.Summary, error) {
	root, err := mounts.Merge(in.Files[1], in.Files[2])
	if err != nil {
		return archive.Summary{}, err
	}
	defer root.Close()
	return a.create(ctx, in, root)
}}

// create writes the tree at root to the first file of in.
func (a packArgs) create(ctx context.Context, in *userns.Inner, root *os.File) (archive.Summary, error) {
	o := a.Options
	c := archive.CreateOptions{
		ScanOptions: archive.ScanOptions{IDs: a.IDs, Policy: o.Policy, Exclude: o.Exclude, CrossMounts: o.CrossMounts, ClampMTime: o.ClampMTime},
		Format:      o.Format, Level: o.Level, Workers: Workers(o.Workers), Header: o.Target.header(), Progress: report(in), Explain: o.Explain, Elide: o.Elide,
	}
	x := a.At.open(root, in.Files, &o.Increment, &c)
	sum, err := archive.Create(ctx, root, in.Files[0], c)
	if err == nil {
		x.finish(&sum)
	}
	return sum, err
}
