//go:build linux

package handoff

import (
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func lockThread() { runtime.LockOSThread() }

// inMounts runs f on a thread with mounts of its own, which go with the thread. path is a new directory.
func inMounts(t *testing.T, f func(path string)) {
	t.Helper()
	path := t.TempDir()
	done := make(chan error, 1)
	go func() {
		lockThread() // not unlocked: see asUser
		err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS)
		if err == nil {
			err = syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
		}
		if err == nil {
			f(path)
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
