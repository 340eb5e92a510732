package debs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/sstate/lock"
)

// cache is DL, open. Its lock lies beside it, so that it is the same for every tool whatever becomes of the directory.
type cache struct {
	path string
	dir  *os.File // nil when it does not exist
	note func(string)
}

// openCache opens DL. That it does not exist yet is no error: then dir is nil.
func openCache(path string, note func(string)) (*cache, error) {
	if path == "" {
		return nil, &fs.PathError{Op: "open", Path: path, Err: unix.ENOENT}
	}
	c := &cache{path: filepath.Clean(path), note: note}
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	switch {
	case err == nil:
		c.dir = dir
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return c, nil
}

// make makes DL, with its parents, if it is missing.
func (c *cache) make() error {
	if c.dir != nil {
		return nil
	}
	if err := os.MkdirAll(c.path, 0o777); err != nil {
		return err
	}
	var err error
	c.dir, err = os.OpenFile(c.path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	return err
}

func (c *cache) Close() error {
	if c.dir == nil {
		return nil
	}
	return c.dir.Close()
}

// locked calls f while the lock is held.
func (c *cache) locked(ctx context.Context, o lock.Options, f func() error) (err error) {
	o.Note = c.note
	l, err := lock.Take(ctx, c.path+".lock", o)
	if o.Shared && (denied(err) || errors.Is(err, unix.EROFS)) {
		// Whoever may not even make a lock file beside DL reads it without: names appear in it whole.
		return f()
	}
	if err != nil {
		return fmt.Errorf("lock of %s: %w", c.path, err)
	}
	defer func() { err = errors.Join(err, l.Release()) }()
	return f()
}

// list lists DL under the shared lock: then no tool that writes files in place is in the middle of one.
func (c *cache) list(ctx context.Context) (l Listing, err error) {
	if c.dir == nil {
		return Listing{}, nil
	}
	err = c.locked(ctx, lock.Options{Shared: true}, func() error { l, err = list(c.dir); return err })
	return l, err
}
