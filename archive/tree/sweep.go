package tree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// sweep unlinks, with several workers, what is no directory below name, if name is a directory. Whatever fails stays for the pass
// that follows, which also says why.
func (r *remover) sweep(ctx context.Context, name string) {
	fd, err := OpenDir(r.in(r.start), r.start, name)
	if err != nil {
		return
	}
	dir := os.NewFile(uintptr(fd), name)
	defer dir.Close()
	e, err := RootEntry(dir)
	if err != nil || e.Stat.Mnt_id != r.mount {
		return
	}
	var gone atomic.Int64
	p := parallel{
		visit: func(*Entry) error { return nil },
		before: func(dir int, base string) bool {
			err := retry(func() error { return unix.Unlinkat(dir, base, 0) })
			if err == nil {
				gone.Add(1)
			}
			return !errors.Is(err, unix.EISDIR)
		},
	}
	_ = p.run(ctx, dir, r.workers)
	r.Inodes += gone.Load()
}

// explain says what stands behind EPERM and EACCES from unlinkat(2), as far as it shows.
func explain(dir int, base string, err error) error {
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
		return err
	}
	for _, at := range []struct{ what, base string }{{"it", base}, {"its directory", "."}} {
		var st unix.Statx_t
		if unix.Statx(dir, at.base, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &st) != nil {
			continue
		}
		switch {
		case st.Attributes&(unix.STATX_ATTR_IMMUTABLE|unix.STATX_ATTR_APPEND) != 0:
			return fmt.Errorf("%w: %s is immutable or append-only (lsattr(1)); as root: chattr -ia", err, at.what)
		case st.Uid == overflowID || st.Gid == overflowID:
			return fmt.Errorf("%w: the owner or group of %s is none of your ids or sub-ids in this map; another range takes --map, other users' files root", err, at.what)
		}
	}
	return err
}

// overflowID is what the kernel shows for an id without a mapping (user_namespaces(7)).
const overflowID = 65534

// Removable goes through what Remove would take away and changes nothing. It returns the number of inodes, and one error for each
// directory, at most maxErrors, whose content would stay: a mount point, or one that this process may not write to.
func Removable(ctx context.Context, root *os.File, workers int) (int64, []error, error) {
	var n atomic.Int64
	bad := make(chan error, maxErrors)
	err := Each(ctx, root, workers, func(e *Entry) error {
		n.Add(1)
		var why error
		switch {
		case e.Mount:
			why = pathError("remove", e.Path, ErrMounted)
		case e.Type() == unix.S_IFDIR && !e.access(unix.W_OK|unix.X_OK|unix.R_OK):
			why = pathError("remove", e.Path, explain(e.Dir, e.Base, unix.EACCES))
		default:
			return nil
		}
		select {
		case bad <- why:
		default:
		}
		return ErrSkipDir
	})
	close(bad)
	var all []error
	for b := range bad {
		all = append(all, b)
	}
	return n.Load(), all, err
}
