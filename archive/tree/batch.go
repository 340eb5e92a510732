package tree

import (
	"context"
	"errors"
	"io"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Segment is a run of data in a file; what lies between segments are holes.
type Segment struct{ Offset, Length int64 }

// batchSize is how much content one worker takes at a time. It bounds memory (2*workers+2 of them) and is small
// enough to stay in a core's cache between the copy into it and the write out of it.
const batchSize = 512 << 10

// batch is what a worker takes at a time: several small files, or one piece of a large one.
type batch struct {
	buf    []byte
	files  []smallFile
	weight int // bytes that the files take beside their contents
	piece  *largeFile
	off    int64 // of the piece in the file
}

type smallFile struct {
	dir  *dirNode
	base string
	path string
	meta Meta
	size int64
	segs []Segment            // nil: dense
	data []byte               // the segments' data, in the batch's buffer
	put  func(*os.File) error // instead of data; see Fill
}

func (j *batch) reset() {
	clear(j.files)
	j.buf, j.files, j.weight, j.piece = j.buf[:0], j.files[:0], 0, nil
}

// reserve gives n bytes at the end of the buffer.
func (j *batch) reserve(n int) []byte {
	if cap(j.buf) == 0 {
		j.buf = make([]byte, 0, batchSize)
	}
	at := len(j.buf)
	j.buf = j.buf[:at+n]
	return j.buf[at:]
}

// File makes a regular file of size bytes at path. Its data, the segments' one after the other (nil: all of the file), is
// read from r before File returns; it is written behind the caller's back, failures come from a later call or Close.
func (b *Builder) File(ctx context.Context, path string, m Meta, size int64, segs []Segment, r io.Reader) error {
	n, base, err := b.begin(ctx, path)
	if err != nil {
		return err
	}
	stored := size
	if segs != nil {
		stored = 0
		for _, s := range segs {
			stored += s.Length
		}
	}
	if stored > batchSize/2 {
		return b.largeFile(ctx, n, base, path, m, size, segs, stored, r)
	}
	if b.current != nil && len(b.current.buf)+int(stored) > batchSize {
		b.flush()
	}
	if b.current == nil {
		b.current = <-b.free
	}
	j := b.current
	data := j.reserve(int(stored))
	if _, err := io.ReadFull(r, data); err != nil {
		return pathError("read archive", path, err)
	}
	b.occupy(n, base)
	j.files = append(j.files, smallFile{dir: n, base: base, path: path, meta: m, size: size, segs: segs, data: data})
	j.weight += len(path) + m.weight() + 16*len(segs)
	if len(j.files) >= 1024 || j.weight > batchSize {
		b.flush()
	}
	return nil
}

// Fill makes a regular file at path whose content put writes. A worker calls it, behind the caller's back; the file stays
// the Builder's.
func (b *Builder) Fill(ctx context.Context, path string, m Meta, put func(*os.File) error) error {
	n, base, err := b.begin(ctx, path)
	if err != nil {
		return err
	}
	if b.current == nil {
		b.current = <-b.free
	}
	j := b.current
	b.occupy(n, base)
	j.files = append(j.files, smallFile{dir: n, base: base, path: path, meta: m, put: put})
	if len(j.files) >= 64 {
		b.flush()
	}
	return nil
}

// occupy says that a worker will make base in n, which it keeps open.
func (b *Builder) occupy(n *dirNode, base string) {
	b.mu.Lock()
	n.refs++
	b.busy[place{n.id, base}] = struct{}{}
	b.mu.Unlock()
}

// vacate is the end of occupy.
func (b *Builder) vacate(n *dirNode, base string) {
	b.mu.Lock()
	delete(b.busy, place{n.id, base})
	b.release(n)
	b.changed.Broadcast()
	b.mu.Unlock()
}

// flush hands the current batch to the workers.
func (b *Builder) flush() {
	if b.current != nil {
		b.jobs <- b.current
		b.current = nil
	}
}

func (j *batch) run(b *Builder) {
	if j.piece != nil {
		j.piece.write(b, j.buf, j.off)
		return
	}
	for i := range j.files {
		f := &j.files[i]
		if b.failure() == nil {
			b.fail(f.write(b))
		}
		b.vacate(f.dir, f.base)
	}
}

func (f *smallFile) write(b *Builder) error {
	fd, err := b.createFile(f.dir, f.base, f.path)
	if err != nil {
		return err
	}
	if f.put != nil {
		return f.filled(os.NewFile(uintptr(fd), f.path), b)
	}
	err = f.fill(fd)
	if err == nil {
		err = applyFd(fd, f.path, &f.meta, b.born(f.dir))
	}
	return closeFile(fd, f.path, err)
}

// filled finishes a file of Fill's.
func (f *smallFile) filled(file *os.File, b *Builder) error {
	err := f.put(file)
	if err == nil {
		err = applyFd(int(file.Fd()), f.path, &f.meta, b.born(f.dir))
	}
	return errors.Join(err, file.Close())
}

func (f *smallFile) fill(fd int) error {
	if f.segs == nil {
		return pathError("write", f.path, writeAll(fd, f.data, 0))
	}
	data := f.data
	for _, s := range f.segs {
		if err := writeAll(fd, data[:s.Length], s.Offset); err != nil {
			return pathError("write", f.path, err)
		}
		data = data[s.Length:]
	}
	return pathError("ftruncate", f.path, retry(func() error { return unix.Ftruncate(fd, f.size) }))
}

// createFile makes the file and opens it for writing; what had the name is replaced, never written through.
func (b *Builder) createFile(dir *dirNode, base, path string) (fd int, err error) {
	err = create(dir.fd, base, "create", path, func() (err error) {
		fd, err = openAt(dir.fd, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
		return err
	})
	return fd, err
}

// born is what the kernel gives a new inode in dir: the group of a setgid directory (inode(7)), its default ACL (acl(5)).
func (b *Builder) born(dir *dirNode) fresh {
	f := fresh{uid: b.uid, gid: b.gid, inherits: dir.inherits}
	if dir.setgid {
		f.gid = dir.was.gid
	}
	return f
}

// closeFile closes fd; some filesystems report a failed write only then.
func closeFile(fd int, path string, err error) error {
	if cerr := unix.Close(fd); err == nil && cerr != nil {
		return pathError("close", path, cerr)
	}
	return err
}

// largeFile is written in pieces by several workers; the last one to finish gives it its metadata.
type largeFile struct {
	smallFile
	fd     int
	pieces atomic.Int32
}

func (b *Builder) largeFile(ctx context.Context, n *dirNode, base, path string, m Meta, size int64, segs []Segment, stored int64, r io.Reader) error {
	b.flush()
	fd, err := b.createFile(n, base, path)
	if err != nil {
		return err
	}
	b.occupy(n, base)
	l := &largeFile{smallFile: smallFile{dir: n, base: base, path: path, meta: m, size: size}, fd: fd}
	l.pieces.Store(1)
	defer l.done(b)
	if segs == nil {
		segs = []Segment{{0, stored}}
	}
	for _, s := range segs {
		for off := int64(0); off < s.Length; off += batchSize {
			if err := ctx.Err(); err != nil {
				return err
			}
			j := <-b.free
			p := j.reserve(int(min(batchSize, s.Length-off)))
			if _, err := io.ReadFull(r, p); err != nil {
				j.reset()
				b.free <- j
				return pathError("read archive", path, err)
			}
			l.pieces.Add(1)
			j.piece, j.off = l, s.Offset+off
			b.jobs <- j
		}
	}
	return nil
}

func (l *largeFile) write(b *Builder, p []byte, off int64) {
	if b.failure() == nil {
		b.fail(pathError("write", l.path, writeAll(l.fd, p, off)))
	}
	l.done(b)
}

func (l *largeFile) done(b *Builder) {
	if l.pieces.Add(-1) > 0 {
		return
	}
	err := b.failure()
	if err == nil {
		err = pathError("ftruncate", l.path, retry(func() error { return unix.Ftruncate(l.fd, l.size) }))
	}
	if err == nil {
		err = applyFd(l.fd, l.path, &l.meta, b.born(l.dir))
	}
	b.fail(closeFile(l.fd, l.path, err))
	b.vacate(l.dir, l.base)
}
