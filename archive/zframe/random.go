package zframe

import (
	"bufio"
	"container/list"
	"fmt"
	"io"
	"slices"
	"sort"
	"sync"
)

// Random reads a zstd stream of moderate frames, our own or pzstd's, at any raw offset. It keeps some decoded frames. It is
// safe for concurrent use.
type Random struct {
	r      io.ReaderAt
	spans  []Span
	starts []int64 // raw offset of each frame, and the end of the last one
	budget int64   // raw bytes of frames that are kept when nobody uses them
	stored Buffers
	raw    Buffers

	mu       sync.Mutex
	held     int64
	frames   map[int]*heldFrame
	idle     *list.List // of *heldFrame, the one used last in front
	decoders []*Decoder
}

// heldFrame is a frame in memory, or on its way there.
type heldFrame struct {
	number int
	ready  chan struct{} // closed when raw and err are set
	raw    []byte
	err    error
	users  int
	place  *list.Element // in idle; nil while it is used
}

// IsModerate tells whether the first frame of a zstd stream is one that Random takes.
func IsModerate(r io.Reader) (bool, error) {
	fr := &frameReader{br: bufio.NewReaderSize(r, 64<<10)}
	for {
		w, err := fr.next()
		if err != nil {
			return false, err
		}
		if w.skip >= 0 {
			if _, err := io.Copy(io.Discard, w); err != nil {
				return false, err
			}
			continue
		}
		if w.contentOr(0) > wholeRaw {
			return false, nil
		}
		_, done, err := w.collect(nil, wholeRaw, wholeRaw)
		return done, err
	}
}

// NewRandom returns a reader of the frames at spans, as Options.Frame told them. r stays the caller's. Beyond the frames in use
// it keeps budget bytes of frames.
func NewRandom(r io.ReaderAt, spans []Span, budget int64) *Random {
	x := &Random{r: r, spans: spans, starts: make([]int64, 1, len(spans)+1), budget: budget, frames: make(map[int]*heldFrame), idle: list.New()}
	for i, s := range spans {
		x.starts = append(x.starts, x.starts[i]+s.Raw)
	}
	return x
}

// at returns the number of the frame that holds the raw offset.
func (x *Random) at(off int64) int {
	return sort.Search(len(x.spans), func(i int) bool { return x.starts[i+1] > off })
}

// ReadAt implements io.ReaderAt for the raw stream.
func (x *Random) ReadAt(p []byte, off int64) (n int, err error) {
	for i := x.at(off); n < len(p); i++ {
		if i >= len(x.spans) {
			return n, io.EOF
		}
		f, err := x.take(i)
		if err == nil {
			n += copy(p[n:], f.raw[off+int64(n)-x.starts[i]:])
		}
		x.release(f)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// take returns frame i, decoded, which stays in memory until it is released.
func (x *Random) take(i int) (*heldFrame, error) {
	x.mu.Lock()
	f := x.frames[i]
	if f != nil {
		f.users++
		if f.place != nil {
			x.idle.Remove(f.place)
			f.place = nil
		}
		x.mu.Unlock()
		<-f.ready
		return f, f.err
	}
	f = &heldFrame{number: i, ready: make(chan struct{}), users: 1}
	x.frames[i] = f
	x.held += x.spans[i].Raw
	x.evict()
	x.mu.Unlock()
	f.raw, f.err = x.decode(i)
	close(f.ready)
	return f, f.err
}

func (x *Random) release(f *heldFrame) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if f.users--; f.users == 0 {
		f.place = x.idle.PushFront(f)
		x.evict()
	}
}

// evict forgets the frames that were not used for the longest time until the rest fits. x.mu is held.
func (x *Random) evict() {
	for x.held > x.budget && x.idle.Len() > 0 {
		f := x.idle.Remove(x.idle.Back()).(*heldFrame)
		delete(x.frames, f.number)
		x.held -= x.spans[f.number].Raw
		x.raw.Put(f.raw)
	}
}

func (x *Random) decode(i int) ([]byte, error) {
	s := x.spans[i]
	where := fmt.Sprintf("frame at offset %d", s.Offset)
	stored := x.stored.Get(int(s.Stored))[:s.Stored]
	defer x.stored.Put(stored)
	if err := readAt(x.r, stored, s.Offset); err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	d, err := x.decoder()
	if err != nil {
		return nil, err
	}
	raw, err := d.Decode(x.raw.Get(int(s.Raw)+decodeSlack), stored, s.Raw)
	x.mu.Lock()
	x.decoders = append(x.decoders, d)
	x.mu.Unlock()
	switch {
	case err != nil:
		return nil, &CorruptError{where, err}
	case int64(len(raw)) != s.Raw:
		return nil, corrupt(where, "holds %d bytes, and %d when it was read before", len(raw), s.Raw)
	}
	return raw, nil
}

func (x *Random) decoder() (*Decoder, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if n := len(x.decoders); n > 0 {
		d := x.decoders[n-1]
		x.decoders = x.decoders[:n-1]
		return d, nil
	}
	return NewDecoder()
}

// Stored appends to dst the stored bytes of the frame that begins at the raw offset off, holds exactly raw, and is as
// FORMAT §2 wants it: with content size and checksum. It returns nil when there is none.
func (x *Random) Stored(dst []byte, off int64, raw []byte) ([]byte, error) {
	i := x.at(off)
	if i == len(x.spans) || x.starts[i] != off || x.spans[i].Raw != int64(len(raw)) {
		return nil, nil
	}
	f, err := x.take(i)
	same := err == nil && slices.Equal(f.raw, raw)
	x.release(f)
	if !same {
		return nil, err
	}
	s := x.spans[i]
	had := len(dst)
	dst = slices.Grow(dst, int(s.Stored))[:had+int(s.Stored)]
	if err := readAt(x.r, dst[had:], s.Offset); err != nil {
		return nil, err
	}
	if h, err := parseHeader(dst[had:]); err != nil || h.skip >= 0 || h.content != s.Raw || !h.checksum {
		return nil, nil
	}
	return dst, nil
}

// Cost returns how many raw bytes are decoded, about, when the ranges are read in this order.
func (x *Random) Cost(ranges func(yield func(off, length int64))) (bytes int64) {
	model := NewRandom(nil, x.spans, x.budget)
	ranges(func(off, length int64) {
		for i := x.at(off); i < len(x.spans) && (length > 0 && x.starts[i] < off+length); i++ {
			if model.frames[i] == nil {
				bytes += x.spans[i].Raw
			}
			model.visit(i)
		}
	})
	return bytes
}

// visit does to the list what take and release do.
func (x *Random) visit(i int) {
	f := x.frames[i]
	if f == nil {
		f = &heldFrame{number: i}
		x.frames[i] = f
		x.held += x.spans[i].Raw
	} else {
		x.idle.Remove(f.place)
	}
	f.place = x.idle.PushFront(f)
	x.evict()
}
