package tree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Builder fills an empty directory with inodes. Its methods are called by one goroutine, in the order of an archive; contents are
// written by workers behind it. A name that comes twice is replaced, as tar does. Nothing is ever opened through
// a symlink that is a last component, and no parent outside the root.
//
// Directories get their metadata when nothing in them is under way any more, the deepest first.
type Builder struct {
	root    *Root
	uid     uint32
	gid     uint32
	implied *Meta
	maxFds  int

	stack []level // the directories that lead to the last entry, the root first
	top   string  // path of the last level, "" for the root

	jobs    chan *batch
	free    chan *batch
	current *batch
	workers sync.WaitGroup

	mu      sync.Mutex
	changed *sync.Cond         // an inode in busy is done
	open    map[inode]*dirNode // directories that still wait for their metadata
	busy    map[place]struct{} // files that a worker still has to write
	fds     int                // of directories in open
	pending int                // bytes of attributes that directories in open wait for
	err     error              // the first failure of a worker
}

// BuildOptions are how a Builder works.
type BuildOptions struct {
	// Workers is the number of goroutines that write.
	Workers int
	// Implied is what directories get which something is in, but which are not made by Dir, the root among them; but for the
	// time, which is that of their making. With nil, a parent that is not there is an error.
	Implied *Meta
}

// inode identifies one within the tree.
type inode struct{ dev, ino uint64 }

// place is a name in a directory.
type place struct {
	dir  inode
	base string
}

// NewBuilder starts goroutines that write into the directory root, which must be empty and stays the caller's. Close must
// be called.
func NewBuilder(root *os.File, o BuildOptions) (*Builder, error) {
	return newBuilder(NewRoot(root), o)
}

func newBuilder(root *Root, o BuildOptions) (*Builder, error) {
	workers := max(o.Workers, 1)
	b := &Builder{
		root:    root,
		uid:     uint32(os.Geteuid()),
		gid:     uint32(os.Getegid()),
		implied: o.Implied,
		maxFds:  dirFds(),
		jobs:    make(chan *batch, workers),
		free:    make(chan *batch, 2*workers+2),
		open:    make(map[inode]*dirNode),
		busy:    make(map[place]struct{}),
	}
	b.changed = sync.NewCond(&b.mu)
	for range cap(b.free) {
		b.free <- new(batch)
	}
	fd, err := openAt(root.Fd(), ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, pathError("openat", ".", err)
	}
	n, err := b.newNode(fd, nil, ".")
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	n.meta = b.impliedMeta(n)
	b.stack = []level{{node: n}}
	for range workers {
		b.workers.Go(func() {
			for j := range b.jobs {
				j.run(b)
				j.reset()
				b.free <- j
			}
		})
	}
	return b, nil
}

// Close waits for the workers, gives the last directories their metadata and releases everything. It returns the first
// failure of all; the tree is then incomplete.
func (b *Builder) Close() error {
	b.flush()
	close(b.jobs)
	b.workers.Wait()
	b.popTo(0)
	return b.failure()
}

// failure is the first error that a worker met.
func (b *Builder) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

func (b *Builder) fail(err error) {
	if err == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = err
	}
}

// begin checks that work may go on, finds the directory of path, and waits until no worker has the name.
func (b *Builder) begin(ctx context.Context, path string) (*dirNode, string, error) {
	if err := errors.Join(ctx.Err(), b.failure()); err != nil {
		return nil, "", err
	}
	path = clean(path)
	n, base, err := b.parent(path)
	if err != nil {
		return nil, "", err
	}
	b.wait(place{n.id, base})
	return n, base, nil
}

// wait blocks while a worker still has to write the file at p.
func (b *Builder) wait(p place) {
	b.mu.Lock()
	_, is := b.busy[p]
	b.mu.Unlock()
	if !is {
		return
	}
	b.flush()
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		if _, is := b.busy[p]; !is {
			return
		}
		b.changed.Wait()
	}
}

// replace makes room for an inode whose creation said EEXIST: whatever has the name goes, a directory only when
// it is empty.
func replace(dir int, base, path string) error {
	err := retry(func() error { return unix.Unlinkat(dir, base, 0) })
	if errors.Is(err, unix.EISDIR) {
		err = retry(func() error { return unix.Unlinkat(dir, base, unix.AT_REMOVEDIR) })
	}
	if errors.Is(err, unix.ENOTEMPTY) {
		return pathError("replace", path, fmt.Errorf("a directory that is not empty is in the way: %w", err))
	}
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return pathError("unlinkat", path, err)
}

// create runs make, and once more after replacing what was in the way.
func create(dir int, base, op, path string, mk func() error) error {
	err := retry(mk)
	if errors.Is(err, unix.EEXIST) {
		if err := replace(dir, base, path); err != nil {
			return err
		}
		err = retry(mk)
	}
	return pathError(op, path, err)
}
