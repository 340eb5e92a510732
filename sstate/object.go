package sstate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/zframe"
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/sstate/lock"

	"golang.org/x/sys/unix"
)

// An object of bitbake's is a directory, which bitbake packs and unpacks; the functions that make and use it run in there. That of a
// rootfs holds one file, the tree as an archive: rootfs.tar, which other versions of the functions read as well, or
// rootfs.tar.zst, which is not compressed a second time to any effect, and does not take the tree's size on the disk.

const (
	plainObject  = "rootfs.tar"
	framedObject = "rootfs.tar.zst"
)

// ObjectOptions are what both directions have in common.
type ObjectOptions struct {
	Dir    string              // the directory of the object
	Lock   string              // held meanwhile; empty: the name of the tree with ".lock" behind it, as bitbake has it
	Wait   func(string)        // told for whom the lock is waited for; may be nil
	Pack   ferry.PackOptions   // PackObject; Framed is rootfs.tar.zst, else it is rootfs.tar
	Unpack ferry.UnpackOptions // RestoreObject
	Keep   bool                // RestoreObject leaves the archive where it is
}

// Object says what PackObject and RestoreObject did.
type Object struct {
	File string `json:"file,omitempty"` // empty: there was nothing to restore
	archive.Summary
}

// DefaultExcludes is what no rootfs needs out of apt's cache; its directories stay.
func DefaultExcludes() archive.Excludes {
	return archive.Excludes{"var/cache/apt/archives/*.deb", "var/cache/apt/archives/lock", "var/cache/apt/archives/partial/*"}
}

// PackObject writes the tree rootfs into the object's directory. A file of an earlier run is replaced, of the other form removed.
func PackObject(ctx context.Context, e *userns.Env, rootfs string, o ObjectOptions) (made Object, err error) {
	held, err := o.lock(ctx, rootfs)
	if err != nil {
		return made, err
	}
	defer held.Release()
	name, other := plainObject, framedObject
	if o.Pack.Format == archive.Framed {
		name, other = other, name
	} else {
		o.Pack.Format = archive.Plain
	}
	o.Pack.Replace = true
	o.Pack.Hold = append(o.Pack.Hold, held.File())
	made.File = filepath.Join(o.Dir, name)
	if made.Summary, err = ferry.Pack(ctx, e, rootfs, made.File, o.Pack); err != nil {
		return made, err
	}
	if err := os.Remove(filepath.Join(o.Dir, other)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return made, err
	}
	return made, nil
}

// RestoreObject makes the tree rootfs of the archive in the object's directory, in one step in the place of what is there, and removes
// the archive. Without an archive it does nothing: bitbake calls the same function after it has built the tree.
func RestoreObject(ctx context.Context, e *userns.Env, rootfs string, o ObjectOptions) (used Object, err error) {
	held, err := o.lock(ctx, rootfs)
	if err != nil {
		return used, err
	}
	defer held.Release()
	in, err := openObject(o.Dir)
	if err != nil || in == nil {
		return used, err
	}
	defer in.Close()
	if err := fresh(in, rootfs); err != nil {
		return used, err
	}
	if o.Unpack.Sums, err = sums(in); err != nil {
		return used, fmt.Errorf("%s: %w", in.Name(), err)
	}
	o.Unpack.Replace = true
	o.Unpack.Hold = append(o.Unpack.Hold, held.File())
	used.File = in.Name()
	if used.Summary, err = ferry.Unpack(ctx, e, in, rootfs, o.Unpack); err != nil {
		return used, fmt.Errorf("%s: %w", in.Name(), err)
	}
	if o.Keep {
		return used, nil
	}
	return used, os.Remove(in.Name())
}

// lock takes the lock of the tree.
func (o ObjectOptions) lock(ctx context.Context, rootfs string) (*lock.Lock, error) {
	path := o.Lock
	if path == "" {
		path = strings.TrimRight(rootfs, "/") + ".lock"
	}
	return lock.Take(ctx, path, lock.Options{Mode: os.FileMode(0o666 &^ ferry.Umask()), Note: o.Wait})
}

// openObject opens the archive in the directory, nil when there is none.
func openObject(dir string) (*os.File, error) {
	var found []*os.File
	for _, name := range []string{plainObject, framedObject} {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDONLY|unix.O_NONBLOCK, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found = append(found, f)
	}
	switch len(found) {
	case 0:
		return nil, nil
	case 2:
		return nil, errors.Join(fmt.Errorf("%s holds both %s and %s; remove the one that is out of date", dir, plainObject, framedObject), found[0].Close(), found[1].Close())
	}
	st, err := found[0].Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", found[0].Name())
	}
	if err == nil && st.Size() == 0 {
		err = fmt.Errorf("%s is empty: whoever wrote it was interrupted; remove it", found[0].Name())
	}
	if err != nil {
		return nil, errors.Join(err, found[0].Close())
	}
	return found[0], nil
}

// fresh refuses an archive that was there before the tree was made or changed: it is a leftover, and would undo what was built. An
// archive that bitbake has unpacked just now is younger than any tree, by its ctime.
func fresh(in *os.File, rootfs string) error {
	var file, tree unix.Stat_t
	if err := unix.Fstat(int(in.Fd()), &file); err != nil {
		return &fs.PathError{Op: "fstat", Path: in.Name(), Err: err}
	}
	if err := unix.Stat(rootfs, &tree); err != nil {
		return nil // there is no tree, or none that we may look at
	}
	if names, err := os.ReadDir(rootfs); err == nil && len(names) == 0 {
		return nil
	}
	if tree.Ctim.Nano() > file.Ctim.Nano() {
		return fmt.Errorf("%s is stale: the tree %s was made or changed after it; remove the one that is out of date", in.Name(), rootfs)
	}
	return nil
}

// sums are those of an archive of ours; nil of another make.
func sums(in *os.File) ([][32]byte, error) {
	st, err := in.Stat()
	if err != nil {
		return nil, err
	}
	frames, err := zframe.Open(in, st.Size())
	if errors.Is(err, zframe.ErrNotSeekable) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return archive.FrameSums(frames)
}
