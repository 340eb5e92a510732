package ephemeral

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/nsferry/nsferry/ferry"

	"golang.org/x/sys/unix"
)

// State is the directory that masters and layers lie in. Only the caller can enter it.
type State struct {
	path string
	runs *os.File // layers
}

// StatePath is $XDG_STATE_HOME/nsferry/ephemeral (XDG base directory specification).
func StatePath() (string, error) {
	base, err := ferry.StateHome()
	if err != nil {
		return "", fmt.Errorf("there is no place for masters and layers: %w", err)
	}
	return filepath.Join(base, "ephemeral"), nil
}

// Open makes the state directory at path, 0700, and opens it. Close it.
func Open(path string) (*State, error) {
	s := &State{path: path}
	for _, name := range []string{s.masters(), s.archives(), filepath.Join(path, "runs")} {
		if err := os.MkdirAll(name, 0o700); err != nil {
			return nil, err
		}
	}
	var err error
	if s.runs, err = os.Open(filepath.Join(path, "runs")); err != nil {
		return nil, err
	}
	if err := closed(path); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *State) masters() string  { return filepath.Join(s.path, "masters") }
func (s *State) archives() string { return filepath.Join(s.path, "archives") } // what is known of them; see whole

// closed demands that nobody else can enter a directory with setuid files of whole rootfs in it.
func closed(path string) error {
	st, err := os.Stat(path)
	if err == nil && st.Mode().Perm()&0o077 != 0 {
		err = os.Chmod(path, 0o700)
	}
	return err
}

// Close releases the directory, not what is locked in it.
func (s *State) Close() error { return s.runs.Close() }

// layer is a directory for the changes of one run, or for a clone. It is in use as long as anybody has it open: the lock is
// that of the open file, which the run's init and keeper inherit.
type layer struct {
	name string
	dir  *os.File
}

// layerName is what the names of layers are made of; the rest says that they are partial trees. See ferry.PartialName.
const layerName = "run"

// newLayer makes an empty directory of the caller's, locked. What remains of it when nobody holds the lock is litter, which the next
// keeper removes.
func (s *State) newLayer() (*layer, error) {
	at := int(s.runs.Fd())
	for range 16 { // a sweep may take the name in the moment before it is locked
		l := &layer{name: ferry.PartialName(layerName)}
		if err := unix.Mkdirat(at, l.name, 0o700); err != nil {
			return nil, &os.PathError{Op: "mkdirat", Path: filepath.Join(s.runs.Name(), l.name), Err: err}
		}
		taken, err := l.lock(at)
		if taken || err != nil {
			return l, err
		}
	}
	return nil, fmt.Errorf("%s: other processes keep removing the new layer", s.runs.Name())
}

// lock opens and locks the new directory, and tells whether it still has its name.
func (l *layer) lock(at int) (taken bool, err error) {
	fd, err := unix.Openat(at, l.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "openat", Path: l.name, Err: err}
	}
	l.dir = os.NewFile(uintptr(fd), l.name)
	err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	var ours, named unix.Stat_t
	if err == nil {
		err = errors.Join(unix.Fstat(fd, &ours), unix.Fchown(fd, -1, os.Getegid())) // a setgid directory gives it another group
	}
	if err == nil {
		err = unix.Fstatat(at, l.name, &named, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err == nil && ours.Ino == named.Ino {
		return true, nil
	}
	l.dir.Close()
	if err == nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return false, &os.PathError{Op: "flock", Path: l.name, Err: err}
}

// Close lets go of the layer. Its keeper has removed it.
func (l *layer) Close() error { return l.dir.Close() }
