package ferry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/nsferry/nsferry/archive"

	"golang.org/x/sys/unix"
)

// ConvertOptions say how an archive becomes another one.
type ConvertOptions struct {
	Member     string // see archive.ConvertOptions
	Format     archive.Format
	Level      int
	Workers    int
	Policy     archive.Policy
	Exclude    archive.Excludes
	Top        string
	KeepTop    bool
	ClampMTime *int64
	Mode       uint32 // of the output; 0 is 0644 less the umask
	Replace    bool   // the output may exist, and is replaced when the new one is whole
	Target     Target // what the archive is for; not with ConvertTo, whose output nobody can check
	Progress   Progress
}

// Convert writes the archive in, an open file or pipe, to a new file at out, which appears when it is whole. Nobody's ids but those
// in the archives matter, so that all of it runs as the caller.
func Convert(ctx context.Context, in *os.File, out string, o ConvertOptions) (archive.Summary, error) {
	if o.Format == "" {
		o.Format = FormatOf(out)
	}
	if err := o.Target.apply(&o.Policy, &o.Exclude); err != nil {
		return archive.Summary{}, err
	}
	return publish(ctx, out, appearance{o.Mode, o.Replace, o.Format, o.Target}, func(f *os.File) (archive.Summary, error) {
		return convertTo(ctx, in, f, filepath.Dir(out), o)
	})
}

// ConvertTo writes it to an open file or pipe, which stays the caller's. After an error what was written is worthless.
func ConvertTo(ctx context.Context, in, out *os.File, o ConvertOptions) (archive.Summary, error) {
	return convertTo(ctx, in, out, os.TempDir(), o)
}

func convertTo(ctx context.Context, in, out *os.File, temp string, o ConvertOptions) (archive.Summary, error) {
	sum, err := archive.Convert(ctx, in, out, archive.ConvertOptions{
		Member: o.Member, Policy: o.Policy, Exclude: o.Exclude, Top: o.Top, KeepTop: o.KeepTop, ClampMTime: o.ClampMTime,
		Format: o.Format, Level: o.Level, Workers: Workers(o.Workers), Header: o.Target.header(), Progress: o.Progress,
		Temp: func() (*os.File, error) { return unnamed(temp) },
	})
	if err != nil {
		return sum, fmt.Errorf("convert %s: %w", in.Name(), err)
	}
	return sum, nil
}

// unnamed makes a file without a name on the filesystem of dir, which nobody can give one.
func unnamed(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), "the tar stream, kept on the filesystem of "+dir), nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return nil, &os.PathError{Op: "open O_TMPFILE", Path: dir, Err: err}
	}
	f, err := os.CreateTemp(dir, ".nsferry-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
