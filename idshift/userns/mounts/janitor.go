//go:build linux

package mounts

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// Janitor is the life of the process that outlives a run: it makes the placeholders, writes one byte to ready,
// waits until the run is gone and removes them. It belongs into its own session, without a parent-death signal,
// into a user namespace whose root may write to the tree, and outside the run's pid and mount namespaces; it must
// keep no file open that someone waits for. Signals from a terminal or a polite kill are ignored from here on.
//
// The run is gone when each of the given files says so: a pidfd of the run's pid 1 when that has ended with
// all its descendants, a pipe when its last writer is gone.
func Janitor(root *os.File, list []Placeholder, ready io.Writer, run ...*os.File) error {
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGPIPE)
	made, err := Make(root, list)
	if err != nil {
		return err
	}
	if _, err := ready.Write([]byte{1}); err != nil {
		return errors.Join(fmt.Errorf("janitor: %w", err), made.Remove())
	}
	return errors.Join(WaitGone(run), made.Remove())
}

// WaitGone waits for the end of a run as Janitor does: for pidfds to become readable and for pipes to be hung up.
func WaitGone(run []*os.File) error {
	for _, f := range run {
		p := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}
		for {
			_, err := unix.Poll(p, -1)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return os.NewSyscallError("poll", err)
			}
			if p[0].Revents&unix.POLLIN == 0 {
				break // hung up
			}
			gone, err := drained(f)
			if err != nil {
				return err
			}
			if gone {
				break
			}
		}
	}
	return nil
}

// drained tells whether a readable f is at its end, discarding what a pipe holds. A pidfd cannot be read (EINVAL)
// and is readable only at the end.
func drained(f *os.File) (bool, error) {
	var buf [512]byte
	n, err := unix.Read(int(f.Fd()), buf[:])
	switch err {
	case nil:
		return n == 0, nil
	case unix.EINVAL:
		return true, nil
	case unix.EINTR, unix.EAGAIN:
		return false, nil
	}
	return false, &os.PathError{Op: "read", Path: f.Name(), Err: err}
}
