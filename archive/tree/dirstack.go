package tree

import (
	"errors"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// dirNode is a directory in which something may still be made. It lives as long as the path to the last entry
// leads through it or a worker writes into it.
type dirNode struct {
	fd       int // -1 while parked
	id       inode
	up       *dirNode // what it was entered from and under which name, for messages
	base     string
	refs     int   // guarded by Builder.mu
	meta     *Meta // final metadata; nil: the directory was finished before, only its times are put back
	was      fresh
	mtime    unix.Timespec // as found
	inherits bool          // it has a default ACL or setgid bit that acts on new inodes
	setgid   bool
}

// path names the directory in messages. No string of it is kept: in a deep tree they would take its depth squared.
func (n *dirNode) path() string {
	var parts []string
	for ; n.up != nil; n = n.up {
		parts = append(parts, n.base)
	}
	if parts == nil {
		return "."
	}
	slices.Reverse(parts)
	return strings.Join(parts, "/")
}

// level is one step of the path to the last entry: the first end bytes of Builder.top, which may lead through
// symlinks; node is where it arrives.
type level struct {
	end  int
	node *dirNode
}

// newNode registers the directory fd, which it takes over when there is no error, with one reference. A directory
// that is registered already is the same node: it may have been reached through a symlink.
func (b *Builder) newNode(fd int, up *dirNode, base string) (*dirNode, error) {
	st, err := fstat(fd)
	if err != nil {
		return nil, pathError("fstat", base, err)
	}
	id := inode{uint64(st.Dev), st.Ino}
	b.mu.Lock()
	defer b.mu.Unlock()
	if n, ok := b.open[id]; ok {
		n.refs++
		if n.fd < 0 {
			n.fd = fd
			b.fds++
		} else {
			unix.Close(fd)
		}
		return n, nil
	}
	inherits, err := hasXattr(fd, XattrDefault)
	if err != nil {
		return nil, pathError("fgetxattr", base, err)
	}
	n := &dirNode{
		fd: fd, id: id, up: up, base: strings.Clone(base), refs: 1, mtime: st.Mtim,
		inherits: inherits, setgid: st.Mode&unix.S_ISGID != 0,
		was: fresh{uid: st.Uid, gid: st.Gid, inherits: inherits},
	}
	b.open[id] = n
	b.fds++
	return n, nil
}

// release gives up a reference; the last one applies the metadata. Builder.mu is held, also meanwhile, so that nobody
// enters the directory again and takes a time for its own that is about to be replaced.
func (b *Builder) release(n *dirNode) {
	if n.refs--; n.refs > 0 {
		return
	}
	delete(b.open, n.id)
	if n.fd >= 0 {
		b.fds--
	}
	if n.meta != nil {
		b.pending -= n.meta.weight()
	}
	if err := n.finish(); err != nil && b.err == nil {
		b.err = err
	}
}

func (n *dirNode) finish() (err error) {
	if n.fd < 0 {
		return pathError("reopen", n.path(), unix.ESTALE)
	}
	defer unix.Close(n.fd)
	if n.meta != nil {
		err = applyFd(n.fd, n.base, n.meta, n.was)
	} else {
		err = setTimes(n.fd, n.base, n.mtime)
	}
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		p.Path = n.path()
	}
	return err
}

// parent returns the directory that path (clean) is in, and path's last component.
func (b *Builder) parent(path string) (*dirNode, string, error) {
	dir, base := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir, base = path[:i], path[i+1:]
	}
	n, err := b.enter(dir)
	return n, base, err
}

// enter makes dir (clean, "" for the root) the top of the stack. Directories that the archive did not name are made.
func (b *Builder) enter(dir string) (*dirNode, error) {
	b.popTo(b.common(dir))
	for len(b.top) < len(dir) {
		at := len(b.top)
		if at > 0 {
			at++ // the slash
		}
		name, _, _ := strings.Cut(dir[at:], "/")
		if err := b.descend(name, dir[:at+len(name)]); err != nil {
			return nil, err
		}
	}
	return b.stack[len(b.stack)-1].node, nil
}

// common returns how many levels of the stack lead to dir.
func (b *Builder) common(dir string) int {
	same, most := 0, min(len(b.top), len(dir))
	for same < most && b.top[same] == dir[same] {
		same++
	}
	n := 1
	for ; n < len(b.stack); n++ {
		end := b.stack[n].end
		if end > same || end < len(dir) && dir[end] != '/' {
			break
		}
	}
	return n
}

// descend opens the directory name in the one on top, makes it when it is missing, follows it within the tree when it is
// a symlink; path leads to it.
func (b *Builder) descend(name, path string) error {
	top := b.stack[len(b.stack)-1].node
	b.wait(place{top.id, name})
	fd, err := openAt(top.fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	made := false
	switch {
	case errors.Is(err, unix.ENOENT) && b.implied != nil:
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
		b.mu.Lock()
		n.meta = b.impliedMeta(n)
		b.mu.Unlock()
	}
	return err
}

// impliedMeta is the metadata of a directory that the archive does not name.
func (b *Builder) impliedMeta(n *dirNode) *Meta {
	if b.implied == nil {
		return nil
	}
	m := *b.implied
	m.ModTime = n.mtime
	return &m
}

// push registers fd, which it takes over, and puts it on the stack as the level that path leads to.
func (b *Builder) push(fd int, path string) (*dirNode, error) {
	up := b.stack[len(b.stack)-1].node
	n, err := b.newNode(fd, up, path[strings.LastIndexByte(path, '/')+1:])
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	b.stack, b.top = append(b.stack, level{end: len(path), node: n}), path
	b.park()
	return n, nil
}

// popTo leaves all levels but the first keep.
func (b *Builder) popTo(keep int) {
	for len(b.stack) > keep {
		last := len(b.stack) - 1
		top := b.stack[last]
		b.stack = b.stack[:last]
		if last > 0 {
			b.unpark(last-1, top.node.fd)
			b.top = b.top[:b.stack[last-1].end]
		}
		b.mu.Lock()
		b.release(top.node)
		b.mu.Unlock()
	}
}
