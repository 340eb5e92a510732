package tree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrMounted is a mount point inside what should be removed: it is never crossed.
var ErrMounted = errors.New("something is mounted here; unmount it first")

// Removed counts what Remove took away.
type Removed struct{ Inodes int64 }

// Remove takes away name in dir, whatever it is, with all that is in it. It follows no symlink, crosses no mount and holds a bounded
// number of fds. It goes on after an error and returns all of them joined (at most maxErrors in full); what could not be removed stays.
//
// Several workers unlink first what is no directory. Then one goes through all that is left, and names what stays and why.
//
// The calls that concern name in dir itself go through rights, which runs what it is given, perhaps with other ids; nil is
// no other.
func Remove(ctx context.Context, dir *os.File, name string, rights func(func() error) error) (Removed, error) {
	return RemoveWith(ctx, dir, name, runtime.GOMAXPROCS(0), rights)
}

// RemoveWith is Remove with a number of workers.
func RemoveWith(ctx context.Context, dir *os.File, name string, workers int, rights func(func() error) error) (Removed, error) {
	if rights == nil {
		rights = func(f func() error) error { return f() }
	}
	r := remover{start: int(dir.Fd()), rights: rights, workers: workers}
	err := r.run(ctx, name)
	if r.more > 0 {
		r.errs = append(r.errs, fmt.Errorf("and %d more", r.more))
	}
	return r.Removed, errors.Join(err, errors.Join(r.errs...))
}

// RemoveIn takes away names in the directory at path below root, each with all that is in it, as Remove does. No component of
// path may be a symlink. A name that is gone already is no error.
func (r *Root) RemoveIn(ctx context.Context, path string, names []string, workers int) (sum Removed, err error) {
	fd, err := openPath(r, path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return sum, pathError("openat", path, err)
	}
	dir := newFile(fd, path)
	defer dir.Close()
	for _, name := range names {
		err := retry(func() error { return unix.Unlinkat(fd, name, 0) })
		switch {
		case err == nil:
			sum.Inodes++
			continue
		case errors.Is(err, unix.ENOENT):
			continue
		}
		part, err := RemoveWith(ctx, dir, name, workers, nil) // a directory, or it says why not
		sum.Inodes += part.Inodes
		if err != nil {
			return sum, fmt.Errorf("%s: %w", path, err)
		}
	}
	return sum, nil
}

const maxErrors = 20

type remover struct {
	Removed
	start   int // the directory that the name is in
	rights  func(func() error) error
	workers int
	mount   uint64
	stack   []removeDir
	errs    []error
	more    int
}

// removeDir is a directory that is being emptied.
type removeDir struct {
	fd    int // -1 while parked
	id    inode
	base  string
	names []string
}

// path names base in the directory on top, for messages: made when there is one, because the paths of a deep tree are long.
func (r *remover) path(base string) string {
	parts := make([]string, 0, len(r.stack)+1)
	for i := range r.stack {
		parts = append(parts, r.stack[i].base)
	}
	return strings.Join(append(parts, base), "/")
}

func (r *remover) fail(err error) {
	if len(r.errs) < maxErrors {
		r.errs = append(r.errs, err)
	} else {
		r.more++
	}
}

// in returns what runs a system call on a name in dir.
func (r *remover) in(dir int) func(func() error) error {
	if dir == r.start {
		return func(f func() error) error { return r.rights(func() error { return retry(f) }) }
	}
	return retry
}

func (r *remover) run(ctx context.Context, name string) error {
	defer func() {
		for _, d := range r.stack {
			if d.fd >= 0 {
				unix.Close(d.fd)
			}
		}
	}()
	e := Entry{Dir: r.start, Base: ".", Path: "."}
	if err := r.rights(e.stat); err != nil {
		return err
	}
	r.mount = e.Stat.Mnt_id
	if r.workers > 1 {
		r.sweep(ctx, name)
	}
	r.take(r.start, name)
	for len(r.stack) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		top := &r.stack[len(r.stack)-1]
		if len(top.names) > 0 {
			base := top.names[0]
			top.names = top.names[1:]
			r.take(top.fd, base)
			continue
		}
		if err := r.leave(); err != nil {
			return err
		}
	}
	return nil
}

// take unlinks base in dir or, when it is a directory, puts it on the stack. unlink(2) of a directory says EISDIR on
// Linux: no stat is needed to tell.
func (r *remover) take(dir int, base string) {
	err := r.in(dir)(func() error { return unix.Unlinkat(dir, base, 0) })
	switch {
	case err == nil:
		r.Inodes++
		return
	case errors.Is(err, unix.ENOENT):
		return
	case !errors.Is(err, unix.EISDIR):
		r.fail(pathError("unlinkat", r.path(base), explain(dir, base, err)))
		return
	}
	if err := r.open(dir, base); err != nil {
		r.fail(err)
	}
}

func (r *remover) open(dir int, base string) error {
	fd, err := OpenDir(r.in(dir), dir, base)
	if err != nil {
		return pathError("openat", r.path(base), err)
	}
	e := Entry{Dir: fd, Base: ".", Path: base}
	if err := e.stat(); err != nil {
		unix.Close(fd)
		return err
	}
	if e.Stat.Mnt_id != r.mount {
		unix.Close(fd)
		return pathError("remove", r.path(base), ErrMounted)
	}
	names, err := ReadNames(fd)
	if err != nil {
		unix.Close(fd)
		return pathError("getdents", r.path(base), err)
	}
	r.stack = append(r.stack, removeDir{fd: fd, id: inode{e.Device(), e.Stat.Ino}, base: base, names: names})
	if i := len(r.stack) - 1 - maxLevels; i >= 0 && r.stack[i].fd >= 0 {
		unix.Close(r.stack[i].fd)
		r.stack[i].fd = -1
	}
	return nil
}

// leave removes the emptied directory on top; the one above it may have to be opened again.
func (r *remover) leave() error {
	top := r.stack[len(r.stack)-1]
	r.stack = r.stack[:len(r.stack)-1]
	defer unix.Close(top.fd)
	parent := r.start
	if n := len(r.stack); n > 0 {
		up := &r.stack[n-1]
		if up.fd < 0 {
			fd, err := openAt(top.fd, "..", unix.O_RDONLY|unix.O_DIRECTORY, 0)
			if err != nil {
				return pathError("openat", r.path(".."), err)
			}
			up.fd = fd
			if st, err := fstat(fd); err != nil || (inode{uint64(st.Dev), st.Ino}) != up.id {
				return fmt.Errorf("%s: %w", r.path("."), ErrChanged)
			}
		}
		parent = up.fd
	}
	err := r.in(parent)(func() error { return unix.Unlinkat(parent, top.base, unix.AT_REMOVEDIR) })
	switch {
	case err == nil:
		r.Inodes++
	case errors.Is(err, unix.ENOTEMPTY) && len(r.errs) > 0: // what is in it was named before
	case errors.Is(err, unix.ENOENT):
	default:
		r.fail(pathError("rmdir", r.path(top.base), explain(parent, top.base, err)))
	}
	return nil
}

// OpenDir opens the directory base in dir for reading, without following it; the caller owns the fd. The name is looked up with
// rights, the directory itself is opened without: who may search the one need not be who may read the other.
func OpenDir(rights func(func() error) error, dir int, base string) (fd int, err error) {
	var at int
	err = rights(func() (err error) {
		at, err = openAt(dir, base, unix.O_PATH|unix.O_DIRECTORY, 0)
		return err
	})
	if err != nil {
		return -1, err
	}
	defer unix.Close(at)
	return openAt(at, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
}
