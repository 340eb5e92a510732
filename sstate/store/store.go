//go:build linux

// Package store keeps artifacts at rest: under a key there is nothing, or one whole file that its writer finished and
// nobody changes any more.
//
// docs/STORE.md specifies names, locks and what else lies in the directory; bitbake's SSTATE_DIR is such a directory.
// Whatever is odd about an entry is a miss with a reason, never a failure: a cache can always be filled again.
package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/sstate/lock"

	"golang.org/x/sys/unix"
)

// Options say how to open a store. The zero value opens one that is there.
type Options struct {
	Create bool             // make the directory, and those above it, when it is missing
	Note   func(string)     // told what is waited for after a second; may be nil
	Now    func() time.Time // nil: time.Now
}

// Store is an open store. Its methods may be called by several goroutines.
type Store struct {
	dir    string
	opts   Options
	shared bool // the group may write: it shall stay so for all that is made in it
}

const (
	privateDir  = ".nsferry"        // what is ours alone in a directory that others may use too
	version     = "nsferry-store-1" // of docs/STORE.md
	versionFile = privateDir + "/version"
	removeLock  = privateDir + "/lock"
)

// Open opens the store in dir. One that is missing is an fs.ErrNotExist unless it shall be made.
func Open(dir string, o Options) (*Store, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if o.Create {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
	}
	st, err := os.Stat(dir)
	if err == nil && !st.IsDir() {
		err = &fs.PathError{Op: "open", Path: dir, Err: unix.ENOTDIR}
	}
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	s := &Store{dir: dir, opts: o, shared: st.Mode()&0o020 != 0}
	return s, s.checkVersion()
}

// Dir is the store's directory, absolute.
func (s *Store) Dir() string { return s.dir }

// checkVersion refuses a store of a later make. One without a version is bitbake's, or nothing but entries yet.
func (s *Store) checkVersion() error {
	text, err := os.ReadFile(s.path(versionFile))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if got := strings.TrimSpace(string(text)); got != version && got != "" {
		return fmt.Errorf("store %s is of version %q, and this nsferry knows %q; use a newer one, or another --store", s.dir, got, version)
	}
	return nil
}

func (s *Store) path(rel string) string { return filepath.Join(s.dir, rel) }

// lockFile takes an exclusive lock on the file at path, which it makes if it is missing, and waits for it until ctx is done.
func (s *Store) lockFile(ctx context.Context, path string) (*lock.Lock, error) {
	return lock.Take(ctx, path, lock.Options{Mode: os.FileMode(s.fileMode()), NoFollow: true, Note: s.opts.Note})
}

// fileMode is the mode of what is put into the store: the umask decides where the store is not shared with a group.
func (s *Store) fileMode() uint32 {
	if s.shared {
		return 0o664
	}
	return 0o666 &^ ferry.Umask()
}

// private makes our own directory with its version, and returns the path of sub in it, which is made too.
func (s *Store) private(sub string) (string, error) {
	if err := s.makeDirs(filepath.Join(privateDir, sub)); err != nil {
		return "", err
	}
	f, err := os.OpenFile(s.path(versionFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, os.FileMode(s.fileMode()))
	switch {
	case errors.Is(err, fs.ErrExist):
		return s.path(filepath.Join(privateDir, sub)), nil
	case err != nil:
		return "", err
	}
	_, err = f.WriteString(version + "\n")
	if err == nil && s.shared {
		err = f.Chmod(os.FileMode(s.fileMode()))
	}
	return s.path(filepath.Join(privateDir, sub)), errors.Join(err, f.Close())
}

// makeDirs makes the directories of the relative path rel. In a shared store each is open to the group and keeps it
// (setgid) as the one above does, whatever the umask.
func (s *Store) makeDirs(rel string) error {
	at := s.dir
	for part := range strings.SplitSeq(rel, "/") {
		above := at
		if at = filepath.Join(at, part); part == "" {
			continue
		}
		err := os.Mkdir(at, 0o777)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		if !s.shared {
			continue
		}
		st, err := os.Stat(above)
		if err != nil {
			return err
		}
		if err := os.Chmod(at, 0o775|st.Mode()&os.ModeSetgid); err != nil {
			return err
		}
	}
	return nil
}
