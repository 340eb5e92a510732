package userns

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// OpenTree opens the directory at path as far as the caller is allowed to: root is an O_PATH descriptor of it, or, where a
// directory on the way (owned by a sub-id, mode 0700) is closed to the caller, of the last one that could be opened. Rest
// is the path from there, empty when root is the directory itself; a half opens it with ReopenDir. The caller closes root.
func OpenTree(path string) (root *os.File, rest string, err error) {
	if path == "" {
		return nil, "", &os.PathError{Op: "open", Path: path, Err: syscall.ENOENT}
	}
	fd, err := openDir(unix.AT_FDCWD, path)
	if err == nil {
		return os.NewFile(uintptr(fd), path), "", nil
	}
	if !errors.Is(err, unix.EACCES) {
		return nil, "", &os.PathError{Op: "open", Path: path, Err: err}
	}
	at, todo := ".", path
	if filepath.IsAbs(path) {
		at = "/"
	}
	if fd, err = openDir(unix.AT_FDCWD, at); err != nil {
		return nil, "", &os.PathError{Op: "open", Path: at, Err: err}
	}
	for {
		todo = strings.TrimLeft(todo, "/")
		name, after, _ := strings.Cut(todo, "/")
		if name == "" {
			return os.NewFile(uintptr(fd), at), "", nil
		}
		next, err := openDir(fd, name)
		if errors.Is(err, unix.EACCES) {
			return os.NewFile(uintptr(fd), at), todo, nil
		}
		unix.Close(fd)
		if err != nil {
			return nil, "", &os.PathError{Op: "open", Path: filepath.Join(at, name), Err: err}
		}
		fd, at, todo = next, filepath.Join(at, name), after
	}
}

func openDir(at int, name string) (int, error) {
	for {
		fd, err := unix.Openat(at, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// ReopenDir opens, for reading, the directory that OpenTree could only describe. Inside there is more privilege than the
// caller has, so that rest must not lead out of root: a symlink or ".." that does is EXDEV. The caller closes the result;
// root stays open.
func ReopenDir(root *os.File, rest string) (*os.File, error) {
	if rest == "" {
		rest = "."
	}
	name := filepath.Join(root.Name(), rest)
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}
	for range 128 { // EAGAIN: a rename raced with ".." (openat2(2)); it may be hostile, so not for ever
		fd, err := unix.Openat2(int(root.Fd()), rest, &how)
		switch err {
		case nil:
			return os.NewFile(uintptr(fd), name), nil
		case unix.EAGAIN, unix.EINTR:
			continue
		case unix.ENOSYS, unix.EPERM: // a kernel before 5.6, or a filter of that age
			return walkDir(root, rest, name)
		}
		return nil, &os.PathError{Op: "openat2", Path: name, Err: err}
	}
	return nil, &os.PathError{Op: "openat2", Path: name, Err: unix.EAGAIN}
}

// walkDir is ReopenDir without openat2: component by component, and no symlink or ".." at all.
func walkDir(root *os.File, rest, name string) (*os.File, error) {
	fd, err := unix.Openat(int(root.Fd()), ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for part := range strings.SplitSeq(rest, "/") {
		if err != nil {
			return nil, &os.PathError{Op: "openat", Path: name, Err: err}
		}
		if part == "" || part == "." {
			continue
		}
		dir := fd
		if part == ".." {
			err = unix.EXDEV
		} else {
			fd, err = unix.Openat(dir, part, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		}
		unix.Close(dir)
	}
	if err != nil {
		return nil, &os.PathError{Op: "openat", Path: name, Err: err}
	}
	defer unix.Close(fd)
	out, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "openat", Path: name, Err: err}
	}
	return os.NewFile(uintptr(out), name), nil
}
