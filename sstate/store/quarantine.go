//go:build linux

package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/nsferry/nsferry/sstate/lock"

	"golang.org/x/sys/unix"
)

// quarantineDir is where odd entries lie until gc takes them, each in a directory of its own with the reason.
const quarantineDir = privateDir + "/quarantine"

// SignatureSuffix ends the name of the file with our signature of an object.
const SignatureSuffix = ".minisig"

// companions are what lies beside an object and goes with it: bitbake's siginfo and signature, and ours.
func companions() []string { return []string{".siginfo", ".sig", SignatureSuffix} }

// Quarantine moves the entry away, for reason, so that the next save can put a whole one into its place. It returns the
// miss that the entry now is: always a *MissError, also where it could not be moved.
func (o *Object) Quarantine(reason string) error {
	miss := &MissError{Key: o.Key, Reason: reason}
	to, err := o.store.quarantine(o)
	switch {
	case err == nil:
		miss.Moved = to
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS), errors.Is(err, errGone):
	default:
		miss.Reason += fmt.Sprintf(" (and it could not be moved away: %v)", err)
	}
	return miss
}

// errGone says that the name is another file, or none, by now.
var errGone = errors.New("the entry is another one now")

// quarantine moves the entry, as long as it still is the file that was looked at.
func (s *Store) quarantine(o *Object) (to string, err error) {
	unlock, err := s.lockNames()
	if err != nil {
		return "", err
	}
	defer unlock()
	if same, err := lock.Names(o.path, o.File); err != nil || !same {
		return "", errors.Join(errGone, err)
	}
	var random [4]byte
	_, _ = rand.Read(random[:]) // never fails
	to, err = s.private("quarantine/" + s.opts.Now().UTC().Format("20060102T150405Z") + "-" + hex.EncodeToString(random[:]))
	if err != nil {
		return "", err
	}
	if err := os.Rename(o.path, filepath.Join(to, o.Key.Name())); err != nil {
		return "", errors.Join(err, os.Remove(to))
	}
	for _, suffix := range companions() {
		if err := os.Rename(o.path+suffix, filepath.Join(to, o.Key.Name()+suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return to, err
		}
	}
	return to, nil
}

// lockNames takes the lock under which names are taken away from files. Whoever has it may look what a name is and then
// remove it: publishing never replaces anything, so that nobody else can change it meanwhile.
func (s *Store) lockNames() (unlock func(), err error) {
	if _, err := s.private(""); err != nil {
		return nil, err
	}
	// It is held for moments only, by processes that wait for nothing meanwhile.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	l, err := s.lockFile(ctx, s.path(removeLock))
	if err != nil {
		return nil, err
	}
	return func() { _ = l.Release() }, nil
}
