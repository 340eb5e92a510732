package ferry

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/idshift/userns"

	"golang.org/x/sys/unix"
)

// HandOver packs the tree dir to out as Pack does and, once the archive is on the disk under its name, removes the tree. A
// tree that cannot be removed, because something is mounted in it or the archive would be in it, is refused before anything is done. A
// tree that is half gone never has its name: the same call once more would make the whole archive one of that.
func HandOver(ctx context.Context, e *userns.Env, dir, out string, o PackOptions) (archive.Summary, tree.Removed, error) {
	if err := outside(out, dir); err != nil {
		return archive.Summary{}, tree.Removed{}, err
	}
	if _, err := Remove(ctx, e, dir, RemoveOptions{DryRun: true, Workers: o.Workers, Aside: true}); err != nil {
		return archive.Summary{}, tree.Removed{}, err
	}
	sum, err := Pack(ctx, e, dir, out, o)
	if err != nil {
		return sum, tree.Removed{}, err
	}
	r, err := Remove(ctx, e, dir, RemoveOptions{Workers: o.Workers, Aside: true})
	if err != nil {
		err = fmt.Errorf("%s is whole, but the tree, or what nsferry rm takes for its litter, is still there: %w", out, err)
	}
	return sum, r, err
}

// outside demands that out is not to be below the directory dir, whatever links and mounts lead to both. What the caller
// may not enter he cannot write to either.
func outside(out, dir string) error {
	root, rest, err := userns.OpenTree(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	at, closed, _, err := OpenParent(out)
	if err != nil {
		return err
	}
	defer func() { at.Close() }()
	if rest != "" || closed != "" {
		return nil
	}
	top, err := inodeOf(root)
	for here := (inode{}); err == nil; {
		above := here
		if here, err = inodeOf(at); err != nil || here == above { // the root directory is above itself
			break
		}
		if here == top {
			return fmt.Errorf("%s: the archive would be in the tree that is to be removed; name a place outside of %s", out, dir)
		}
		fd, e := unix.Openat(int(at.Fd()), "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if errors.Is(e, unix.EACCES) {
			return nil
		}
		if e != nil {
			return &os.PathError{Op: "openat", Path: out + "/..", Err: e}
		}
		at.Close()
		at = os.NewFile(uintptr(fd), out+"/..")
	}
	return err
}

// inode identifies an open file.
type inode struct{ dev, ino uint64 }

func inodeOf(f *os.File) (inode, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return inode{}, &os.PathError{Op: "fstat", Path: f.Name(), Err: err}
	}
	return inode{uint64(st.Dev), st.Ino}, nil
}
