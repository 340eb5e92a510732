package facl

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

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

// option takes note of the options that say how to walk, which Get and Set have in common.
func (m *walkMode) option(name string) {
	switch name {
	case "recursive":
		m.recursive = true
	case "logical":
		m.links = allLinks
	case "physical":
		m.links = noLinks
	case "one-file-system":
		m.oneFS = true
	}
}

// inode identifies an inode.
type inode struct{ dev, ino uint64 }

// visitor is called for every inode that a walk comes to, and returns a status; with an error instead of a file where
// there is none to be had. It returns statusDenied, and has said and changed nothing, for what another process is to do.
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
		return s.handOver(at, name, path, nil, false, err, visit)
	}
	if f == nil {
		return statusDone
	}
	defer f.close()
	me := inode{f.st.Dev, f.st.Ino}
	if !top && s.walk.oneFS && f.is(unix.S_IFDIR) && above[0].dev != me.dev {
		return statusDone
	}
	status := statusDone
	if !top || !s.listed {
		if status = visit(path, f, nil); status == statusDenied {
			return s.handOver(at, name, path, f, false, nil, visit)
		}
	}
	if !s.walk.recursive || !f.is(unix.S_IFDIR) || link && s.walk.links != allLinks {
		return status
	}
	for _, a := range above {
		if a == me {
			return status
		}
	}
	// By its name in /proc, which takes the right to read only. That "." also takes the right to search is so for the programs, too.
	in, by := unix.AT_FDCWD, f.proc()
	if last := path[strings.LastIndexByte(path, '/')+1:]; top && (last == "." || last == "..") {
		in, by = at, name
	}
	fd, err := openat(in, by, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return max(status, s.handOver(at, name, path, f, true, &os.PathError{Op: "openat", Path: path, Err: err}, visit))
	}
	d := os.NewFile(uintptr(fd), path)
	defer d.Close()
	return max(status, s.entries(d, append(above, me), visit))
}

// handOver lets Denied do what is left about name: all, or, if it is listed, what is below it. err is why this process
// cannot; without one it is the visitor of f that wants to be spared. What Denied cannot do either is visited after all.
func (s *session) handOver(at int, name, path string, f *file, listed bool, err error, visit visitor) int {
	if err != nil && !s.denied(err) {
		return visit(path, nil, err)
	}
	j := s.job()
	j.Path, j.Listed, j.Recursive, j.OneFS = path, listed, s.walk.recursive, s.walk.oneFS
	j.Restore = s.restoring
	var dir *os.File
	if at != s.dirfd() {
		if fd, derr := unix.FcntlInt(uintptr(at), unix.F_DUPFD_CLOEXEC, 0); derr == nil {
			dir = os.NewFile(uintptr(fd), filepath.Dir(path))
			defer dir.Close()
		}
	}
	status, ok := s.Denied(dir, name, j)
	if ok {
		return status
	}
	if err != nil {
		return visit(path, nil, err)
	}
	defer func(d func(*os.File, string, Job) (int, bool)) { s.Denied = d }(s.Denied)
	s.Denied = nil
	return visit(path, f, nil)
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
func (s *session) entries(d *os.File, above []inode, visit visitor) int {
	status := statusDone
	for {
		names, err := d.Readdirnames(256)
		for _, name := range names {
			status = max(status, s.node(int(d.Fd()), name, d.Name()+"/"+name, above, visit))
		}
		switch {
		case errors.Is(err, io.EOF):
			return status
		case err != nil:
			return max(status, visit(d.Name(), nil, err))
		}
	}
}
