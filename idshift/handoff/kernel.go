//go:build linux

package handoff

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// kernel makes the system calls of this package. Its zero value is the real thing; tests set fault to
// force every fallback and every failure, because no filesystem at hand refuses all that others refuse.
type kernel struct {
	fault func(op string) error // consulted before each call; nil: none
}

// call runs f as the operation op on path, again after EINTR, and wraps its error in an *os.PathError.
func (k kernel) call(op, path string, f func() error) error {
	for {
		var err error
		if k.fault != nil {
			err = k.fault(op)
		}
		if err == nil {
			err = f()
		}
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		}
		return &os.PathError{Op: op, Path: path, Err: err}
	}
}

// openat opens name in the directory dirfd; label is its name in messages. O_CLOEXEC is added.
func (k kernel) openat(op string, dirfd int, name, label string, flags int, mode uint32) (*os.File, error) {
	fd := -1
	err := k.call(op, label, func() (err error) {
		fd, err = unix.Openat(dirfd, name, flags|unix.O_CLOEXEC, mode)
		return err
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), label), nil
}

// duplicate is dup(2): another descriptor of the same open file.
func (k kernel) duplicate(f *os.File) (*os.File, error) {
	fd := -1
	err := k.call("dup", f.Name(), func() (err error) {
		fd, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// fstat returns what stat(2) says of an open file.
func (k kernel) fstat(f *os.File) (st unix.Stat_t, err error) {
	err = k.call("fstat", f.Name(), func() error { return unix.Fstat(int(f.Fd()), &st) })
	return st, err
}

// isAny tells whether err is one of the given error numbers.
func isAny(err error, numbers ...unix.Errno) bool {
	for _, n := range numbers {
		if errors.Is(err, n) {
			return true
		}
	}
	return false
}

// sameInode tells whether two stat results are of one inode.
func sameInode(a, b unix.Stat_t) bool { return a.Dev == b.Dev && a.Ino == b.Ino }
