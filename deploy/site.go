package deploy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/idshift/userns"
)

// site is a directory below which files are opened, as an inner half sees it.
type site struct {
	dir  *os.File
	root *tree.Root // symlinks are followed as if dir were the root directory; nil: none is followed
	as   userns.FSIDs
}

// openSite opens what an outer half has described. The rest of a plain path is walked without following links: who can close a directory
// to the caller can also put a link into it.
func openSite(outer *os.File, rest string, inRoot bool, as userns.FSIDs) (*site, error) {
	s := &site{as: as}
	if inRoot {
		err := as.Do(func() (err error) { s.dir, err = userns.ReopenDir(outer, rest); return err })
		if err != nil {
			return nil, err
		}
		s.root = tree.NewRoot(s.dir)
		return s, nil
	}
	above := site{dir: outer, as: as}
	fd, err := above.openDir(rest)
	if err != nil {
		return nil, err
	}
	s.dir = os.NewFile(uintptr(fd), filepath.Join(outer.Name(), rest))
	return s, nil
}

func (s *site) close() { s.dir.Close() }

// openDir opens a directory for reading; the caller owns the fd.
func (s *site) openDir(path string) (fd int, err error) {
	err = s.as.Do(func() (err error) {
		if s.root != nil {
			fd, err = s.root.OpenDir(path)
		} else {
			fd, err = walkPlain(int(s.dir.Fd()), path)
		}
		return err
	})
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: s.name(path), Err: err}
	}
	return fd, nil
}

// walkPlain opens the directory at path below dir, which holds neither links nor "..".
func walkPlain(dir int, path string) (int, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := open(dir, ".", flags)
	for part := range strings.SplitSeq(path, "/") {
		if err != nil || part == "" || part == "." {
			continue
		}
		up := fd
		if part == ".." {
			err = unix.EXDEV
		} else {
			fd, err = open(up, part, flags)
		}
		unix.Close(up)
	}
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// open is openat(2), again after a signal.
func open(dir int, name string, flags int) (fd int, err error) {
	for {
		fd, err = unix.Openat(dir, name, flags, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// name is a path in the site for messages.
func (s *site) name(path string) string { return filepath.Join(s.dir.Name(), path) }

// isFile tells whether there is something at path that is no directory.
func (s *site) isFile(path string) bool {
	var st unix.Stat_t
	parent, base, err := s.parent(path)
	if err != nil {
		return false
	}
	defer unix.Close(parent)
	err = s.as.Do(func() error { return unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR
}

// parent opens the directory that the last component of path is in.
func (s *site) parent(path string) (fd int, base string, err error) {
	dir, base := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir, base = path[:i], path[i+1:]
	}
	if base == ".." {
		return -1, "", &os.PathError{Op: "open", Path: s.name(path), Err: unix.EISDIR}
	}
	fd, err = s.openDir(dir)
	return fd, base, err
}

// openFile opens the regular file at path for reading. What else may be there is never opened: the inode is
// looked at first, and then opened itself, whatever its name has come to mean.
func (s *site) openFile(path string) (*os.File, error) {
	parent, base, err := s.parent(path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(parent)
	at := s.name(path)
	probe, err := open(parent, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: at, Err: err}
	}
	defer unix.Close(probe)
	if err := regular(probe, at); err != nil {
		return nil, err
	}
	fd := -1
	err = s.as.Do(func() (err error) {
		// O_NONBLOCK: who holds a lease on the file (fcntl(2)) could keep us waiting.
		fd, err = open(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(probe), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC)
		return err
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: at, Err: err}
	}
	return os.NewFile(uintptr(fd), at), nil
}

// regular demands that an fd is a regular file.
func regular(fd int, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "fstat", Path: path, Err: err}
	}
	kind := "a device node"
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return nil
	case unix.S_IFLNK:
		target := make([]byte, 4096)
		n, err := unix.Readlinkat(fd, "", target)
		if err != nil {
			return errors.Join(fmt.Errorf("%s is a symbolic link", path), err)
		}
		return fmt.Errorf("%s is a symbolic link to %q, and the last name is not followed; name the file itself", path, target[:n])
	case unix.S_IFDIR:
		kind = "a directory"
	case unix.S_IFIFO:
		kind = "a fifo"
	case unix.S_IFSOCK:
		kind = "a socket"
	}
	return fmt.Errorf("%s is %s, not a regular file", path, kind)
}
