package tarfmt

import (
	"errors"
	"fmt"
	"io"
)

// ErrTruncated says that the stream ends before its end-of-archive blocks: inside a header, inside data, or between entries.
var ErrTruncated = errors.New("tar stream is truncated")

// Limits bound what a hostile archive can make a Reader keep in memory. Zero values stand for the defaults.
type Limits struct {
	// HeaderBytes bounds the headers of one entry (pax and long names included), and all global pax headers
	// together. Default 8 MiB: Linux allows 64 KiB for one xattr and no more than 64 KiB of names.
	HeaderBytes int64
	// SparseSegments bounds the map of one sparse file. Default 1<<20, which takes 16 MiB.
	SparseSegments int
}

func (l Limits) withDefaults() Limits {
	if l.HeaderBytes == 0 {
		l.HeaderBytes = 8 << 20
	}
	if l.SparseSegments == 0 {
		l.SparseSegments = 1 << 20
	}
	return l
}

// Reader reads a tar stream entry by entry. It is not safe for concurrent use, and reads ahead of what it returns.
type Reader struct {
	in     input
	lim    Limits
	err    error // latched: after the first error of Next there is nothing to resynchronise on
	last   string
	start  int64  // raw offset of the entry's first header
	raw    []byte // header blocks of the entry
	left   int64  // stored data not read yet
	skip   int64  // what to skip after it: padding, data that nobody may read
	global paxState
	spent  int64 // bytes of global headers
}

// NewReader returns a Reader of the uncompressed tar stream r. It never closes r.
func NewReader(r io.Reader, l Limits) *Reader {
	return &Reader{in: input{r: r}, lim: l.withDefaults()}
}

// Next skips what is unread of the current entry and returns the next one; the caller owns the header. At the end of the
// archive, after two zero blocks, the error is io.EOF. A stream that ends elsewhere gives ErrTruncated. Any error is final.
func (r *Reader) Next() (*Header, error) {
	if r.err != nil {
		return nil, r.err
	}
	h, err := r.next()
	switch {
	case err == io.EOF:
		r.err = io.EOF
		return nil, r.err
	case err != nil:
		r.left, r.skip = 0, 0
		if h != nil && h.Name != "" {
			r.err = fmt.Errorf("tar entry %q at offset %d: %w", h.Name, r.start, err)
		} else {
			r.err = fmt.Errorf("tar header at offset %d (after entry %q): %w", r.start, r.last, err)
		}
		return nil, r.err
	}
	r.last = h.Name
	return h, nil
}

// Read reads the current entry's stored data: the content, or for a sparse file the data segments one after the other
// (the map is consumed already). io.EOF at the end of the entry, ErrTruncated when the stream ends earlier.
func (r *Reader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := r.in.read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	if err == nil || (n > 0 && errors.Is(err, io.EOF)) {
		return n, nil
	}
	return n, fmt.Errorf("tar entry %q: %w", r.last, truncated(err))
}

// Remaining returns how many bytes Read will still give for the current entry.
func (r *Reader) Remaining() int64 { return r.left }

// Offset returns the raw offset in the stream of the current entry's first header. Global headers and volume labels
// before it belong to no entry.
func (r *Reader) Offset() int64 { return r.start }

// Consumed returns the raw offset of what will be read next, by Read or else by Next.
func (r *Reader) Consumed() int64 { return r.in.off }

// RawHeader returns the header blocks of the current entry as they are in the stream, from Offset to the stored data
// (for old GNU sparse files: to the sparse extension blocks). It is valid until Next is called.
func (r *Reader) RawHeader() []byte { return r.raw }

// TrailingGarbage reads what follows the end-of-archive blocks and tells whether anything but zeros is there; tars pad
// their output with zero blocks. It stops at the first other byte. It is meant for after Next has returned io.EOF;
// Consumed then tells whether even zeros followed.
func (r *Reader) TrailingGarbage() (bool, error) {
	if r.err != io.EOF {
		return false, errors.New("tar: internal error: TrailingGarbage before the end of the archive")
	}
	for {
		switch err := r.in.fill(1); {
		case err == io.EOF:
			return false, nil
		case err != nil:
			return false, err
		}
		for r.in.rd < r.in.wr {
			if r.in.buf[r.in.rd] != 0 {
				return true, nil
			}
			r.in.advance(1)
		}
	}
}

// truncated turns the two ends of a stream into ErrTruncated.
func truncated(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrTruncated
	}
	return err
}

// pending is what the extension headers before an entry have said about it.
type pending struct {
	pax                paxState
	longName, longLink string
	found              bool
	bad                error // in a record; kept until the name of the entry is known
}

// next reads headers up to and including one of a real entry. The header it returns with an error has at most a name.
func (r *Reader) next() (*Header, error) {
	if err := r.in.skip(r.left + r.skip); err != nil {
		return &Header{Name: r.last}, truncated(err)
	}
	r.left, r.skip = 0, 0
	r.begin()
	var p pending
	for {
		b, err := r.in.block()
		if err != nil {
			return nil, truncated(err)
		}
		if *b == (block{}) {
			if p.found {
				return nil, errors.New("extension header without an entry")
			}
			return nil, r.end()
		}
		if err := b.verify(); err != nil {
			return nil, err
		}
		if !p.found && len(r.raw) == 0 {
			p.pax = r.global
		}
		r.raw = append(r.raw, b[:]...)
		entry, err := r.extension(&p, b[typeflag])
		if err != nil {
			return nil, err
		}
		if entry {
			return r.entry(&p)
		}
	}
}

// begin forgets the headers read so far: the next block is the first one of an entry.
func (r *Reader) begin() {
	r.raw = r.raw[:0]
	r.start = r.in.off
}

// end reads the second of the two end-of-archive blocks.
func (r *Reader) end() error {
	b, err := r.in.block()
	if err != nil {
		return truncated(err)
	}
	if *b != (block{}) {
		return errors.New("single zero block inside the archive")
	}
	return io.EOF
}
