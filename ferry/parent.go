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

// ParentDir is the directory of the caller's that a tree is in or shall be in, as an inner half sees it. Names in it are
// made and removed with the rights of inner root or, where those do not reach, with the caller's own.
type ParentDir struct {
	*os.File
	as userns.FSIDs
}

// OpenParentDir is the inner half of OpenParent. Close releases it.
func OpenParentDir(outer *os.File, rest string, as userns.FSIDs) (*ParentDir, error) {
	var dir *os.File
	err := as.Do(func() (err error) { dir, err = userns.ReopenDir(outer, rest); return err })
	if err != nil {
		return nil, err
	}
	return &ParentDir{dir, as}, nil
}

// Do calls f with the rights of inner root or, where permission was denied, of the caller; see userns.FSIDs.
func (p *ParentDir) Do(f func() error) error { return p.as.Do(f) }

// path names something in the directory, for messages.
func (p *ParentDir) path(name string) string { return filepath.Join(p.Name(), name) }

// gid returns the group that uid 0's own chown can start from: the caller's in place of one that is not mapped, -1 where
// nothing has to change.
func (p *ParentDir) gid(now uint32) int {
	if p.as.Valid && now == 65534 {
		return int(p.as.GID)
	}
	return -1
}

// remove takes away name with all that is in it.
func (p *ParentDir) remove(ctx context.Context, name string) (tree.Removed, error) {
	return tree.Remove(ctx, p.File, name, p.Do)
}

// Sweep removes the partial trees of name that nobody holds a lock on.
func (p *ParentDir) Sweep(ctx context.Context, name string) error {
	names, err := tree.ReadNames(int(p.Fd()))
	if err != nil {
		return fmt.Errorf("%s: %w", p.Name(), err)
	}
	for _, n := range partials(names, name) {
		fd, err := p.OpenDir(n)
		if err != nil {
			continue // no directory, or not ours to open: no tree of ours
		}
		if err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err == nil {
			_, err = p.remove(ctx, n)
		}
		unix.Close(fd)
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("leftover of an earlier run: %w", err)
		}
	}
	return nil
}

// OpenDir opens the directory name in p for reading; the caller owns the fd.
func (p *ParentDir) OpenDir(name string) (int, error) { return tree.OpenDir(p.Do, int(p.Fd()), name) }
