// Package ownership changes who owns what, and when, of trees that are there: nothing but owners, the ids in ACLs and
// capabilities (Shift, Give, Take) or times (Clamp) is different afterwards, and nothing outside the tree that was named.
//
// All of it is done by the inode: it is opened without following its name, looked at, and changed through that descriptor, so
// that whoever moves names meanwhile gains nothing. Mounts are never crossed.
//
// Shift keeps a journal beside the tree while it works. What it decides about an inode follows from the ids that the inode has: an
// id that only the old map holds is moved, one that only the new map holds, or both alike, stays. That alone is enough to run
// it again after a kill, but for two things. chown(2) drops setuid bits and capabilities, which come back in later
// system calls. And an id that both maps hold as different inside ids (100000:65536 to 120000:65536) may be the old or the new
// one. So the plan, a first pass that changes nothing, records the final state of each such inode, and is on disk before the
// first change. The tree's root directory is changed last; its owner tells which of the two maps the tree has. Where it
// does not tell, and it matters, nothing is changed.
package ownership

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
)

// Halves is the table of this package's inner halves, for userns.Main.
func Halves() []userns.Registered {
	return []userns.Registered{planHalf, applyHalf, handHalf, clampHalf}
}

// place names a tree to an inner half: a directory of the caller's, which is passed as a file, and a name in it.
type place struct {
	Rest, Name string
	As         userns.FSIDs
}

// open opens the tree's root directory for reading; a symlink is refused, not followed.
func (p place) open(outer *os.File) (*os.File, error) {
	parent, err := ferry.OpenParentDir(outer, p.Rest, p.As)
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	fd, err := parent.OpenDir(p.Name)
	if err != nil {
		var st unix.Stat_t
		serr := parent.Do(func() error { return unix.Fstatat(int(parent.Fd()), p.Name, &st, unix.AT_SYMLINK_NOFOLLOW) })
		if serr == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
			err = errors.New("is a symbolic link; name the directory itself")
		}
		return nil, &os.PathError{Op: "open", Path: p.Name, Err: err}
	}
	return os.NewFile(uintptr(fd), p.Name), nil
}

// lock keeps other shifts off the tree as long as root is open.
func lock(root *os.File) error {
	err := unix.Flock(int(root.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%s: something else has a lock on this tree, perhaps another shift", root.Name())
	}
	return err
}

// gone tells that an inode is no longer where it was visited.
func gone(err error) bool { return errors.Is(err, unix.ENOENT) }

// eachHandle is tree.EachHandle as each is tree.Each.
func eachHandle(ctx context.Context, root *os.File, workers int, visit func(*tree.Entry, *tree.Handle) error) (mounts int64, err error) {
	c := counter{}
	err = tree.EachHandle(ctx, root, ferry.Workers(workers), func(e *tree.Entry, h *tree.Handle) error {
		if e.Mount {
			c.add(1)
			return nil
		}
		return visit(e, h)
	})
	return c.n.Load(), err
}

// each is tree.Each for visitors of everything that is not mounted over; it returns how many mount points were left out.
func each(ctx context.Context, root *os.File, workers int, visit func(*tree.Entry) error) (mounts int64, err error) {
	c := counter{}
	err = tree.Each(ctx, root, ferry.Workers(workers), func(e *tree.Entry) error {
		if e.Mount {
			c.add(1)
			return nil
		}
		return visit(e)
	})
	return c.n.Load(), err
}
