//go:build linux

package mounts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// Detach replaces Root, the directory for changes and the binds' sources by detached copies of their mounts, which Setup can place in any
// mount namespace. It closes nothing: the old files stay the caller's, the new ones are the caller's too.
//
// The kernel binds only what lies in the current mount namespace. A file opened outside is of no use after
// unshare(CLONE_NEWNS), and a path may lead through directories closed to inner root. Before that call there is one
// way by descriptor alone: a working directory is carried over into the copy of the namespace. So Detach must be
// called in the new user namespace, with CAP_SYS_ADMIN there (ambient is enough), but before the mount namespace
// is unshared; and, if non-directories are bound from closed directories, still as the caller's uid.
//
// Where the kernel or a filter denies open_tree, the files stay, and Root becomes the working directory, to be
// carried over like that. Setup finds it there, and the binds' sources by path, as it does without Detach: then
// uid 0 inside must be able to walk these paths.
func (s *Spec) Detach() error {
	if s.legacy {
		return s.carryRoot()
	}
	done := *s
	done.Binds = slices.Clone(s.Binds)
	var made []*os.File
	one := func(f, dir *os.File, rec bool) (*os.File, error) {
		tree, err := detach(f, dir, rec)
		if err == nil {
			made = append(made, tree)
		}
		return tree, err
	}
	err := func() (err error) {
		if s.Root != nil {
			if done.Root, err = one(s.Root, nil, true); err != nil {
				return err
			}
		}
		if o := s.Overlay; o != nil && o.Scratch != nil {
			over := *o
			if over.Scratch, err = one(o.Scratch, nil, false); err != nil {
				return err
			}
			done.Overlay = &over
		}
		for i, b := range s.Binds {
			if done.Binds[i].Source, err = one(b.Source, b.Dir, b.Rec); err != nil {
				return fmt.Errorf("bind %s: %w", b.Target, err)
			}
		}
		return nil
	}()
	if err != nil {
		for _, f := range made {
			f.Close()
		}
		if isErrno(err, unix.ENOSYS) {
			return s.carryRoot()
		}
		return err
	}
	*s = done
	return nil
}

// carryRoot makes Root the working directory.
func (s *Spec) carryRoot() error {
	if s.Root == nil {
		return nil
	}
	if err := unix.Fchdir(int(s.Root.Fd())); err != nil {
		return &os.PathError{Op: "fchdir", Path: s.Root.Name(), Err: err}
	}
	return nil
}

// detach makes a detached copy of the mount at f. dir is the directory holding f, needed when f is none itself.
func detach(f, dir *os.File, rec bool) (*os.File, error) {
	tree, err := openTree(f, rec)
	if err == nil || isErrno(err, unix.ENOSYS) {
		return tree, err
	}
	if !isErrno(err, unix.EPERM) { // privileged over this mount namespace already
		return nil, lockedChildren(f, rec, err)
	}
	isDir, err := isDirectory(f)
	if err != nil {
		return nil, err
	}
	if !isDir && dir == nil {
		if dir, err = parentOf(f); err != nil {
			return nil, err
		}
		defer dir.Close()
	}
	type result struct {
		tree *os.File
		err  error
	}
	c := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread, in a namespace of its own, ends with the goroutine
		tree, err := detachHere(f, dir, rec)
		c <- result{tree, err}
	}()
	r := <-c
	return r.tree, r.err
}

// detachHere moves the calling thread to a copy of the mount namespace, in which its working directory and so f
// can be bound.
func detachHere(f, dir *os.File, rec bool) (*os.File, error) {
	cwd, name := f, "."
	if dir != nil {
		link, err := os.Readlink(self(f))
		if err != nil {
			return nil, err
		}
		cwd, name = dir, filepath.Base(link)
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return nil, os.NewSyscallError("unshare", err)
	}
	if err := unix.Fchdir(int(cwd.Fd())); err != nil {
		return nil, &os.PathError{Op: "fchdir", Path: cwd.Name(), Err: err}
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return nil, os.NewSyscallError("unshare", err)
	}
	fd, err := unix.Openat(unix.AT_FDCWD, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "openat", Path: f.Name(), Err: err}
	}
	here := os.NewFile(uintptr(fd), f.Name())
	defer here.Close()
	if same, err := sameFile(f, here); err != nil || !same {
		return nil, errors.Join(err, fmt.Errorf("%s was replaced meanwhile", f.Name()))
	}
	tree, err := openTree(here, rec)
	if isErrno(err, unix.EPERM) { // root in this namespace, so it is a seccomp filter
		return nil, &os.PathError{Op: "open_tree", Path: f.Name(), Err: unix.ENOSYS}
	}
	if err != nil {
		return nil, lockedChildren(here, rec, err)
	}
	return tree, nil
}

// lockedChildren explains the EINVAL of a non-recursive bind that would uncover what a mount of a more privileged
// namespace covers (mount_namespaces(7)).
func lockedChildren(f *os.File, rec bool, err error) error {
	if rec || !isErrno(err, unix.EINVAL) {
		return err
	}
	tree, recErr := openTree(f, true)
	if recErr != nil {
		return err
	}
	tree.Close()
	return fmt.Errorf("%w: %w", err, errLocked)
}

// errLocked is the likely reason why a non-recursive bind is invalid.
var errLocked = errors.New("the mounts below it may not be left out, bind it recursively")

// reopen finds a file of another mount namespace again in this one, as the working directory or by its path, and
// makes sure that it is the same. A path needs search permission on all directories above.
func reopen(f *os.File) (*os.File, error) {
	if cwd, err := openPath("."); err == nil {
		same, sameErr := sameFile(f, cwd)
		ours, oursErr := mountedHere(cwd)
		if same && ours && sameErr == nil && oursErr == nil {
			return cwd, nil
		}
		cwd.Close()
	}
	name, err := os.Readlink(self(f))
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open(name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot be bound by descriptor from another mount namespace: %w",
			&os.PathError{Op: "open", Path: name, Err: err})
	}
	here := os.NewFile(uintptr(fd), name)
	if same, err := sameFile(f, here); err != nil || !same {
		here.Close()
		return nil, errors.Join(err, fmt.Errorf("%s is another file in this mount namespace", name))
	}
	return here, nil
}

// parentOf opens the directory that f was opened in.
func parentOf(f *os.File) (*os.File, error) {
	name, err := os.Readlink(self(f))
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open(filepath.Dir(name), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: filepath.Dir(name), Err: err}
	}
	return os.NewFile(uintptr(fd), filepath.Dir(name)), nil
}
