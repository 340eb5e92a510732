//go:build linux

package mounts

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// sameFile tells whether a and b are the same inode.
func sameFile(a, b *os.File) (bool, error) {
	var sa, sb unix.Stat_t
	if err := unix.Fstat(int(a.Fd()), &sa); err != nil {
		return false, &os.PathError{Op: "fstat", Path: a.Name(), Err: err}
	}
	if err := unix.Fstat(int(b.Fd()), &sb); err != nil {
		return false, &os.PathError{Op: "fstat", Path: b.Name(), Err: err}
	}
	return sa.Dev == sb.Dev && sa.Ino == sb.Ino, nil
}

// isDirectory tells what f is by fstat, so that O_PATH is enough.
func isDirectory(f *os.File) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false, &os.PathError{Op: "fstat", Path: f.Name(), Err: err}
	}
	return st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}

// isErrno tells whether err is one of the given errors.
func isErrno(err error, nos ...unix.Errno) bool {
	for _, no := range nos {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

// self returns a path through which path-taking syscalls reach f itself, be it a symlink (proc(5)).
func self(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// openPath opens a path of the current root with O_PATH, through the mounts on it.
func openPath(name string) (*os.File, error) {
	fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// openAt opens name below dir without following a last symlink. The error names shown for people.
func openAt(dir *os.File, name string, flags int, shown string) (*os.File, error) {
	for {
		fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "openat", Path: shown, Err: err}
		}
		return os.NewFile(uintptr(fd), shown), nil
	}
}
