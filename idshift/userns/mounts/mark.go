//go:build linux

package mounts

import (
	"os"

	inodes "github.com/nsferry/nsferry/archive/tree"

	"golang.org/x/sys/unix"
)

// MarkXattr marks a placeholder. Only regular files and directories can carry it, which placeholders are.
// Package tree holds its name, because archives leave such inodes out.
const MarkXattr = inodes.XattrPlaceholder

// tempPrefix begins the names under which placeholders are made ready before they get their own.
const tempPrefix = ".nsferry-placeholder-"

// markTime is the mark on filesystems without user xattrs. Filesystems that round it are refused by mark.
var markTime = unix.Timespec{Sec: inodes.PlaceholderSec, Nsec: inodes.PlaceholderNsec}

// mark marks the open file f, a placeholder just made.
func mark(f *os.File) error {
	err := unix.Fsetxattr(int(f.Fd()), MarkXattr, []byte("1"), 0)
	if err == nil {
		return nil
	}
	if err != unix.EOPNOTSUPP {
		return &os.PathError{Op: "fsetxattr " + MarkXattr, Path: f.Name(), Err: err}
	}
	return markByTime(f)
}

// markByTime sets the fallback mark and checks that it stays.
func markByTime(f *os.File) error {
	if err := setMtime(f, markTime); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &os.PathError{Op: "fstat", Path: f.Name(), Err: err}
	}
	if st.Mtim != markTime {
		return &os.PathError{Op: "mark placeholder (no xattrs, no nanoseconds)", Path: f.Name(), Err: unix.EOPNOTSUPP}
	}
	return nil
}

// setMtime sets the modification time of f, a file or directory, not O_PATH.
func setMtime(f *os.File, t unix.Timespec) error {
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, t}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, self(f), times, 0); err != nil {
		return &os.PathError{Op: "utimensat", Path: f.Name(), Err: err}
	}
	return nil
}

// IsPlaceholder tells whether f, of any type and O_PATH or not, is a marked placeholder. It does not look whether
// a directory is empty: one that holds other placeholders is one as well, and one that got content is told from it
// by that content. A file is one only while it is empty.
func IsPlaceholder(f *os.File) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false, &os.PathError{Op: "fstat", Path: f.Name(), Err: err}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if st.Size != 0 {
			return false, nil
		}
	case unix.S_IFDIR:
	default:
		return false, nil
	}
	if st.Mtim == markTime {
		return true, nil
	}
	_, err := unix.Getxattr(self(f), MarkXattr, nil)
	switch err {
	case nil:
		return true, nil
	case unix.ENODATA, unix.EOPNOTSUPP:
		return false, nil
	case unix.EACCES: // reading user xattrs needs read permission; what we make ourselves has it
		return false, nil
	}
	return false, &os.PathError{Op: "getxattr " + MarkXattr, Path: f.Name(), Err: err}
}
