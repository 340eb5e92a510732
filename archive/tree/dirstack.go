package tree

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// dirNode is a directory in which something may still be made. It lives as long as the path to the last entry
// leads through it or a worker writes into it.
type dirNode struct {
	fd       int // -1 while parked
	id       inode
	path     string // for messages
	refs     int    // guarded by Builder.mu
	meta     *Meta  // final metadata; nil: the directory was finished before, only its times are put back
	was      fresh
	mtime    unix.Timespec // as found
	inherits bool          // it has a default ACL or setgid bit that acts on new inodes
	setgid   bool
}

// level is one step of the path to the last entry. path may lead through symlinks; node is where it arrives.
type level struct {
	path string
	node *dirNode
}

// newNode registers the directory fd, which it takes over when there is no error, with one reference. A directory
// that is registered already is the same node: it may have been reached through a symlink.
func (b *Builder) newNode(fd int, path string) (*dirNode, error) {
	st, err := fstat(fd)
	if err != nil {
		return nil, pathError("fstat", path, err)
	}
	id := inode{uint64(st.Dev), st.Ino}
	b.mu.Lock()
	defer b.mu.Unlock()
	if n, ok := b.open[id]; ok {
		n.refs++
		if n.fd < 0 {
			n.fd = fd
		} else {
			unix.Close(fd)
		}
		return n, nil
	}
	inherits, err := hasXattr(fd, XattrDefault)
	if err != nil {
		return nil, pathError("fgetxattr", path, err)
	}
	n := &dirNode{
		fd: fd, id: id, path: path, refs: 1, mtime: st.Mtim,
		inherits: inherits, setgid: st.Mode&unix.S_ISGID != 0,
		was: fresh{uid: st.Uid, gid: st.Gid, inherits: inherits},
	}
	b.open[id] = n
	return n, nil
}

// release gives up a reference; the last one applies the metadata. The lock is held meanwhile, so that nobody enters the
// directory again and takes a time for its own that is about to be replaced.
func (b *Builder) release(n *dirNode) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n.refs--; n.refs > 0 {
		return
	}
	delete(b.open, n.id)
	if err := n.finish(); err != nil && b.err == nil {
		b.err = err
	}
}

func (n *dirNode) finish() error {
	if n.fd < 0 {
		return pathError("reopen", n.path, unix.ESTALE)
	}
	defer unix.Close(n.fd)
	if n.meta != nil {
		return applyFd(n.fd, n.path, n.meta, n.was)
	}
	return setTimes(n.fd, n.path, n.mtime)
}

func (b *Builder) hold(n *dirNode) {
	b.mu.Lock()
	n.refs++
	b.mu.Unlock()
}

// parent returns the directory that path (clean) is in, and path's last component.
func (b *Builder) parent(path string) (*dirNode, string, error) {
	dir, base := ".", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir, base = path[:i], path[i+1:]
	}
	n, err := b.enter(dir)
	return n, base, err
}

// enter makes dir (clean) the top of the stack. Directories that the archive did not name are made.
func (b *Builder) enter(dir string) (*dirNode, error) {
	b.popTo(b.common(dir))
	for {
		top := b.stack[len(b.stack)-1]
		if top.path == dir {
			return top.node, nil
		}
		rest := dir
		if top.path != "." {
			rest = dir[len(top.path)+1:]
		}
		name, _, _ := strings.Cut(rest, "/")
		path := dir[:len(dir)-len(rest)+len(name)]
		if err := b.descend(top.node, name, path); err != nil {
			return nil, err
		}
	}
}

// common returns how many levels of the stack lead to dir.
func (b *Builder) common(dir string) int {
	n := 1
	for n < len(b.stack) {
		p := b.stack[n].path
		if dir != p && !(len(dir) > len(p) && dir[len(p)] == '/' && dir[:len(p)] == p) {
			break
		}
		n++
	}
	return n
}

// descend opens the directory name in top, makes it when it is missing, follows it within the tree when it is a
// symlink.
func (b *Builder) descend(top *dirNode, name, path string) error {
	b.wait(place{top.id, name})
	fd, err := openAt(top.fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	made := false
	switch {
	case errors.Is(err, unix.ENOENT):
		if err = retry(func() error { return unix.Mkdirat(top.fd, name, 0o700) }); err == nil {
			made = true
			fd, err = openAt(top.fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		}
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR):
		fd, err = b.root.OpenDir(path)
	}
	if err != nil {
		return pathError("open parent", path, err)
	}
	n, err := b.push(fd, path)
	if err == nil && made {
		n.meta = &Meta{Mode: 0o755, UID: b.uid, GID: b.gid, ModTime: n.mtime}
	}
	return err
}

// push registers fd, which it takes over, and puts it on the stack.
func (b *Builder) push(fd int, path string) (*dirNode, error) {
	n, err := b.newNode(fd, path)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	b.stack = append(b.stack, level{path: path, node: n})
	b.park()
	return n, nil
}

// maxLevels bounds the fds that a deep tree holds.
const maxLevels = 512

// park closes the fd of the level that is maxLevels above the top; unpark opens it again on the way back.
func (b *Builder) park() {
	i := len(b.stack) - 1 - maxLevels
	if i < 1 {
		return
	}
	n := b.stack[i].node
	b.mu.Lock()
	defer b.mu.Unlock()
	if n.refs == 1 && n.fd >= 0 {
		unix.Close(n.fd)
		n.fd = -1
	}
}

// unpark opens the level i again, from the level below it, which is still open, or else from the root. It must be the
// same directory.
func (b *Builder) unpark(i, below int) {
	n := b.stack[i].node
	if n.fd >= 0 {
		return
	}
	fd, err := openAt(below, "..", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err == nil {
		if st, serr := fstat(fd); serr == nil && (inode{uint64(st.Dev), st.Ino}) == n.id {
			n.fd = fd
			return
		}
		unix.Close(fd)
	}
	if fd, err = b.root.OpenDir(b.stack[i].path); err != nil {
		return
	}
	if st, err := fstat(fd); err != nil || (inode{uint64(st.Dev), st.Ino}) != n.id {
		unix.Close(fd)
		return
	}
	n.fd = fd
}

// popTo leaves all levels but the first keep.
func (b *Builder) popTo(keep int) {
	for len(b.stack) > keep {
		top := b.stack[len(b.stack)-1]
		if i := len(b.stack) - 2; i >= 0 {
			b.unpark(i, top.node.fd)
		}
		b.stack = b.stack[:len(b.stack)-1]
		b.release(top.node)
	}
}
