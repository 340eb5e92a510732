//go:build linux

package mounts

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// releaseTime is how long Remove waits for the last files of its run to be closed.
const releaseTime = 200 * time.Millisecond

// Remove removes the placeholders that no other run holds and nobody has filled, deepest first, and lets go of
// all. A directory that got content loses its mark and stays.
//
// The processes of a run that has just ended may still be closing their files, so it waits up to releaseTime for
// the locks.
func (m *Made) Remove() error {
	var errs []error
	end := time.Now().Add(releaseTime)
	for _, h := range slices.Backward(m.held) {
		_, err := removeLocked(m.root, h.Path, h.file, end)
		if isErrno(err, unix.ENOTEMPTY, unix.EEXIST) {
			err = unmark(h.file)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("placeholder /%s: %w", h.Path, err))
		}
		h.file.Close()
	}
	m.held = nil
	return errors.Join(append(errs, m.root.Close())...)
}

// removeLocked removes the placeholder f at name if its lock can be had exclusively before end, and it still is
// one. For a directory with content it returns ENOTEMPTY.
func removeLocked(root *os.File, name string, f *os.File, end time.Time) (removed bool, err error) {
	err = flock(f, unix.LOCK_EX|unix.LOCK_NB)
	for isErrno(err, unix.EWOULDBLOCK) {
		if !time.Now().Before(end) {
			return false, nil
		}
		time.Sleep(5 * time.Millisecond)
		err = flock(f, unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		return false, err
	}
	parent, err := openParent(root, name)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer parent.Close()
	if err := stillAt(parent, path.Base(name), f); err != nil {
		if errors.Is(err, errGone) {
			return false, nil
		}
		return false, err
	}
	if ours, err := removable(f, path.Base(name)); err != nil || !ours {
		return false, err
	}
	isDir, err := isDirectory(f)
	if err != nil {
		return false, err
	}
	err = keepMtime(parent, func() error { return unlink(parent, path.Base(name), isDir) })
	return err == nil, err
}

// removable tells whether f is marked, or was left with a temporary name before it was marked.
func removable(f *os.File, name string) (bool, error) {
	if ours, err := IsPlaceholder(f); err != nil || ours {
		return ours, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false, &os.PathError{Op: "fstat", Path: name, Err: err}
	}
	t := st.Mode & unix.S_IFMT
	return strings.HasPrefix(name, tempPrefix) && (t == unix.S_IFDIR || t == unix.S_IFREG && st.Size == 0), nil
}

// unmark makes a placeholder directory that got content an ordinary one.
func unmark(f *os.File) error {
	err := unix.Fremovexattr(int(f.Fd()), MarkXattr)
	if err != nil && err != unix.ENODATA && err != unix.EOPNOTSUPP {
		return &os.PathError{Op: "fremovexattr " + MarkXattr, Path: f.Name(), Err: err}
	}
	return nil
}
