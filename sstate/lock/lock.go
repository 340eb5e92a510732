//go:build linux

// Package lock takes a BSD lock on a lock file, as flock(1) and bitbake do, and never one on a file that is not under its name
// any more.
//
// Bitbake removes a lock file before it lets go of it. Whoever got a lock therefore looks whether the name still is the
// file that he locked, and begins again when it is not. flock(2) and fcntl(2) locks do not see each other, so that there is no choice
// of kind.
package lock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a lock is waited for in silence.
const patience = time.Second

// ErrBusy is a lock that another process holds.
var ErrBusy = errors.New("in use by another process")

// Options say how a lock is taken. The zero value is an exclusive lock on a file that is made with mode 0644.
type Options struct {
	Shared   bool         // beside other readers
	Mode     os.FileMode  // of a lock file that has to be made, whatever the umask; 0 means 0644
	NoFollow bool         // a lock file that is a symbolic link is an error
	Note     func(string) // told once who is in the way, after a second; may be nil
}

// how is the operation of flock(2).
func (o Options) how() int {
	if o.Shared {
		return unix.LOCK_SH
	}
	return unix.LOCK_EX
}

// Lock is a lock that is held.
type Lock struct{ file *os.File }

// Take takes the lock on the file at path, making the file if it is missing, and waits for it until ctx is done.
func Take(ctx context.Context, path string, o Options) (*Lock, error) {
	if o.Mode == 0 {
		o.Mode = 0o644
	}
	for {
		f, err := open(path, o)
		if err != nil {
			return nil, err
		}
		named := false
		if err = Wait(ctx, f, o); err == nil {
			named, err = Names(path, f)
		}
		if named {
			return &Lock{f}, nil
		}
		f.Close()
		if err != nil {
			return nil, err
		}
	}
}

// Release lets go of the lock. The file stays: whoever removes one must expect somebody to hold a lock on it.
func (l *Lock) Release() error { return l.file.Close() }

// File is the file that the lock is on. It stays the Lock's; a process that inherits it keeps the lock when this one is gone.
func (l *Lock) File() *os.File { return l.file }

// open opens a lock file, for writing if that is allowed: NFS wants that for an exclusive lock.
func open(path string, o Options) (*os.File, error) {
	how := unix.O_NONBLOCK
	if o.NoFollow {
		how |= unix.O_NOFOLLOW
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, o.Mode)
	if err == nil {
		return f, f.Chmod(o.Mode)
	}
	if !errors.Is(err, fs.ErrExist) && !refused(err) {
		return nil, err
	}
	f, err = os.OpenFile(path, os.O_RDWR|how, 0)
	if refused(err) {
		f, err = os.OpenFile(path, os.O_RDONLY|how, 0)
	}
	if errors.Is(err, fs.ErrNotExist) { // removed between the two calls, or it cannot be made
		return os.OpenFile(path, os.O_RDWR|os.O_CREATE|how, o.Mode)
	}
	return f, err
}

func refused(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS)
}

// Try takes a lock on an open file, or says ErrBusy at once. Of o it takes Shared.
func Try(f *os.File, o Options) error {
	for {
		err := unix.Flock(int(f.Fd()), o.how()|unix.LOCK_NB)
		switch err {
		case nil:
			return nil
		case unix.EINTR:
			continue
		case unix.EWOULDBLOCK:
			return fmt.Errorf("%s: %w", f.Name(), ErrBusy)
		}
		return &fs.PathError{Op: "flock", Path: f.Name(), Err: err}
	}
}

// Wait takes a lock on an open file, and waits for it until ctx is done. It asks again and again, because a thread that sleeps in
// flock(2) cannot be cancelled. Of o it takes Shared and Note.
func Wait(ctx context.Context, f *os.File, o Options) error {
	start, pause, told := time.Now(), time.Millisecond, o.Note == nil
	for {
		if err := Try(f, o); !errors.Is(err, ErrBusy) {
			return err
		}
		if !told && time.Since(start) >= patience {
			told = true
			o.Note(fmt.Sprintf("waiting for %s, held by %s", f.Name(), holders(f)))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is held by %s: %w", f.Name(), holders(f), ctx.Err())
		case <-time.After(pause):
			pause = min(2*pause, 16*time.Millisecond)
		}
	}
}

// Names tells whether path, symbolic links followed, is the open file f. A path that is nothing is not.
func Names(path string, f *os.File) (bool, error) {
	ours, err := f.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(ours, there), err
}

// holders says who has a lock on the file, for people, by /proc/locks (proc(5)): "1: FLOCK ADVISORY WRITE PID MAJ:MIN:INODE 0 EOF".
// The device is not compared, for btrfs shows another one there than in stat(2).
func holders(f *os.File) string {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return "another process"
	}
	var who []string
	table, _ := os.ReadFile("/proc/locks") // where it cannot be read nobody is named
	for line := range strings.Lines(string(table)) {
		col := strings.Fields(line)
		if len(col) < 6 || col[1] != "FLOCK" || !strings.HasSuffix(col[5], fmt.Sprintf(":%d", st.Ino)) {
			continue // waiters have "->" in the second column
		}
		name, err := os.ReadFile("/proc/" + col[4] + "/comm")
		if err != nil {
			who = append(who, "process "+col[4])
			continue
		}
		who = append(who, fmt.Sprintf("process %s (%s)", col[4], strings.TrimSpace(string(name))))
	}
	if len(who) == 0 {
		return "another process"
	}
	return strings.Join(who, ", ")
}
