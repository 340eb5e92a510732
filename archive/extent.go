package archive

import (
	"errors"
	"fmt"
	"io"
	"sort"

	"github.com/nsferry/nsferry/archive/tarfmt"
)

// extent is the content of a file in a tar stream that can be read at any place.
type extent struct {
	stream io.ReaderAt
	path   string
	data   int64            // raw offset of the stored data
	segs   []tarfmt.Segment // of a sparse file; nil for a dense one
	stored []int64          // of each segment: its offset in the stored data
}

func newExtent(stream io.ReaderAt, inode *indexed, path string) *extent {
	x := &extent{stream: stream, path: path, data: inode.data, segs: inode.header.Sparse}
	off := int64(0)
	for _, s := range x.segs {
		x.stored = append(x.stored, off)
		off += s.Length
	}
	return x
}

func (x *extent) open() (content, error) { return x, nil }

// ReadFull implements content.
func (x *extent) ReadFull(p []byte, off int64) error {
	if x.segs == nil {
		return x.read(p, off)
	}
	i := sort.Search(len(x.segs), func(i int) bool { return x.segs[i].Offset+x.segs[i].Length > off })
	for len(p) > 0 {
		next := off + int64(len(p)) // the end of the hole that off is in
		if i < len(x.segs) {
			next = min(next, x.segs[i].Offset)
		}
		if n := next - off; n > 0 {
			clear(p[:n])
			p, off = p[n:], next
			continue
		}
		s := x.segs[i]
		n := min(int64(len(p)), s.Offset+s.Length-off)
		if err := x.read(p[:n], x.stored[i]+off-s.Offset); err != nil {
			return err
		}
		p, off = p[n:], off+n
		i++
	}
	return nil
}

// read fills p from an offset in the stored data.
func (x *extent) read(p []byte, off int64) error {
	n, err := x.stream.ReadAt(p, x.data+off)
	if n == len(p) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%s: %w", x.path, err)
}

// Unchanged implements content: that the archive is what it was is asked once, at the end.
func (*extent) Unchanged() error { return nil }

// Close implements content.
func (*extent) Close() {}
