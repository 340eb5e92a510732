package ferry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/idshift/userns"

	"golang.org/x/sys/unix"
)

type removeArgs struct {
	Rest, Name string
	As         userns.FSIDs
	Options    RemoveOptions
}

// RemoveOptions say how Remove goes about it.
type RemoveOptions struct {
	Force   bool // it is no error that nothing is there
	DryRun  bool // only count, and name what would stay
	Aside   bool // of a directory: under its name nobody ever sees a part of it; what a kill leaves is litter
	Workers int
}

// Remove takes away path with all that is in it, whoever of the caller and his sub-ids owns it, and the leftovers of
// an unpack to it that was killed. It crosses no mount.
//
// As rm(1) does, it refuses "/" and what ends in "." or "..", and an empty path is nothing that is there, not the
// working directory: each is more likely a script's mistake than meant.
func Remove(ctx context.Context, e *userns.Env, path string, o RemoveOptions) (tree.Removed, error) {
	if err := removable(path); err != nil {
		return tree.Removed{}, err
	}
	parent, rest, name, err := OpenParent(path)
	if errors.Is(err, fs.ErrNotExist) && o.Force {
		return tree.Removed{}, nil
	}
	if err != nil {
		return tree.Removed{}, err
	}
	defer parent.Close()
	r, err := removeHalf.Run(ctx, e, removeArgs{rest, name, e.CallerFSIDs(), o}, nil, parent)
	if err != nil {
		return r, fmt.Errorf("rm %s: %w", path, err)
	}
	return r, nil
}

// removable says what is wrong with a path to remove, by its spelling.
func removable(path string) error {
	if path == "" {
		return &fs.PathError{Op: "rm", Path: path, Err: unix.ENOENT}
	}
	switch filepath.Base(path) { // which drops slashes at the end, but resolves nothing
	case ".", "..", "/":
		return &fs.PathError{Op: "rm", Path: path, Err: errors.New("refused; name the directory itself, from above")}
	}
	return nil
}

// removeHalf gets the directory that the path is in.
var removeHalf = userns.Half[removeArgs, tree.Removed]{Name: "remove", Func: func(ctx context.Context, in *userns.Inner, a removeArgs) (r tree.Removed, err error) {
	parent, err := OpenParentDir(in.Files[0], a.Rest, a.As)
	if errors.Is(err, fs.ErrNotExist) && a.Options.Force {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	defer parent.Close()
	if !a.Options.DryRun {
		if err := parent.Sweep(ctx, a.Name); err != nil {
			return r, err
		}
	}
	var st unix.Stat_t
	err = parent.Do(func() error { return unix.Fstatat(int(parent.Fd()), a.Name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	if errors.Is(err, unix.ENOENT) && a.Options.Force {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	if a.Options.DryRun {
		return wouldRemove(ctx, parent, a, st.Mode&unix.S_IFMT == unix.S_IFDIR)
	}
	name := a.Name
	if a.Options.Aside {
		aside, err := parent.putAside(name)
		if err != nil {
			return r, err
		}
		defer aside.Close()
		name = aside.Name()
	}
	return tree.RemoveWith(ctx, parent.File, name, Workers(a.Options.Workers), parent.Do)
}}

// putAside gives the directory name a partial one, and returns it open under that, locked against sweeps.
func (p *ParentDir) putAside(name string) (*os.File, error) {
	fd, err := p.OpenDir(name)
	if err != nil {
		return nil, &fs.PathError{Op: "openat", Path: name, Err: err}
	}
	dir := os.NewFile(uintptr(fd), PartialName(name))
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(&fs.PathError{Op: "flock", Path: name, Err: err}, dir.Close())
	}
	at := int(p.Fd())
	if err := p.Do(func() error { return unix.Renameat(at, name, at, dir.Name()) }); err != nil {
		return nil, errors.Join(&fs.PathError{Op: "renameat", Path: name, Err: err}, dir.Close())
	}
	return dir, nil
}

// wouldRemove is the dry run.
func wouldRemove(ctx context.Context, parent *ParentDir, a removeArgs, isDir bool) (r tree.Removed, err error) {
	switch {
	case !isDir && a.Options.Aside:
		return r, &fs.PathError{Op: "remove", Path: a.Name, Err: errors.New("not a directory, but perhaps a link to one, which would stay")}
	case !isDir:
		return tree.Removed{Inodes: 1}, nil
	}
	fd, err := parent.OpenDir(a.Name)
	if err != nil {
		return r, &fs.PathError{Op: "openat", Path: a.Name, Err: err}
	}
	dir := os.NewFile(uintptr(fd), a.Name)
	defer dir.Close()
	at, err := tree.RootEntry(parent.File)
	if err != nil {
		return r, err
	}
	root, err := tree.RootEntry(dir)
	if err == nil && root.Stat.Mnt_id != at.Stat.Mnt_id {
		err = &fs.PathError{Op: "remove", Path: a.Name, Err: tree.ErrMounted}
	}
	if err != nil {
		return r, err
	}
	n, bad, err := tree.Removable(ctx, dir, Workers(a.Options.Workers))
	return tree.Removed{Inodes: n}, errors.Join(err, errors.Join(bad...))
}
