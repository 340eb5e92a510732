//go:build linux

package store

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Entry is an object in the store as its name and stat(2) tell.
type Entry struct {
	Key  Key
	Size int64     // of the object and what goes with it; several entries may be one file
	Used time.Time // last use, as exact as a use is noted
	Odd  string    // why it is a miss at the first look, or empty

	file   inode
	object int64 // bytes of the object alone
}

type inode struct{ dev, ino uint64 }

// List returns all entries, the one used last first. What lies in the directory and is no entry is left out.
func (s *Store) List() ([]Entry, error) {
	var all []Entry
	err := s.eachDir(func(dir string, names []string) error {
		for _, name := range names {
			if e, ok := s.entry(dir, name); ok {
				all = append(all, e)
			}
		}
		return nil
	})
	slices.SortFunc(all, func(a, b Entry) int {
		return cmp.Or(b.Used.Compare(a.Used), cmp.Compare(a.Key.text, b.Key.text))
	})
	return all, err
}

// eachDir calls f for every directory that entries can be in, relative to the store, with its names, sorted. A directory
// that is gone or closed meanwhile is left out.
func (s *Store) eachDir(f func(dir string, names []string) error) error {
	tops, err := hexDirs(s.dir)
	if err != nil {
		return err
	}
	for _, top := range tops {
		subs, err := hexDirs(s.path(top))
		if err != nil {
			continue
		}
		for _, sub := range subs {
			dir := path.Join(top, sub)
			names, err := readNames(s.path(dir))
			if err != nil {
				continue
			}
			if err := f(dir, names); err != nil {
				return err
			}
		}
	}
	return nil
}

func readNames(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	slices.Sort(names)
	return names, errors.Join(err, d.Close())
}

// hexDirs returns the names of two hexadecimal digits in dir.
func hexDirs(dir string) ([]string, error) {
	names, err := readNames(dir)
	return slices.DeleteFunc(names, func(n string) bool { return len(n) != 2 || strings.Trim(n, "0123456789abcdef") != "" }), err
}

// entry looks at a name. It is no entry when it is none of an object, or lies where the key does not belong.
func (s *Store) entry(dir, name string) (e Entry, ok bool) {
	if !strings.HasSuffix(name, Suffix) {
		return e, false
	}
	key, err := ParseKey(name)
	if err != nil || key.dir() != dir {
		return e, false
	}
	e.Key = key
	file := s.path(key.Path())
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		if err := unix.Lstat(file, &st); err != nil {
			return e, false // gone
		}
		e.Odd = "a symbolic link to what is not there"
	}
	e.Size, e.Used = st.Size, time.Unix(st.Mtim.Unix())
	e.object, e.file = st.Size, inode{st.Dev, st.Ino}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if st.Size == 0 {
			e.Odd = "empty"
		}
	case unix.S_IFLNK:
	default:
		e.Odd = "no regular file"
	}
	for _, suffix := range companions() {
		if err := unix.Lstat(file+suffix, &st); err == nil {
			e.Size += st.Size
		}
	}
	return e, true
}

// Newest returns the entry used last whose key is like the given one: the same recipe, architecture and task of bitbake's,
// or the same beginning up to the last of "-", "_", "." and ":". The key itself does not count.
func (s *Store) Newest(key Key) (Key, error) {
	all, err := s.List()
	if err != nil {
		return Key{}, err
	}
	for _, e := range all {
		if e.Odd == "" && e.Key.text != key.text && e.Key.family() == key.family() {
			return e.Key, nil
		}
	}
	return Key{}, fs.ErrNotExist
}

// family is what keys have in common that are likely to be versions of one thing.
func (k Key) family() string {
	if p, ok := k.SState(); ok {
		return prefix + p.PN + ":" + p.Arch + ":" + p.Task
	}
	if i := strings.LastIndexAny(k.text, "-_.:"); i > 0 {
		return k.text[:i]
	}
	return k.text
}
