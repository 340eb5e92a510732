package tree

import (
	"context"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Copier makes inodes of one tree again in another, through a Builder: type, content with its holes, and all that Meta holds.
// What are names of one inode there become names of one inode. One goroutine uses it.
type Copier struct {
	// Takes tells which attributes are carried over; nil is all.
	Takes func(key string) bool
	// Content, if not nil, copies what is in a file. Several workers call it at a time.
	Content func(dst, src *os.File) error

	from  *Root
	b     *Builder
	dirs  map[string]bool  // made by Linked
	first map[inode]string // of an inode with several names, the one that was made first
}

// NewCopier copies from the tree at root, which stays the caller's and must stay open until b is closed.
func NewCopier(root *os.File, b *Builder) *Copier {
	return &Copier{from: NewRoot(root), b: b, dirs: map[string]bool{}, first: map[inode]string{}}
}

// Copy makes what Walk came by at e. The directory that it is in must have been made before.
func (c *Copier) Copy(ctx context.Context, e *Entry) error {
	if e.Type() == unix.S_IFDIR {
		m, err := c.meta(e)
		if err != nil {
			return err
		}
		return c.b.Dir(ctx, e.Path, m)
	}
	if e.Stat.Nlink > 1 {
		id := inode{e.Device(), e.Stat.Ino}
		if first, ok := c.first[id]; ok {
			return c.b.Link(ctx, e.Path, first)
		}
		c.first[id] = e.Path
	}
	m, err := c.meta(e)
	if err != nil {
		return err
	}
	switch e.Type() {
	case unix.S_IFREG:
		return c.file(ctx, e, m)
	case unix.S_IFLNK:
		target, err := e.Readlink()
		if err != nil {
			return err
		}
		return c.b.Symlink(ctx, e.Path, target, m)
	}
	return c.b.Node(ctx, e.Path, e.Type(), e.Stat.Rdev_major, e.Stat.Rdev_minor, m)
}

// Root gives the new tree's root the metadata of the old one's.
func (c *Copier) Root(ctx context.Context) error { return c.at(ctx, ".") }

// Linked makes one inode at all its names, and the directories which that takes.
func (c *Copier) Linked(ctx context.Context, names []string) error {
	for _, name := range names {
		dir := ""
		for part := range strings.SplitSeq(path.Dir(name), "/") {
			if dir = path.Join(dir, part); dir == "." || c.dirs[dir] {
				continue
			}
			if err := c.at(ctx, dir); err != nil {
				return err
			}
			c.dirs[dir] = true
		}
		if err := c.at(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// at copies what is at a path of the old tree.
func (c *Copier) at(ctx context.Context, name string) error {
	e := Entry{Path: name, Dir: c.from.Fd(), Base: "."}
	if name != "." {
		dir, base, err := c.from.OpenParent(name)
		if err != nil {
			return pathError("openat", name, err)
		}
		defer unix.Close(dir)
		e.Dir, e.Base = dir, base
	}
	if err := e.stat(); err != nil {
		return err
	}
	return c.Copy(ctx, &e)
}

func (c *Copier) meta(e *Entry) (Meta, error) {
	s := &e.Stat
	m := Meta{Mode: uint32(s.Mode) & 0o7777, UID: s.Uid, GID: s.Gid, ModTime: unix.Timespec{Sec: s.Mtime.Sec, Nsec: int64(s.Mtime.Nsec)}}
	attrs, err := e.Xattrs()
	if err != nil {
		return m, err
	}
	for _, x := range attrs {
		if c.Takes == nil || c.Takes(x.Key) {
			m.Xattrs = append(m.Xattrs, x)
		}
	}
	return m, nil
}

// file copies a regular file: through Content in a worker, or by reading it here.
func (c *Copier) file(ctx context.Context, e *Entry, m Meta) error {
	seen, name := e.Stat, e.Path // what follows may run when e is another one already
	if c.Content != nil {
		return c.b.Fill(ctx, name, m, func(dst *os.File) error {
			f, err := OpenFile(c.from, name, &seen)
			if err != nil {
				return err
			}
			src := os.NewFile(uintptr(f.fd), name)
			defer src.Close()
			return c.Content(dst, src)
		})
	}
	f, err := OpenFile(c.from, e.Path, &seen)
	if err != nil {
		return err
	}
	defer f.Close()
	segs, err := f.Segments(HoleUnit)
	if err != nil {
		return err
	}
	size := int64(seen.Size)
	left := []Segment{{0, size}}
	if segs != nil {
		left = slices.Clone(segs)
	}
	return c.b.File(ctx, e.Path, m, size, segs, &segmentReader{f: f, left: left})
}

// segmentReader reads the segments of a file one after the other.
type segmentReader struct {
	f    *File
	left []Segment
}

func (r *segmentReader) Read(p []byte) (int, error) {
	for len(r.left) > 0 && r.left[0].Length == 0 {
		r.left = r.left[1:]
	}
	if len(r.left) == 0 {
		return 0, io.EOF
	}
	s := &r.left[0]
	p = p[:min(int64(len(p)), s.Length)]
	if err := r.f.ReadFull(p, s.Offset); err != nil {
		return 0, err
	}
	s.Offset, s.Length = s.Offset+int64(len(p)), s.Length-int64(len(p))
	return len(p), nil
}
