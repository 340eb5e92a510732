package archive

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/nsferry/nsferry/archive/statindex"
	"github.com/nsferry/nsferry/archive/tarfmt"
	"github.com/nsferry/nsferry/archive/tree"

	"golang.org/x/sys/unix"
)

// source is one entry and where its content comes from.
type source struct {
	header *tarfmt.Header
	from   origin
	at     int64            // raw offset of its headers in the archive that it comes from, or -1
	length int64            // of its headers
	smap   []byte           // sparse map, the first bytes of the stored data
	seen   unix.Statx_t     // of an inode of a tree
	known  statindex.Record // from the index of the tree
	found  statindex.Flags  // what was found besides: for the next index
	whole  *whole           // of a large file whose digest is wanted before it is packed
	read   *atomic.Int64    // counts the bytes that are read of files
}

// digested tells whether the digest of a large file is had without reading all its parts in order.
func (s *source) digested() bool { return s.known.Has(statindex.Digest) || s.whole != nil }

// whole is the digest of a large file that is read from end to end for it, by whoever asks first.
type whole struct {
	once sync.Once
	sum  [32]byte
	err  error
}

// of returns the digest of s, which it may have to read.
func (w *whole) of(ctx context.Context, s *source) ([32]byte, error) {
	w.once.Do(func() {
		const step = 1 << 20
		h := sha256.New()
		buf := make([]byte, 0, step)
		stored := s.header.Stored()
		for off := int64(0); off < stored && w.err == nil; off += step {
			p := part{source: s, off: off, len: min(step, stored-off), last: off+step >= stored}
			if _, w.err = p.data(buf, h); w.err == nil {
				w.err = ctx.Err()
			}
		}
		h.Sum(w.sum[:0])
	})
	return w.sum, w.err
}

// origin is where the content of a file comes from.
type origin interface {
	open() (content, error)
}

// content is the content of a file, holes included.
type content interface {
	// ReadFull fills p from offset off.
	ReadFull(p []byte, off int64) error
	// Unchanged is an error when what was read may not be what is there now.
	Unchanged() error
	Close()
}

// treeFile is a file that a walk came by.
type treeFile struct {
	root *tree.Root
	path string
	seen *unix.Statx_t
}

func (t treeFile) open() (content, error) { return tree.OpenFile(t.root, t.path, t.seen) }

// turn passes the digest of a large entry from the worker of one part to that of the next, so that parts are read and
// compressed side by side but hashed in order. Workers take parts in order, so the one that is waited for always runs.
type turn struct {
	in, out chan hash.Hash
}

func newTurn() *turn {
	t := &turn{in: make(chan hash.Hash, 1), out: make(chan hash.Hash, 1)}
	t.in <- sha256.New()
	return t
}

func (t *turn) after() *turn { return &turn{in: t.out, out: make(chan hash.Hash, 1)} }

var errEarlierPart = errors.New("an earlier part of the file was not read")

// large tells whether the part's entry is spread over several frames.
func (p *part) large() bool { return p.off > 0 || !p.last }

// digest returns the digest of the entry's content as far as it is had without what content reads.
func (p *part) digest(ctx context.Context) (sum [32]byte, known bool, err error) {
	switch {
	case p.source.header.Type != tarfmt.Reg:
		return sum, true, nil
	case p.known.Has(statindex.Digest):
		return p.known.Digest, true, nil
	case p.whole != nil:
		sum, err = p.whole.of(ctx, p.source)
		return sum, err == nil, err
	}
	return sum, false, nil
}

// content appends the part's stored data to buf and returns the digest of all of the entry's content; zeros for a part
// behind which others come in turn.
func (p *part) content(ctx context.Context, buf []byte) ([]byte, [32]byte, error) {
	if p.source.header.Type != tarfmt.Reg || p.turn == nil && (p.large() || p.known.Has(statindex.Digest)) {
		sum, _, err := p.digest(ctx)
		if err == nil {
			buf, err = p.data(buf, io.Discard)
		}
		return buf, sum, err
	}
	var sum [32]byte
	h := sha256.New()
	if p.turn != nil {
		if h = <-p.turn.in; h == nil {
			close(p.turn.out)
			return buf, sum, errEarlierPart
		}
	}
	buf, err := p.data(buf, h)
	switch {
	case p.turn == nil:
	case err != nil:
		close(p.turn.out)
	default:
		p.turn.out <- h
	}
	if err == nil && p.last {
		h.Sum(sum[:0])
	}
	return buf, sum, err
}

// data appends the part's stored data and hashes the content that it stands for.
func (p *part) data(buf []byte, h io.Writer) ([]byte, error) {
	if p.source.header.Size == 0 {
		return buf, nil
	}
	f, err := p.from.open()
	if err != nil {
		return buf, err
	}
	defer f.Close()
	p.read.Add(p.len)
	at := len(buf)
	buf = slices.Grow(buf, int(p.len))[:at+int(p.len)]
	if p.source.header.Sparse == nil {
		if err := f.ReadFull(buf[at:], p.off); err != nil {
			return buf, err
		}
		_, _ = h.Write(buf[at:])
	} else if err := p.sparse(f, buf[at:], h); err != nil {
		return buf, err
	}
	return buf, f.Unchanged()
}

// sparse fills dst with stored bytes from p.off on: the map, then the segments one behind the other. The content
// that is hashed runs from the first byte behind the previous part's last one; a last part ends with the file.
func (p *part) sparse(f content, dst []byte, h io.Writer) error {
	lo, hi := p.off, p.off+p.len // the window of stored offsets
	at := int64(0)               // stored offset of the current piece
	if n := int64(len(p.smap)); lo < n {
		copy(dst, p.smap[lo:min(n, hi)])
	}
	at = int64(len(p.smap))
	end := int64(0) // of the previous segment in the file
	for _, s := range p.source.header.Sparse {
		a, b := max(at, lo), min(at+s.Length, hi)
		if at >= lo && at < hi {
			zeros(h, s.Offset-end)
		}
		if a < b {
			piece := dst[a-lo : b-lo]
			if err := f.ReadFull(piece, s.Offset+a-at); err != nil {
				return err
			}
			_, _ = h.Write(piece)
		}
		at, end = at+s.Length, s.Offset+s.Length
	}
	if p.last {
		zeros(h, p.source.header.Size-end)
	}
	return nil
}

// zeroPage is what holes read as.
var zeroPage [64 << 10]byte

func zeros(h io.Writer, n int64) {
	for ; n > 0; n -= int64(len(zeroPage)) {
		_, _ = h.Write(zeroPage[:min(n, int64(len(zeroPage)))])
	}
}
