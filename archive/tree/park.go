package tree

import (
	"golang.org/x/sys/unix"
)

// maxLevels bounds the fds that a walk down a deep tree holds.
const maxLevels = 128

// dirFds is how many directories a Builder keeps open: a quarter of what the process may have, but no more than a
// usual tree gains from.
func dirFds() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 2 * maxLevels
	}
	return int(max(16, min(l.Cur/4, 8*maxLevels)))
}

// park makes room when too many directories are open: it waits until no worker writes any more, which leaves those that
// lead to the last entry, and closes the upper half of these.
func (b *Builder) park() {
	b.mu.Lock()
	full := b.fds > b.maxFds
	b.mu.Unlock()
	if !full {
		return
	}
	b.flush()
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.busy) > 0 {
		b.changed.Wait()
	}
	if b.fds <= b.maxFds/2 {
		return
	}
	border := max(1, len(b.stack)-b.maxFds/4)
	near := make(map[*dirNode]bool) // through a symlink a path may come by the same directory again
	for _, l := range b.stack[border:] {
		near[l.node] = true
	}
	for _, l := range b.stack[1:border] {
		if n := l.node; n.fd >= 0 && !near[n] && n != b.stack[0].node {
			unix.Close(n.fd)
			n.fd = -1
			b.fds--
		}
	}
}

// unpark opens the level i again, from the level below it, which is still open, or else from the root. It must be the
// same directory; when it is not, its fd stays -1, and what needs it fails.
func (b *Builder) unpark(i, below int) {
	n := b.stack[i].node
	b.mu.Lock()
	defer b.mu.Unlock()
	if n.fd >= 0 {
		return
	}
	fd, err := openAt(below, "..", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil || !isInode(fd, n.id) {
		unix.Close(fd)
		if fd, err = b.root.OpenDir(b.top[:b.stack[i].end]); err != nil || !isInode(fd, n.id) {
			unix.Close(fd)
			return
		}
	}
	n.fd = fd
	b.fds++
}

func isInode(fd int, id inode) bool {
	st, err := fstat(fd)
	return err == nil && inode{uint64(st.Dev), st.Ino} == id
}
