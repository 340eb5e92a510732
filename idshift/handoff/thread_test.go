//go:build linux

package handoff

import (
	"errors"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inMounts runs f on a thread with mounts of its own, which go with the thread. path is a new directory.
func inMounts(t *testing.T, f func(path string)) {
	t.Helper()
	path := t.TempDir()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // not unlocked: see asUser
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

// asUser runs f with the file system rights of another user, on this thread alone.
func asUser(t *testing.T, uid int, f func()) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		// Not unlocked: the thread ends with the goroutine and takes its identity along.
		runtime.LockOSThread()
		_, _, gerr := unix.RawSyscall(unix.SYS_SETRESGID, ^uintptr(0), uintptr(uid), ^uintptr(0))
		_, _, uerr := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0))
		if gerr != 0 || uerr != 0 {
			done <- errors.Join(gerr, uerr)
			return
		}
		f()
		done <- nil
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
