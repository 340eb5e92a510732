//go:build linux

package store

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/nsferry/nsferry/sstate/lock"

	"golang.org/x/sys/unix"
)

// GCOptions say what may go. With the zero value only litter goes: what killed writers left, and what was moved away more than
// a week ago.
type GCOptions struct {
	MaxSize int64          // bytes that all entries together may have; 0: no limit. Those used last stay
	MaxAge  time.Duration  // entries that were not used for so long go; 0: none
	Keep    func(Key) bool // entries that stay; may be nil
	DryRun  bool           // only tell
}

// Collected says what GC took away, or would have.
type Collected struct {
	Evicted []string `json:"evicted,omitempty"` // keys
	Busy    []string `json:"busy,omitempty"`    // keys that had to go, but are read or written just now
	Litter  int      `json:"litter,omitempty"`  // leftovers
	Freed   int64    `json:"freed"`             // bytes, of entries; a file that is several ones counts with the last
	Kept    int      `json:"kept"`              // entries
	Size    int64    `json:"size"`              // their bytes; a file that is several ones counts once
}

const (
	// litterAge is how old a leftover must be that no lock tells from something under way.
	litterAge = 24 * time.Hour
	// quarantineAge is how long odd entries can be looked at.
	quarantineAge = 7 * 24 * time.Hour
)

// GC takes away entries that are too old or too many, by their last use, and litter. Never an entry that another process
// reads or writes. It goes on after an error and returns all of them.
func (s *Store) GC(o GCOptions) (c Collected, err error) {
	all, err := s.List()
	if err != nil {
		return c, err
	}
	names := make(map[inode]int) // of a file
	for _, e := range all {
		if c.Size += e.Size; names[e.file] > 0 {
			c.Size -= e.object
		}
		names[e.file]++
	}
	c.Kept = len(all)
	var errs []error
	for _, e := range slices.Backward(all) {
		old := o.MaxAge > 0 && s.opts.Now().Sub(e.Used) > o.MaxAge
		if !old && (o.MaxSize <= 0 || c.Size <= o.MaxSize) {
			continue
		}
		if o.Keep != nil && o.Keep(e.Key) {
			continue
		}
		switch err := s.evict(e, o.DryRun); {
		case errors.Is(err, lock.ErrBusy):
			c.Busy = append(c.Busy, e.Key.text)
		case errors.Is(err, errGone), errors.Is(err, fs.ErrNotExist):
		case err != nil:
			errs = append(errs, err)
		default:
			c.Evicted = append(c.Evicted, e.Key.text)
			freed := e.Size
			if names[e.file]--; names[e.file] > 0 {
				freed -= e.object
			}
			c.Freed += freed
			c.Size -= freed
			c.Kept--
		}
	}
	errs = append(errs, s.sweep(o.DryRun, &c))
	return c, errors.Join(errs...)
}

// evict removes the entry with what goes with it. It must not be in use, nor have been since it was listed. The object goes
// last, so that nothing stays behind that belongs to none; but for the lock, which somebody may be about to take.
func (s *Store) evict(e Entry, dry bool) error {
	if !dry {
		unlock, err := s.lockNames()
		if err != nil {
			return err
		}
		defer unlock()
	}
	file := s.path(e.Key.Path())
	if held, err := os.OpenFile(file+".lock", os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0); err == nil {
		defer held.Close()
		if err := lock.Try(held, lock.Options{}); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(file, os.O_RDWR|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		f, err = os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK, 0)
	}
	if err == nil {
		defer f.Close()
		if err := s.unused(f, file, e); err != nil {
			return err
		}
	} else if e.Odd == "" {
		return err
	}
	if dry {
		return nil
	}
	for _, suffix := range companions() {
		if err := os.Remove(file + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return os.Remove(file)
}

// unused makes sure, by a lock that f keeps, that nobody has the entry open, and that it still is the one that was listed.
func (s *Store) unused(f *os.File, file string, e Entry) error {
	if err := lock.Try(f, lock.Options{}); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &fs.PathError{Op: "fstat", Path: file, Err: err}
	}
	same, err := lock.Names(file, f)
	if err == nil && (!same || (inode{st.Dev, st.Ino}) != e.file || time.Unix(st.Mtim.Unix()).After(e.Used)) {
		err = errGone
	}
	return err
}

// abandoned matches names that writers use before a file has its own: ours (handoff) and bitbake's (mktemp).
var abandoned = regexp.MustCompile(`^\..*\.partial-[0-9a-f]{8}$|\.tar\.zst\.[A-Za-z0-9]{8}$`)

// sweep removes what nobody needs any more: temporary files, locks without an object, old quarantine.
func (s *Store) sweep(dry bool, c *Collected) error {
	errs := []error{s.eachDir(func(dir string, names []string) error {
		var errs []error
		for _, name := range names {
			file := s.path(path.Join(dir, name))
			object, isLock := strings.CutSuffix(file, ".lock")
			if !abandoned.MatchString(name) && (!isLock || exists(object)) {
				continue
			}
			errs = append(errs, s.discard(file, dry, c))
		}
		return errors.Join(errs...)
	})}
	old, err := readNames(s.path(quarantineDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, name := range old {
		at := filepath.Join(s.path(quarantineDir), name)
		st, err := os.Lstat(at)
		if err != nil || s.opts.Now().Sub(st.ModTime()) < quarantineAge {
			continue
		}
		if c.Litter++; !dry {
			errs = append(errs, os.RemoveAll(at))
		}
	}
	return errors.Join(errs...)
}

// discard removes a leftover that is old and that no process holds a lock on.
func (s *Store) discard(file string, dry bool, c *Collected) error {
	f, err := os.OpenFile(file, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil // gone, or not ours to judge
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() || s.opts.Now().Sub(st.ModTime()) < litterAge || lock.Try(f, lock.Options{}) != nil {
		return nil
	}
	if same, err := lock.Names(file, f); err != nil || !same {
		return nil
	}
	c.Litter++
	if dry {
		return nil
	}
	return os.Remove(file)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
