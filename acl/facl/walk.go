package facl

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// links says which symlinks a walk follows.
type links uint8

const (
	argumentLinks links = iota // those named on the command line; a directory behind one is not entered
	allLinks                   // -L
	noLinks                    // -P: none, and arguments that are symlinks are skipped
)

// walkMode is how a walk goes.
type walkMode struct {
	recursive bool
	links     links
	oneFS     bool
}

// inode identifies an inode.
type inode struct{ dev, ino uint64 }

// visitor is called for every inode that a walk comes to, and returns a status; with an error instead of a file where
// there is none to be had.
type visitor func(path string, f *file, err error) int

// tree walks from the argument path and returns the worst status.
func (s *session) tree(path string, visit visitor) int {
	return s.node(s.dirfd(), path, path, nil, visit)
}

// node visits name in the directory at, and what is below it. above are the directories that the walk is in.
func (s *session) node(at int, name, path string, above []inode, visit visitor) int {
	top := above == nil
	f, link, err := s.open(at, name, path, top)
	if err != nil {
		return visit(path, nil, err)
	}
	if f == nil {
		return statusDone
	}
	defer f.close()
	me := inode{f.st.Dev, f.st.Ino}
	if !top && s.walk.oneFS && f.is(unix.S_IFDIR) && above[0].dev != me.dev {
		return statusDone
	}
	status := visit(path, f, nil)
	if !s.walk.recursive || !f.is(unix.S_IFDIR) || link && s.walk.links != allLinks {
		return status
	}
	for _, a := range above {
		if a == me {
			return status
		}
	}
	return max(status, s.entries(f, append(above, me), visit))
}

// open opens name without following a symlink that is not to be followed; such a one gives no file. link tells that it
// was a symlink.
func (s *session) open(at int, name, path string, top bool) (f *file, link bool, err error) {
	f = &file{path: path}
	if f.fd, err = openat(at, name, unix.O_PATH|unix.O_NOFOLLOW); err != nil {
		return nil, false, &os.PathError{Op: "openat", Path: path, Err: err}
	}
	if err = unix.Fstat(f.fd, &f.st); err != nil || !f.is(unix.S_IFLNK) {
		return f, false, err
	}
	f.close()
	if s.walk.links == noLinks || !top && s.walk.links != allLinks {
		return nil, true, nil
	}
	if f.fd, err = openat(at, name, unix.O_PATH); err != nil {
		return nil, true, &os.PathError{Op: "openat", Path: path, Err: err}
	}
	return f, true, unix.Fstat(f.fd, &f.st)
}

// entries walks the entries of a directory in the order that the filesystem gives them, as the programs do.
func (s *session) entries(dir *file, above []inode, visit visitor) int {
	fd, err := openat(dir.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return visit(dir.path, nil, &os.PathError{Op: "openat", Path: dir.path, Err: err})
	}
	d := os.NewFile(uintptr(fd), dir.path)
	defer d.Close()
	status := statusDone
	for {
		names, err := d.Readdirnames(256)
		for _, name := range names {
			status = max(status, s.node(fd, name, dir.path+"/"+name, above, visit))
		}
		switch {
		case errors.Is(err, io.EOF):
			return status
		case err != nil:
			return max(status, visit(dir.path, nil, err))
		}
	}
}
