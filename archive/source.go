package archive

import (
	"crypto/sha256"
	"errors"
	"hash"
	"slices"

	"github.com/nsferry/nsferry/archive/tarfmt"
	"github.com/nsferry/nsferry/archive/tree"

	"golang.org/x/sys/unix"
)

// source is one entry and where its content comes from.
type source struct {
	header *tarfmt.Header
	from   origin
	at     int64  // raw offset of its headers in the archive that it comes from, or -1
	length int64  // of its headers
	smap   []byte // sparse map, the first bytes of the stored data
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
	seen unix.Statx_t
}

func (t treeFile) open() (content, error) { return tree.OpenFile(t.root, t.path, &t.seen) }

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

// read appends the part to buf, with header and padding, and returns the digest of the entry's content when this is its last part.
func (p *part) read(buf []byte) ([]byte, [32]byte, error) {
	var sum [32]byte
	buf = append(buf, p.header...)
	if p.header != nil && p.source.header.Type != tarfmt.Reg {
		return buf, sum, nil
	}
	var h hash.Hash
	if p.turn != nil {
		if h = <-p.turn.in; h == nil {
			close(p.turn.out)
			return buf, sum, errEarlierPart
		}
	}
	buf, h, err := p.data(buf, h)
	if p.turn != nil {
		if err != nil {
			close(p.turn.out)
		} else {
			p.turn.out <- h
		}
	}
	if err != nil || !p.last {
		return buf, sum, err
	}
	h.Sum(sum[:0])
	return append(buf, make([]byte, tarfmt.Padding(p.off+p.len))...), sum, nil
}

// data appends the part's stored data and hashes the content that it stands for; a nil h is begun.
func (p *part) data(buf []byte, h hash.Hash) ([]byte, hash.Hash, error) {
	if h == nil {
		h = sha256.New()
	}
	if p.source.header.Size == 0 {
		return buf, h, nil
	}
	f, err := p.from.open()
	if err != nil {
		return buf, h, err
	}
	defer f.Close()
	at := len(buf)
	buf = slices.Grow(buf, int(p.len))[:at+int(p.len)]
	if p.source.header.Sparse == nil {
		if err := f.ReadFull(buf[at:], p.off); err != nil {
			return buf, h, err
		}
		h.Write(buf[at:])
	} else if err := p.sparse(f, buf[at:], h); err != nil {
		return buf, h, err
	}
	return buf, h, f.Unchanged()
}

// sparse fills dst with stored bytes from p.off on: the map, then the segments one behind the other. The content
// that is hashed runs from the first byte behind the previous part's last one; a last part ends with the file.
func (p *part) sparse(f content, dst []byte, h hash.Hash) error {
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
			h.Write(piece)
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

func zeros(h hash.Hash, n int64) {
	for ; n > 0; n -= int64(len(zeroPage)) {
		h.Write(zeroPage[:min(n, int64(len(zeroPage)))])
	}
}
