package tree

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Entry is one inode that Walk came by, under one of its names. It is valid during the visit only.
type Entry struct {
	Path  string // "." for the root, else relative to it, without "./"
	Dir   int    // fd of the directory it is in; for the root its own
	Base  string // its name there; "." for the root
	Stat  unix.Statx_t
	Mount bool // something is mounted here

	held *Handle // only while EachHandle's visitor and walk are at it
}

// Type is the S_IFMT part of the mode.
func (e *Entry) Type() uint32 { return uint32(e.Stat.Mode) & unix.S_IFMT }

// Device tells the filesystem apart, together with Stat.Ino an inode.
func (e *Entry) Device() uint64 { return unix.Mkdev(e.Stat.Dev_major, e.Stat.Dev_minor) }

// ErrSkipDir is what a visit returns to leave out what is in a directory.
var ErrSkipDir = errors.New("skip this directory")

const statxMask = unix.STATX_BASIC_STATS | unix.STATX_BTIME | unix.STATX_MNT_ID

// Walk visits the tree at root: a directory first, then what is in it, names sorted bytewise. It follows no symlink and holds a
// bounded number of fds, however deep the tree is. root stays the caller's.
func Walk(ctx context.Context, root *os.File, visit func(*Entry) error) error {
	fd, err := openAt(int(root.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return pathError("openat", root.Name(), err)
	}
	w := walk{visit: visit, enter: openVisited}
	defer w.close()
	e := Entry{Path: ".", Dir: fd, Base: "."}
	if err := e.stat(); err != nil {
		unix.Close(fd)
		return err
	}
	w.mount = e.Stat.Mnt_id
	if err := visit(&e); err != nil {
		unix.Close(fd)
		if errors.Is(err, ErrSkipDir) {
			return nil
		}
		return err
	}
	if err := w.push(fd, &e); err != nil {
		return err
	}
	for len(w.stack) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.next(); err != nil {
			return err
		}
	}
	return nil
}

type walk struct {
	visit func(*Entry) error
	hold  bool // see EachHandle
	mount uint64
	stack []walkDir
	entry Entry  // the one that is visited
	path  []byte // of the directory on top, with its "/"; one for all levels, or a deep tree takes its depth squared
	// enter opens a directory that was visited; fd -1 is one that somebody else takes over.
	enter func(*Entry) (fd int, err error)
	// before, if set, is told each name before anything is asked about it; done is one that needs no visit.
	before func(dir int, base string) (done bool)
}

// walkDir is a directory that is being read.
type walkDir struct {
	fd     int // -1 while parked
	id     inode
	prefix int // how much of walk.path is its own: 0 for the root, else its path and "/"
	names  []string
}

func (e *Entry) stat() error {
	err := retry(func() error {
		return unix.Statx(e.Dir, e.Base, unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_DONT_SYNC, statxMask, &e.Stat)
	})
	return pathError("statx", e.Path, err)
}

// look fills in Stat, and holds the inode if that is asked for. release must be called.
func (e *Entry) look(hold bool) (err error) {
	if !hold {
		return e.stat()
	}
	if e.held, err = e.open(); err == nil {
		e.Stat = e.held.Stat
	}
	return err
}

func (e *Entry) release() {
	if e.held != nil {
		e.held.Close()
		e.held = nil
	}
}

// push takes over fd, the directory e, and reads its names.
func (w *walk) push(fd int, e *Entry) error {
	names, err := ReadNames(fd)
	if err != nil {
		unix.Close(fd)
		return pathError("getdents", e.Path, err)
	}
	if len(w.stack) > 0 {
		w.path = append(append(w.path, e.Base...), '/')
	}
	w.stack = append(w.stack, walkDir{fd: fd, id: inode{e.Device(), e.Stat.Ino}, prefix: len(w.path), names: names})
	if i := len(w.stack) - 1 - maxLevels; i >= 0 && w.stack[i].fd >= 0 {
		unix.Close(w.stack[i].fd)
		w.stack[i].fd = -1
	}
	return nil
}

func (w *walk) next() error {
	top := &w.stack[len(w.stack)-1]
	if len(top.names) == 0 {
		return w.pop()
	}
	base := top.names[0]
	top.names = top.names[1:]
	if w.before != nil && w.before(top.fd, base) {
		return nil
	}
	e := &w.entry
	*e = Entry{Dir: top.fd, Base: base, Path: string(append(w.path, base...))}
	if err := e.look(w.hold); err != nil {
		return err
	}
	defer e.release()
	e.Mount = e.Stat.Mnt_id != w.mount
	err := w.visit(e)
	if errors.Is(err, ErrSkipDir) {
		return nil
	}
	if err != nil || e.Type() != unix.S_IFDIR {
		return err
	}
	fd, err := w.enter(e)
	if err != nil || fd < 0 {
		return err
	}
	return w.push(fd, e)
}

func openVisited(e *Entry) (int, error) {
	fd, err := openAt(e.Dir, e.Base, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	return fd, pathError("openat", e.Path, err)
}

// pop leaves a directory; the one above may have to be opened again and must be the one that it was.
func (w *walk) pop() error {
	below := w.stack[len(w.stack)-1].fd
	defer unix.Close(below)
	w.stack = w.stack[:len(w.stack)-1]
	if len(w.stack) == 0 {
		return nil
	}
	top := &w.stack[len(w.stack)-1]
	w.path = w.path[:top.prefix]
	if top.fd >= 0 {
		return nil
	}
	path := string(w.path)
	e := Entry{Path: path, Dir: below, Base: ".."}
	if err := e.stat(); err != nil {
		return err
	}
	if (inode{e.Device(), e.Stat.Ino}) != top.id {
		return fmt.Errorf("%s: %w", path, ErrChanged)
	}
	fd, err := openAt(below, "..", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return pathError("openat", path, err)
	}
	top.fd = fd
	return nil
}

func (w *walk) close() {
	for _, d := range w.stack {
		if d.fd >= 0 {
			unix.Close(d.fd)
		}
	}
}

// ErrChanged is a tree that something else changes while it is read.
var ErrChanged = errors.New("changed while it was read")

// Readlink returns the target of a symlink.
func (e *Entry) Readlink() (string, error) {
	s, err := readlinkAt(e.Dir, e.Base)
	return s, pathError("readlinkat", e.Path, err)
}

// Xattrs returns the extended attributes, sorted by key.
func (e *Entry) Xattrs() ([]Xattr, error) {
	x, err := XattrsAt(e.Dir, e.Base)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.Path, err)
	}
	return x, nil
}

// Empty tells whether nothing is in a directory or file, where directories that hold nothing but such ones count as nothing too.
func (e *Entry) Empty() (bool, error) {
	if e.Type() != unix.S_IFDIR {
		return e.Stat.Size == 0, nil
	}
	fd, err := openAt(e.Dir, e.Base, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return false, pathError("openat", e.Path, err)
	}
	dir := newFile(fd, e.Path)
	defer dir.Close()
	empty := true
	err = Walk(context.Background(), dir, func(e *Entry) error {
		if e.Type() != unix.S_IFDIR && e.Stat.Size > 0 {
			empty = false
		}
		return nil
	})
	return empty, err
}
