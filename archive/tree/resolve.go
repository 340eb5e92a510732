package tree

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// The kernel gives up a RESOLVE_IN_ROOT walk with EAGAIN when a rename races with a ".." (openat2(2)); so often
// is it tried again before the race is called hostile.
const maxRaces = 128

// maxSymlinks is the kernel's own limit on symlinks in one path (path_resolution(7)).
const maxSymlinks = 40

// Root is the root of a tree: paths given to it are resolved as if a process were chrooted there. Symlinks are
// followed in all but the last component, absolute ones and ".." stay inside, magic links are refused.
type Root struct {
	dir *os.File
	// walk resolves a relative path of at most maxPath bytes to a directory fd; a field, because kernels before
	// 5.6 and seccomp filters lack openat2(2), and tests run everything both ways.
	walk    func(root int, path string) (fd int, err error)
	openat2 bool
}

// maxPath bounds what one openat2 call is given: PATH_MAX is 4096 with the NUL.
const maxPath = 4000

// NewRoot makes a Root of an open directory. The Root does not own dir, which must stay open as long as it is used.
func NewRoot(dir *os.File) *Root {
	// Probed by use: old kernels answer ENOSYS, seccomp filters EPERM.
	fd, err := walkOpenat2(int(dir.Fd()), ".")
	if err != nil {
		return newWalkingRoot(dir)
	}
	unix.Close(fd)
	return &Root{dir: dir, walk: walkOpenat2, openat2: true}
}

// newWalkingRoot never uses openat2.
func newWalkingRoot(dir *os.File) *Root { return &Root{dir: dir, walk: walkComponents} }

// Fd returns the root's fd, still owned by the caller of NewRoot.
func (r *Root) Fd() int { return int(r.dir.Fd()) }

// OpenDir opens the directory at path. The caller closes the fd.
func (r *Root) OpenDir(path string) (int, error) {
	path = clean(path)
	if len(path) <= maxPath {
		return r.walk(r.Fd(), path)
	}
	return walkComponents(r.Fd(), path)
}

// OpenParent opens the directory that path's last component is in, and returns that component: never "..", which
// would be resolved by whoever uses it, outside of the root perhaps.
func (r *Root) OpenParent(path string) (fd int, base string, err error) {
	path = clean(path)
	dir, base := ".", path
	if path == ".." || strings.HasSuffix(path, "/..") {
		fd, err = r.OpenDir(path)
		return fd, ".", err
	}
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir, base = path[:i], path[i+1:]
	}
	fd, err = r.OpenDir(dir)
	return fd, base, err
}

// Open opens the non-directory or directory at path for reading, its last component not followed.
func (r *Root) Open(path string, flags int) (int, error) {
	parent, base, err := r.OpenParent(path)
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	return openAt(parent, base, flags, 0)
}

// clean drops leading and doubled slashes and "." components; ".." stays (the walk keeps it inside).
func clean(path string) string {
	parts := strings.Split(path, "/")
	kept := parts[:0]
	for _, p := range parts {
		if p != "" && p != "." {
			kept = append(kept, p)
		}
	}
	if len(kept) == 0 {
		return "."
	}
	return strings.Join(kept, "/")
}

func walkOpenat2(root int, path string) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	for range maxRaces {
		fd, err := unix.Openat2(root, path, &how)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
	return -1, unix.EAGAIN
}

// walkComponents does what openat2 with RESOLVE_IN_ROOT does, in steps: every component is opened without
// following, a symlink's target is put in front of what remains. ".." goes back along the fds that led here, so a
// directory that is moved away meanwhile cannot lead outside.
func walkComponents(root int, path string) (int, error) {
	w := walker{root: root, rest: strings.Split(path, "/")}
	defer w.close()
	for len(w.rest) > 0 {
		if err := w.step(); err != nil {
			return -1, err
		}
	}
	return openAt(w.at(), ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
}

type walker struct {
	root  int
	stack []int // fds from the root to where we are, owned
	rest  []string
	links int
}

func (w *walker) at() int {
	if len(w.stack) == 0 {
		return w.root
	}
	return w.stack[len(w.stack)-1]
}

func (w *walker) close() {
	for _, fd := range w.stack {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// maxOpen bounds the fds that a long walk holds; older ones are given up, and ".." then refuses to go that far back.
const maxOpen = 64

func (w *walker) step() error {
	name := w.rest[0]
	w.rest = w.rest[1:]
	switch name {
	case "", ".":
		return nil
	case "..":
		return w.up()
	}
	fd, err := openAt(w.at(), name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return w.follow(name, err)
	}
	if err != nil {
		return err
	}
	w.stack = append(w.stack, fd)
	if old := len(w.stack) - 1 - maxOpen; old >= 0 {
		unix.Close(w.stack[old])
		w.stack[old] = -1
	}
	return nil
}

// up takes "..": at the root it stays there, as in a chroot.
func (w *walker) up() error {
	n := len(w.stack)
	if n == 0 {
		return nil
	}
	unix.Close(w.stack[n-1])
	w.stack = w.stack[:n-1]
	if n > 1 && w.stack[n-2] < 0 {
		return unix.ELOOP // more than maxOpen levels back: no rootfs has such links
	}
	return nil
}

// follow replaces a symlink by its target; cause is what opening it as a directory said.
func (w *walker) follow(name string, cause error) error {
	target, err := readlinkAt(w.at(), name)
	if err != nil {
		return cause // not a symlink: really no directory
	}
	if w.links++; w.links > maxSymlinks {
		return unix.ELOOP
	}
	if target == "" {
		return unix.ENOENT
	}
	if strings.HasPrefix(target, "/") {
		w.close()
		w.stack = w.stack[:0]
	}
	w.rest = append(strings.Split(target, "/"), w.rest...)
	return nil
}
