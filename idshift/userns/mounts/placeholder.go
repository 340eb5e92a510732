//go:build linux

package mounts

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// maxRaces bounds the retries against other runs that make or remove the same placeholder.
const maxRaces = 100

// Made holds placeholders for one run. While it does, neither another run nor Sweep removes them.
type Made struct {
	root *os.File
	held []held
}

// held is one placeholder, open and locked shared.
type held struct {
	Placeholder
	file *os.File
}

// Make creates the placeholders below root, in the given order, or joins those that another run has made. Each
// gets its name only when it is marked and locked, so a kill at any moment leaves either nothing, or something
// that Sweep recognises. The modification times of the directories stay as they were.
//
// It must run outside the mount namespace in which they are mounted on, as a user that may write to the tree.
// After an error nothing is held or left.
func Make(root *os.File, list []Placeholder) (*Made, error) {
	dup, err := openAt(root, ".", unix.O_RDONLY|unix.O_DIRECTORY, root.Name())
	if err != nil {
		return nil, err
	}
	m := &Made{root: dup}
	for _, p := range list {
		if err := m.hold(p); err != nil {
			return nil, errors.Join(fmt.Errorf("placeholder /%s: %w", p.Path, err), m.Remove())
		}
	}
	return m, nil
}

// hold makes or joins one placeholder. What exists and is none of ours is left alone.
func (m *Made) hold(p Placeholder) error {
	parent, err := openParent(m.root, p.Path)
	if err != nil {
		return err
	}
	defer parent.Close()
	name := path.Base(p.Path)
	for range maxRaces {
		f, err := openReal(parent, name)
		switch {
		case errors.Is(err, os.ErrNotExist):
			f, err = create(parent, name, p.Dir)
			if isErrno(err, unix.EEXIST, unix.ENOENT) {
				continue
			}
			if err != nil {
				return err
			}
		case err != nil:
			return err
		default:
			ours, err := join(parent, name, f)
			if err != nil || !ours {
				f.Close()
				if errors.Is(err, errGone) {
					continue
				}
				return err
			}
		}
		m.held = append(m.held, held{p, f})
		return nil
	}
	return errors.New("other runs keep on making and removing it")
}

// errGone: the name does not lead to the file any more.
var errGone = errors.New("replaced meanwhile")

// join locks an existing placeholder; ours is false when f is something else.
func join(parent *os.File, name string, f *os.File) (ours bool, err error) {
	if ours, err = IsPlaceholder(f); err != nil || !ours {
		return false, err
	}
	if err := flock(f, unix.LOCK_SH); err != nil {
		return false, err
	}
	return true, stillAt(parent, name, f)
}

// stillAt returns errGone unless name in parent is f.
func stillAt(parent *os.File, name string, f *os.File) error {
	now, err := openAt(parent, name, unix.O_PATH, name)
	if errors.Is(err, os.ErrNotExist) {
		return errGone
	}
	if err != nil {
		return err
	}
	defer now.Close()
	same, err := sameFile(now, f)
	if err == nil && !same {
		err = errGone
	}
	return err
}

// create makes a placeholder under a temporary name, marks and locks it, and gives it its name if that is free.
func create(parent *os.File, name string, dir bool) (f *os.File, err error) {
	temp := tempPrefix + rand.Text()
	err = keepMtime(parent, func() error {
		if f, err = createTemp(parent, temp, dir); err != nil {
			return err
		}
		if err := publish(parent, temp, name, dir); err != nil {
			return errors.Join(err, unlink(parent, temp, dir), f.Close())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// publish gives temp its name unless something is there. Filesystems without RENAME_NOREPLACE (NFS) answer EINVAL:
// for a file link does the same; a directory is then just renamed, which at worst takes the place of an empty one
// made since we looked.
func publish(parent *os.File, temp, name string, dir bool) error {
	fd := int(parent.Fd())
	err := unix.Renameat2(fd, temp, fd, name, unix.RENAME_NOREPLACE)
	switch {
	case err != unix.EINVAL && err != unix.ENOSYS:
	case dir:
		err = unix.Renameat(fd, temp, fd, name)
	default:
		if err = unix.Linkat(fd, temp, fd, name, 0); err == nil {
			return unlink(parent, temp, false)
		}
	}
	if err != nil {
		return &os.PathError{Op: "renameat2", Path: path.Join(parent.Name(), name), Err: err}
	}
	return nil
}

// createTemp makes a marked and locked file or directory.
func createTemp(parent *os.File, temp string, dir bool) (*os.File, error) {
	var err error
	mode := uint32(0o644)
	if dir {
		mode = 0o755
		err = unix.Mkdirat(int(parent.Fd()), temp, 0o700)
	} else {
		err = unix.Mknodat(int(parent.Fd()), temp, unix.S_IFREG|0o600, 0)
	}
	if err != nil {
		return nil, &os.PathError{Op: "create", Path: path.Join(parent.Name(), temp), Err: err}
	}
	f, err := openReal(parent, temp)
	if err != nil {
		return nil, errors.Join(err, unlink(parent, temp, dir))
	}
	if err = flock(f, unix.LOCK_SH); err == nil {
		err = mark(f)
	}
	if err == nil {
		err = f.Chmod(os.FileMode(mode)) // umask and default ACLs shall not decide
	}
	if err != nil {
		return nil, errors.Join(err, unlink(parent, temp, dir), f.Close())
	}
	return f, nil
}

// keepMtime runs change and puts the modification time of dir back, so that making and removing placeholders
// leaves no trace in it. A change by others in that instant loses its time stamp.
func keepMtime(dir *os.File, change func() error) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return &os.PathError{Op: "fstat", Path: dir.Name(), Err: err}
	}
	err := change()
	if restored := setMtime(dir, st.Mtim); err == nil {
		err = restored
	}
	return err
}

// unlink removes name in parent.
func unlink(parent *os.File, name string, dir bool) error {
	flags := 0
	if dir {
		flags = unix.AT_REMOVEDIR
	}
	if err := unix.Unlinkat(int(parent.Fd()), name, flags); err != nil {
		return &os.PathError{Op: "unlinkat", Path: path.Join(parent.Name(), name), Err: err}
	}
	return nil
}

// openParent opens the directory of name below root without following any symlink.
func openParent(root *os.File, name string) (*os.File, error) {
	dir, err := openAt(root, ".", unix.O_RDONLY|unix.O_DIRECTORY, root.Name())
	if err != nil {
		return nil, err
	}
	for _, c := range components(path.Dir(name)) {
		next, err := openAt(dir, c, unix.O_RDONLY|unix.O_DIRECTORY, path.Join(dir.Name(), c))
		dir.Close()
		if err != nil {
			return nil, err
		}
		dir = next
	}
	return dir, nil
}

// openReal opens name in parent for reading if it is a directory or regular file; others are returned as O_PATH,
// since opening a device or fifo may have effects.
func openReal(parent *os.File, name string) (*os.File, error) {
	f, err := openAt(parent, name, unix.O_PATH, name)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return nil, &os.PathError{Op: "fstat", Path: name, Err: err}
	}
	if t := st.Mode & unix.S_IFMT; t != unix.S_IFREG && t != unix.S_IFDIR {
		return f, nil
	}
	defer f.Close()
	fd, err := unix.Open(self(f), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// flock is flock(2).
func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
		return nil
	}
}
