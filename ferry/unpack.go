package ferry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/idshift/userns"

	"golang.org/x/sys/unix"
)

// UnpackOptions say how an archive becomes a tree.
type UnpackOptions struct {
	Workers int
	Policy  archive.Policy
	Exclude archive.Excludes
	Top     string // a single top directory to strip; see archive.ExtractOptions
	KeepTop bool
	// Sums, if not nil, are the sums of the archive's frames; see archive.ExtractOptions.
	Sums     [][32]byte
	Progress Progress `json:"-"`
}

// DamagedError says that an archive is at fault, not the place where its tree should be.
type DamagedError struct{ What string }

func (e *DamagedError) Error() string { return e.What }

// unpackResult is what the half returns.
type unpackResult struct {
	archive.Summary
	Damage string
}

type unpackArgs struct {
	Rest, Name string
	As         userns.FSIDs
	IDs        archive.IDs
	Options    UnpackOptions
}

// Unpack makes the tree dir from an archive, an open file or pipe, which stays the caller's. dir must be absent or an
// empty directory; it appears when all is in it.
func Unpack(ctx context.Context, e *userns.Env, in *os.File, dir string, o UnpackOptions) (archive.Summary, error) {
	parent, rest, name, err := OpenParent(dir)
	if err != nil {
		return archive.Summary{}, err
	}
	defer parent.Close()
	o.Policy = o.Policy.WithDefaults(privileged(e))
	progress := o.Progress
	o.Progress = nil
	r, err := unpackHalf.Run(ctx, e, unpackArgs{rest, name, e.CallerFSIDs(), ids(e), o}, progress.raw(), in, parent)
	if err == nil && r.Damage != "" {
		err = &DamagedError{r.Damage}
	}
	if err != nil {
		return r.Summary, fmt.Errorf("unpack to %s: %w", dir, err)
	}
	return r.Summary, nil
}

// unpackHalf gets the archive and the directory that the tree shall be in.
var unpackHalf = userns.Half[unpackArgs, unpackResult]{Name: "unpack", Func: func(ctx context.Context, in *userns.Inner, a unpackArgs) (r unpackResult, err error) {
	parent, err := OpenParentDir(in.Files[1], a.Rest, a.As)
	if err != nil {
		return r, err
	}
	defer parent.Close()
	if err := free(parent, a.Name); err != nil {
		return r, err
	}
	p, err := newPartial(ctx, parent, a.Name)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, p.abort()) }() // no effect once committed
	o := a.Options
	r.Summary, err = archive.Extract(ctx, in.Files[0], p.dir, archive.ExtractOptions{
		IDs: a.IDs, Policy: o.Policy, Exclude: o.Exclude, Top: o.Top, KeepTop: o.KeepTop, Sums: o.Sums,
		Workers: Workers(o.Workers), Progress: report(in),
	})
	if archive.Damaged(err) {
		r.Damage = err.Error()
		return r, nil
	}
	if err != nil {
		return r, err
	}
	return r, p.commit()
}}

// free checks before any work that the target's name can be taken: it is absent or an empty directory.
func free(parent *ParentDir, name string) error {
	fd, err := parent.OpenDir(name)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR):
		return &fs.PathError{Op: "unpack", Path: name, Err: describe(unix.ENOTDIR)}
	case err != nil:
		return &fs.PathError{Op: "openat", Path: name, Err: err}
	}
	defer unix.Close(fd)
	names, err := tree.ReadNames(fd)
	if err == nil && len(names) > 0 {
		err = describe(unix.ENOTEMPTY)
	}
	if err != nil {
		return &fs.PathError{Op: "unpack", Path: name, Err: err}
	}
	return nil
}
