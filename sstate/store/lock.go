//go:build linux

package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/nsferry/nsferry/ferry"

	"golang.org/x/sys/unix"
)

// Locks are BSD locks, flock(2), as flock(1) and bitbake take them. Bitbake removes a lock file before it lets go of it: so
// whoever has got a lock looks whether the name is still the file he locked, and begins again when it is not.

// patience is how long a lock is waited for in silence.
const patience = time.Second

// errBusy is a lock that another process holds.
var errBusy = errors.New("in use by another process")

// lockFile takes an exclusive lock on the file at path, which it makes if it is missing, and waits for it until ctx is
// done. Closing the file releases the lock, unless a child process has inherited it.
func (s *Store) lockFile(ctx context.Context, path string) (*os.File, error) {
	return takeLock(ctx, path, os.FileMode(s.fileMode()), s.opts.Note)
}

// Lock takes an exclusive lock on the file at path, as a store does for its own: the file is made if it is missing, and stays. After
// a second, note, unless nil, is told who is waited for. Closing the file releases the lock.
func Lock(ctx context.Context, path string, note func(string)) (*os.File, error) {
	return takeLock(ctx, path, os.FileMode(0o666&^ferry.Umask()), note)
}

func takeLock(ctx context.Context, path string, mode os.FileMode, note func(string)) (*os.File, error) {
	for {
		f, err := openLock(path, mode)
		if err != nil {
			return nil, err
		}
		err = lock(ctx, f, unix.LOCK_EX, note)
		same := false
		if err == nil {
			same, err = names(path, f)
		}
		if same {
			return f, nil
		}
		f.Close()
		if err != nil {
			return nil, err
		}
	}
}

// openLock opens a lock file, for writing if that is allowed: NFS wants that for an exclusive lock.
func openLock(path string, mode os.FileMode) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		return os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	}
	if err != nil {
		return nil, err
	}
	// Only its maker may do that; others find it done, or wait for nothing that needs it.
	if st, serr := f.Stat(); serr == nil && st.Mode().Perm() != mode {
		_ = f.Chmod(mode)
	}
	return f, nil
}

// lock takes a lock on an open file and waits for it until ctx is done. After a second it says who is in the way.
func lock(ctx context.Context, f *os.File, how int, note func(string)) error {
	start, wait, told := time.Now(), time.Millisecond, false
	for {
		err := tryLock(f, how)
		if !errors.Is(err, errBusy) {
			return err
		}
		if !told && time.Since(start) >= patience {
			told = true
			if note != nil {
				note(fmt.Sprintf("waiting for %s, which %s holds", f.Name(), holder(f)))
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is held by %s: %w", f.Name(), holder(f), ctx.Err())
		case <-time.After(wait):
			wait = min(2*wait, 20*time.Millisecond)
		}
	}
}

// tryLock takes a lock, or says errBusy.
func tryLock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case err == unix.EINTR:
			continue
		case err == unix.EWOULDBLOCK:
			return fmt.Errorf("%s: %w", f.Name(), errBusy)
		}
		return &fs.PathError{Op: "flock", Path: f.Name(), Err: err}
	}
}

// names tells whether path, symbolic links followed, is the open file f. A path that is nothing is not.
func names(path string, f *os.File) (bool, error) {
	open, err := f.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(open, named), err
}

// holder says who has a lock on the file, for people.
func holder(f *os.File) string {
	var st unix.Stat_t
	text, err := os.ReadFile("/proc/locks")
	if err = errors.Join(err, unix.Fstat(int(f.Fd()), &st)); err != nil {
		return "another process"
	}
	var found []string
	for line := range strings.Lines(string(text)) {
		// "1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF"; waiters have "->" behind the number. The device is left out,
		// for btrfs shows another one there than in stat(2).
		fields := strings.Fields(line)
		if len(fields) < 8 || fields[1] != "FLOCK" || !strings.HasSuffix(fields[5], fmt.Sprintf(":%d", st.Ino)) {
			continue
		}
		who := "process " + fields[4]
		if comm, err := os.ReadFile("/proc/" + fields[4] + "/comm"); err == nil {
			who += " (" + strings.TrimSpace(string(comm)) + ")"
		}
		found = append(found, who)
	}
	if len(found) == 0 {
		return "another process"
	}
	return strings.Join(found, ", ")
}
