// Package tree touches one directory tree only by (directory fd, name): no path below the root is ever joined
// and resolved by the kernel without the root's fd and a rule about symlinks.
//
// The callers are inner halves: they hold an fd of the tree's root and run where uid 0 has every right over what is
// in it. Paths in errors are for people, they are never opened again.
package tree

import (
	"errors"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// retry repeats a system call that a signal interrupted (signal(7)).
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// pathError gives a failed system call its name and its path; nil stays nil.
func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// openAt opens base in dir without following it and with O_CLOEXEC. The caller owns the returned fd.
func openAt(dir int, base string, flags int, mode uint32) (fd int, err error) {
	err = retry(func() (err error) {
		fd, err = unix.Openat(dir, base, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		return err
	})
	return fd, err
}

// statAt reads the inode named base in dir, a symlink itself and not its target.
func statAt(dir int, base string) (st unix.Stat_t, err error) {
	err = retry(func() error { return unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return st, err
}

// fstat reads the inode of an open fd.
func fstat(fd int) (st unix.Stat_t, err error) {
	err = retry(func() error { return unix.Fstat(fd, &st) })
	return st, err
}

// readlinkAt returns the target of the symlink base in dir: bytes, of any length.
func readlinkAt(dir int, base string) (string, error) {
	for size := 256; ; size *= 4 {
		buf := make([]byte, size)
		var n int
		err := retry(func() (err error) {
			n, err = unix.Readlinkat(dir, base, buf)
			return err
		})
		if err != nil {
			return "", err
		}
		if n < size {
			return string(buf[:n]), nil
		}
	}
}

// writeAll writes p at offset off of fd, whatever the kernel's short writes.
func writeAll(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, off)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return unix.EIO
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// newFile gives an fd its owner; path is for messages.
func newFile(fd int, path string) *os.File { return os.NewFile(uintptr(fd), path) }

// procFd is the magic link of an open fd.
func procFd(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
