package userns

import (
	"errors"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// FSIDs are the ids, inside, that a half borrows for single file operations: the caller's. The zero value borrows nothing.
type FSIDs struct {
	UID, GID uint32
	Valid    bool
}

// CallerFSIDs returns the caller's own ids as e's halves see them.
func (e *Env) CallerFSIDs() FSIDs {
	if e.Direct {
		return FSIDs{}
	}
	uid, okUID := e.Handoff.UID.ToInside(e.Caller.UID)
	gid, okGID := e.Handoff.GID.ToInside(e.Caller.GID)
	return FSIDs{UID: uid, GID: gid, Valid: okUID && okGID}
}

// Do calls f, and where permission was denied once more with the caller's filesystem ids (setfsuid(2)) and no
// capability over files. Uid 0's capabilities count only for inodes whose owner and group are both mapped, so in a directory of
// the caller's with a foreign group, or one that he may write to by his groups, he can do what inner root cannot.
// f must be one *at call: it runs with another identity than the rest of the process.
func (ids FSIDs) Do(f func() error) error {
	err := f()
	if !ids.Valid || !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EPERM) {
		return err
	}
	runtime.LockOSThread() // filesystem ids belong to a thread
	defer runtime.UnlockOSThread()
	if serr := setFSIDs(ids.UID, ids.GID); serr != nil {
		return errors.Join(err, serr)
	}
	again := f() // what it says now is what the caller would have been told
	if serr := setFSIDs(0, 0); serr != nil {
		panic("userns: internal error: filesystem ids cannot be set back: " + serr.Error())
	}
	return again
}

// setFSIDs changes this thread's filesystem ids, the group first while uid 0 may. A change of credentials clears what
// becomeRoot has set (prctl(2)).
func setFSIDs(uid, gid uint32) error {
	for _, s := range []struct {
		set func(int) (int, error)
		id  uint32
	}{{unix.SetfsgidRetGid, gid}, {unix.SetfsuidRetUid, uid}} {
		if _, err := s.set(int(s.id)); err != nil {
			return err
		}
		if now, err := s.set(-1); err != nil || uint32(now) != s.id {
			return errors.Join(syscall.EPERM, err) // setfsuid(2) never says so itself
		}
	}
	_ = unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0)
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
	return nil
}
