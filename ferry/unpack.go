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
	Replace bool     // dir may be a tree; the new one takes its place in one step when it is whole
	Only    []string // if not empty, the paths to be unpacked, see archive.RefreshOptions
	// Sums, if not nil, are the sums of the archive's frames; see archive.ExtractOptions.
	Sums     [][32]byte
	Origin   string   // recorded in the index
	NewIndex *os.File `json:"-"` // where an index of the tree is written to; nil, or left empty: there is none
	Progress Progress `json:"-"`
	// Hold are files that the inner half keeps open as long as it works: locks, which so outlive a killed caller.
	Hold []*os.File `json:"-"`
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
	Index      bool // there is a file for it
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
	o.Policy = o.Policy.WithDefaults(Privileged(e))
	progress := o.Progress
	o.Progress = nil
	files := []*os.File{in, parent}
	if o.NewIndex != nil {
		files = append(files, o.NewIndex)
	}
	a := unpackArgs{rest, name, e.CallerFSIDs(), ids(e), o.NewIndex != nil, o}
	r, err := unpackHalf.Run(ctx, e, a, progress.raw(), append(files, o.Hold...)...)
	if err == nil && r.Damage != "" {
		err = &DamagedError{r.Damage}
	}
	if err != nil {
		return r.Summary, fmt.Errorf("unpack to %s: %w", dir, err)
	}
	return r.Summary, nil
}

// unpackHalf gets the archive, the directory that the tree shall be in, and perhaps the file of the index.
var unpackHalf = userns.Half[unpackArgs, unpackResult]{Name: "unpack", Func: func(ctx context.Context, in *userns.Inner, a unpackArgs) (r unpackResult, err error) {
	x := &indexer{origin: a.Options.Origin}
	if a.Index {
		x.out = in.Files[2]
	}
	r.Summary, err = unpack(ctx, in, a, x)
	if archive.Damaged(err) {
		return unpackResult{Summary: r.Summary, Damage: err.Error()}, nil
	}
	if err == nil {
		x.write()
	}
	return r, err
}}

func unpack(ctx context.Context, in *userns.Inner, a unpackArgs, x *indexer) (sum archive.Summary, err error) {
	parent, err := OpenParentDir(in.Files[1], a.Rest, a.As)
	if err != nil {
		return sum, err
	}
	defer parent.Close()
	replace := false
	if a.Options.Replace {
		replace, err = replaceable(ctx, parent, a.Name)
	} else {
		err = free(parent, a.Name)
	}
	if err != nil {
		return sum, err
	}
	p, err := newPartial(ctx, parent, a.Name)
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, p.abort()) }() // no effect once committed
	if sum, err = fill(ctx, in, p.dir, &a, x); err != nil {
		return sum, err
	}
	if replace {
		return sum, p.exchange()
	}
	return sum, p.commit()
}

// fill puts the archive, or a part of it, into the empty directory root.
func fill(ctx context.Context, in *userns.Inner, root *os.File, a *unpackArgs, x *indexer) (archive.Summary, error) {
	o := &a.Options
	if len(o.Only) == 0 {
		return archive.Extract(ctx, in.Files[0], root, archive.ExtractOptions{
			IDs: a.IDs, Policy: o.Policy, Exclude: o.Exclude, Top: o.Top, KeepTop: o.KeepTop, Sums: o.Sums,
			Workers: Workers(o.Workers), Progress: report(in), Remember: x.begin(root),
		})
	}
	r, err := archive.Refresh(ctx, in.Files[0], root, archive.RefreshOptions{
		IDs: a.IDs, Policy: o.Policy, Exclude: o.Exclude, Only: o.Only, Sums: o.Sums, Workers: Workers(o.Workers), Progress: report(in), Remember: x.begin(root),
	})
	return r.Summary, err
}

// replaceable checks before any work that what has the target's name can go. It is false when there is nothing.
func replaceable(ctx context.Context, parent *ParentDir, name string) (bool, error) {
	fd, err := parent.OpenDir(name)
	switch {
	case errors.Is(err, unix.ENOENT):
		return false, nil
	case err != nil:
		return false, &fs.PathError{Op: "openat", Path: name, Err: err}
	}
	dir := os.NewFile(uintptr(fd), name)
	defer dir.Close()
	_, bad, err := tree.Removable(ctx, dir, 1)
	if err == nil && len(bad) > 0 {
		err = fmt.Errorf("%s cannot be replaced: %w", name, errors.Join(bad...))
	}
	return true, err
}

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
