package tree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Each visits the tree at root like Walk, but with several workers: the root first and alone, then everything else in no
// order except that a directory comes before what is in it. visit is called by several goroutines. Something that is gone
// when its turn comes is left out. Nothing below a mount point is visited, only the mount point itself. Access times of
// directories stay as they are where the process may ask for that (O_NOATIME, open(2)).
//
// Each worker walks on its own, and gives a directory away when another one has nothing to do; so the fds held are bounded
// by the workers, however deep the tree is. The first error ends the walk. root stays the caller's.
func Each(ctx context.Context, root *os.File, workers int, visit func(*Entry) error) error {
	p := parallel{visit: hidden(visit)}
	return p.run(ctx, root, workers)
}

// EachHandle is Each for visitors that act on the inode: it is open before they see it, which takes fewer system calls than
// Entry.OpenHandle, and cannot find another inode than the one that was looked at. The handle is the walk's to close.
func EachHandle(ctx context.Context, root *os.File, workers int, visit func(*Entry, *Handle) error) error {
	p := parallel{hold: true, visit: hidden(func(e *Entry) error { return visit(e, e.held) })}
	return p.run(ctx, root, workers)
}

// hidden is visit with its errors as visitErrors.
func hidden(visit func(*Entry) error) func(*Entry) error {
	return func(e *Entry) error {
		err := visit(e)
		if err != nil && !errors.Is(err, ErrSkipDir) {
			err = &visitError{err}
		}
		return err
	}
}

func (p *parallel) run(ctx context.Context, root *os.File, workers int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p.work = make(chan eachDir)
	first, err := p.start(root)
	if err != nil || first.fd < 0 {
		return unwrapVisit(err)
	}
	p.pending.Store(1)
	var all sync.WaitGroup
	for i := range max(workers, 1) {
		all.Go(func() {
			if i == 0 {
				p.walk(ctx, cancel, first)
			}
			for d := range p.work {
				p.walk(ctx, cancel, d)
			}
		})
	}
	all.Wait()
	return unwrapVisit(context.Cause(ctx))
}

// visitError is a visitor's error. It hides what it is, for only the walk's own ENOENT means that something is gone.
type visitError struct{ err error }

func (v *visitError) Error() string { return v.err.Error() }

func unwrapVisit(err error) error {
	var v *visitError
	if errors.As(err, &v) {
		return v.err
	}
	return err
}

// Look fills in Stat of an entry that a caller made up from Path, Dir and Base.
func (e *Entry) Look() error { return e.stat() }

// RootEntry is the root of a tree as Each visits it. root stays the caller's, and must stay open as long as the entry is used.
func RootEntry(root *os.File) (*Entry, error) {
	e := &Entry{Path: ".", Dir: int(root.Fd()), Base: "."}
	return e, e.stat()
}

type parallel struct {
	visit   func(*Entry) error
	hold    bool                            // see EachHandle
	before  func(dir int, base string) bool // see walk
	mount   uint64
	work    chan eachDir // taken only by workers that have nothing to do
	pending atomic.Int64 // directories that somebody walks, or is about to
}

// eachDir is a directory to walk; whoever has it owns the fd.
type eachDir struct {
	fd    int
	entry Entry
}

// start opens and visits the root. The result has no fd when there is nothing to walk.
func (p *parallel) start(root *os.File) (eachDir, error) {
	fd, err := openQuietly(int(root.Fd()), ".")
	if err != nil {
		return eachDir{fd: -1}, pathError("openat", root.Name(), err)
	}
	e := Entry{Path: ".", Dir: fd, Base: "."}
	if err = e.look(p.hold); err == nil {
		p.mount = e.Stat.Mnt_id
		err = p.visit(&e)
	}
	e.release()
	if err != nil {
		unix.Close(fd)
		fd = -1
		if errors.Is(err, ErrSkipDir) {
			err = nil
		}
	}
	return eachDir{fd, e}, err
}

// walk walks one directory, which it takes over, and gives away what others can take.
func (p *parallel) walk(ctx context.Context, cancel context.CancelCauseFunc, d eachDir) {
	w := walk{visit: p.visit, hold: p.hold, mount: p.mount, enter: p.enter, before: p.before}
	defer w.close()
	if d.entry.Path != "." {
		w.path = append([]byte(d.entry.Path), '/')
	}
	err := w.push(d.fd, &d.entry)
	for err == nil && len(w.stack) > 0 {
		if err = ctx.Err(); err == nil {
			err = w.next()
		}
		if errors.Is(err, unix.ENOENT) {
			err = nil
		}
	}
	if err != nil {
		cancel(err)
	}
	if p.pending.Add(-1) == 0 {
		close(p.work)
	}
}

// enter opens the directory e for its visitor, unless another worker waits for one.
func (p *parallel) enter(e *Entry) (int, error) {
	if e.Mount {
		return -1, nil
	}
	fd, err := openSame(e)
	if err != nil {
		return -1, err
	}
	p.pending.Add(1)
	given := *e
	given.held = nil // it ends with this visit
	select {
	case p.work <- eachDir{fd, given}:
		return -1, nil
	default:
		p.pending.Add(-1) // never the last: the directory that e is in is pending
		return fd, nil
	}
}

// openSame opens the directory that was visited, and no other one.
func openSame(e *Entry) (int, error) {
	if e.held != nil {
		fd, err := openQuietly(e.held.fd, ".")
		return fd, pathError("openat", e.Path, err)
	}
	fd, err := openQuietly(e.Dir, e.Base)
	if err != nil {
		return -1, pathError("openat", e.Path, err)
	}
	now := Entry{Dir: fd, Base: ".", Path: e.Path}
	if err := now.stat(); err != nil {
		unix.Close(fd)
		return -1, err
	}
	if now.Stat.Ino != e.Stat.Ino || now.Stat.Mnt_id != e.Stat.Mnt_id {
		unix.Close(fd)
		return -1, fmt.Errorf("%s: %w", e.Path, ErrChanged)
	}
	return fd, nil
}

// openQuietly opens a directory without a new access time, which takes its owner or CAP_FOWNER.
func openQuietly(dir int, base string) (int, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY
	fd, err := openAt(dir, base, flags|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		return openAt(dir, base, flags, 0)
	}
	return fd, err
}
