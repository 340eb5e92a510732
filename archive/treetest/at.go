//go:build linux

package treetest

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// at is a name in an open directory: what every call here goes by. No call follows a symbolic link at the name.
type at struct {
	dir  *os.File
	base string
	name string // whole name, for messages
}

func (a at) fd() int { return int(a.dir.Fd()) }

// proc is a path for calls that exist with paths only. Its last component is the name itself, never followed by the
// l-variants.
func (a at) proc() string {
	return "/proc/self/fd/" + strconv.Itoa(a.fd()) + "/" + a.base
}

func (a at) open(flags int, mode uint32) (*os.File, error) {
	fd := -1
	err := a.call("openat", func() (err error) {
		fd, err = unix.Openat(a.fd(), a.base, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		return err
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), a.name), nil
}

func (a at) stat() (st unix.Stat_t, err error) {
	err = a.call("fstatat", func() error { return unix.Fstatat(a.fd(), a.base, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return st, err
}

// call runs f, again after EINTR, and wraps its error in an *os.PathError.
func (a at) call(op string, f func() error) error {
	for {
		err := f()
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		}
		return &os.PathError{Op: op, Path: a.name, Err: err}
	}
}

// openRoot opens the directory that a tree is in.
func openRoot(dir string) (*os.File, error) {
	return os.OpenFile(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// locate opens the parent of name, component by component. The caller closes it by release.
func locate(root *os.File, name string) (at, error) {
	parent := root
	parts := strings.Split(name, "/")
	for _, part := range parts[:len(parts)-1] {
		step := at{parent, part, name}
		next, err := step.open(unix.O_PATH|unix.O_DIRECTORY, 0)
		at{dir: parent}.release(root)
		if err != nil {
			return at{}, err
		}
		parent = next
	}
	return at{parent, parts[len(parts)-1], name}, nil
}

// release closes the directory unless it is root.
func (a at) release(root *os.File) {
	if a.dir != root {
		a.dir.Close() // opened for looking up only: nothing to lose
	}
}
