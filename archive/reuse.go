package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/nsferry/nsferry/archive/statindex"
	"github.com/nsferry/nsferry/archive/zframe"
	"github.com/nsferry/nsferry/archive/zframe/toc"
)

// base is an archive whose frames may be copied.
type base struct {
	file   *os.File
	framed *zframe.File
	frames []zframe.Frame
	at     map[[32]byte]int   // the number of the frame with an identity
	raws   map[int64]struct{} // raw sizes of its frames
	chunks [][]byte           // a worker's buffer for looking at a frame
	known  *statindex.Index   // of CRCs
	lines  toc.Chunks         // of its table of contents
}

// opening is a base that is being opened while others begin their work. A nil one is that of no base.
type opening struct {
	done chan struct{}
	base *base
	err  error
}

func open(f func() (*base, error)) *opening {
	o := &opening{done: make(chan struct{})}
	go func() {
		defer close(o.done)
		if o.base, o.err = f(); o.err != nil {
			o.base = nil
		}
	}()
	return o
}

// get waits for the base. It is nil if there is none, or none of use, which the error then tells.
func (o *opening) get() (*base, error) {
	if o == nil {
		return nil, nil
	}
	<-o.done
	return o.base, o.err
}

// openBase opens the archive in f for a writer whose frames are made by encoder. An error is the reason why it is of no use.
func openBase(f *os.File, encoder string, workers int, known *statindex.Index) (*base, error) {
	framed, err := openFramed(f)
	if err != nil {
		return nil, fmt.Errorf("the base: %w", err)
	}
	head, frames, lines, err := toc.ReadChunks(framed)
	switch {
	case err != nil:
		return nil, fmt.Errorf("the base: %w", err)
	case head.Encoder != encoder:
		return nil, fmt.Errorf("the base was compressed by %s, not %s", head.Encoder, encoder)
	}
	b := &base{
		file: f, framed: framed, frames: frames, known: known, lines: lines, at: make(map[[32]byte]int, len(frames)),
		raws: make(map[int64]struct{}), chunks: make([][]byte, workers),
	}
	for i, fr := range frames {
		b.raws[fr.Raw] = struct{}{}
		if _, twice := b.at[fr.Identity]; !twice {
			b.at[fr.Identity] = i
		}
	}
	return b, nil
}

// mayHold tells whether some frame has that raw size.
func (b *base) mayHold(raw int64) bool {
	if b == nil {
		return false
	}
	_, ok := b.raws[raw]
	return ok
}

// find returns the number of a frame with that identity; likely, if it is one.
func (b *base) find(id [32]byte, likely int) (n int, ok bool) {
	if likely < len(b.frames) && b.frames[likely].Identity == id {
		return likely, true
	}
	n, ok = b.at[id]
	return n, ok
}

// reuse makes f a copy of the base's frame that has the same identity, and reports whether there is one and it is sound.
func (c *creator) reuse(ctx context.Context, f *frame, b *base, worker int) (bool, error) {
	if err := c.digests(ctx, f); err != nil {
		return false, err
	}
	f.identify()
	n, ok := b.find(*f.id, f.number)
	if !ok || b.frames[n].Raw != f.raw {
		return false, nil
	}
	bytes, crc, err := b.check(n, worker, &c.pool, c.sink.(*framedSink).out.share.Load())
	if err != nil {
		f.damaged = err
		return false, nil
	}
	f.origin, f.bytes, f.stored, f.sum = n, bytes, b.frames[n].Stored, b.frames[n].Sum
	f.crc = crc
	return true, nil
}

var errDamaged = errors.New("its sum differs")

// check looks at the sum of frame n, and returns its CRC. With sharing on, the bytes are only looked at, else they are returned in a
// buffer of the pool.
func (b *base) check(n, worker int, pool *zframe.Buffers, sharing bool) (stored []byte, crc uint32, err error) {
	fr, off := b.frames[n], b.framed.Frames()[n].Offset
	if b.chunks[worker] == nil {
		b.chunks[worker] = make([]byte, 128<<10)
	}
	if !sharing {
		stored = pool.Get(int(fr.Stored))[:fr.Stored]
	}
	if crc, err = b.sound(b.file, off, fr, b.chunks[worker], stored); err != nil {
		pool.Put(stored)
		return nil, 0, err
	}
	return stored, crc, nil
}

// sound checks that the stored bytes of frame fr lie at off of f, puts them into stored if it is not nil, and returns their CRC. It reads
// by pieces that stay in a core's cache until they are summed up.
func (b *base) sound(f io.ReaderAt, off int64, fr zframe.Frame, buf, stored []byte) (crc uint32, err error) {
	want, known := b.known.Frame(fr.Sum)
	h := sha256.New()
	for at := int64(0); at < fr.Stored; at += int64(len(buf)) {
		piece := buf[:min(int64(len(buf)), fr.Stored-at)]
		if stored != nil {
			piece = stored[at:][:len(piece)]
		}
		if _, err := f.ReadAt(piece, off+at); err != nil {
			return 0, err
		}
		crc = crc32.Update(crc, castagnoli, piece)
		if !known {
			h.Write(piece)
		}
	}
	if known && crc != want || !known && !bytes.Equal(h.Sum(nil), fr.Sum[:]) {
		return 0, errDamaged
	}
	return crc, nil
}

// endsWith tells whether tail is all that follows the frames.
func (b *base) endsWith(tail []byte) (bool, error) {
	have := make([]byte, len(tail)+1)
	n, err := b.file.ReadAt(have, b.framed.End())
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return bytes.Equal(have[:n], tail), nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)
