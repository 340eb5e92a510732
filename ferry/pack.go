package ferry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/zframe"
	"github.com/nsferry/nsferry/idshift/handoff"
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
	parent, rest, name, err := OpenParent(out)
	if err != nil {
		return sum, err
	}
	defer parent.Close()
	if rest != "" {
		return sum, fmt.Errorf("%s: the directory is closed to you, and the output has to be yours", out)
	}
	overwrite := handoff.Exclusive
	if o.Replace {
		overwrite = handoff.Replace
	}
	if o.Mode == 0 {
		o.Mode = 0o666 &^ Umask()
	}
	p, err := handoff.NewPending(parent, name, handoff.Options{Mode: o.Mode, Overwrite: overwrite})
	if err != nil {
		return sum, fmt.Errorf("%s: %w", out, err)
	}
	defer func() { err = errors.Join(err, p.Abort()) }() // no effect once committed
	if o.Format == "" {
		o.Format = FormatOf(name)
	}
	if sum, err = PackTo(ctx, e, dir, p.File(), o); err != nil {
		return sum, err
	}
	if err := Whole(p.File(), sum, o.Format); err != nil {
		return sum, fmt.Errorf("%s: %w", out, err)
	}
	if err := ctx.Err(); err != nil { // what was asked to stop publishes nothing
		return sum, err
	}
	return sum, p.Commit()
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
	at, files := o.Increment.add(append([]*os.File{root, out}, o.Hold...))
	sum, err := packHalf.Run(ctx, e, packArgs{rest, ids(e), o, at}, progress.raw(), files...)
	if err != nil {
		return sum, fmt.Errorf("pack %s: %w", dir, err)
	}
	return sum, nil
}

// Whole checks from outside that what the half says it wrote is there.
func Whole(f *os.File, sum archive.Summary, format archive.Format) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size() != sum.Stored {
		return fmt.Errorf("%d bytes were written, but %d are there", sum.Stored, st.Size())
	}
	if format != archive.Framed {
		return nil
	}
	z, err := zframe.Open(f, st.Size())
	if err == nil && z.Raw() != sum.Raw {
		err = fmt.Errorf("%d bytes of tar were written, but %d are there", sum.Raw, z.Raw())
	}
	return err
}

// packHalf gets the tree's root and the output.
var packHalf = userns.Half[packArgs, archive.Summary]{Name: "pack", Func: func(ctx context.Context, in *userns.Inner, a packArgs) (archive.Summary, error) {
	root, err := userns.ReopenDir(in.Files[0], a.Rest)
	if err != nil {
		return archive.Summary{}, err
	}
	defer root.Close()
	o := a.Options
	c := archive.CreateOptions{
		ScanOptions: archive.ScanOptions{IDs: a.IDs, Policy: o.Policy, Exclude: o.Exclude, CrossMounts: o.CrossMounts, ClampMTime: o.ClampMTime},
		Format:      o.Format, Level: o.Level, Workers: Workers(o.Workers), Progress: report(in), Explain: o.Explain,
	}
	x := a.At.open(root, in.Files, &o.Increment, &c)
	sum, err := archive.Create(ctx, root, in.Files[1], c)
	if err == nil {
		x.finish(&sum)
	}
	return sum, err
}}
