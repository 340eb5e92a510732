package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

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
}

// openBase opens the archive in f for a writer whose frames are made by encoder. An error is the reason why it is of no use.
func openBase(f *os.File, encoder string, workers int) (*base, error) {
	framed, err := openFramed(f)
	if err != nil {
		return nil, fmt.Errorf("the base: %w", err)
	}
	head, frames, err := toc.ReadFrames(framed)
	switch {
	case err != nil:
		return nil, fmt.Errorf("the base: %w", err)
	case head.Encoder != encoder:
		return nil, fmt.Errorf("the base was compressed by %s, not %s", head.Encoder, encoder)
	}
	b := &base{
		file: f, framed: framed, frames: frames, at: make(map[[32]byte]int, len(frames)),
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

// reuse makes f a copy of the base's frame that has the same identity, and reports whether there is one and it is sound.
func (c *creator) reuse(ctx context.Context, f *frame, worker int) (bool, error) {
	if err := c.digests(ctx, f); err != nil {
		return false, err
	}
	f.identify()
	n, ok := c.base.at[*f.id]
	if !ok || c.base.frames[n].Raw != f.raw {
		return false, nil
	}
	bytes, err := c.base.check(n, worker, &c.pool, c.sink.(*framedSink).out.share.Load())
	if err != nil {
		f.damaged = err
		return false, nil
	}
	f.origin, f.bytes, f.stored, f.sum = n, bytes, c.base.frames[n].Stored, c.base.frames[n].Sum
	return true, nil
}

var errDamaged = errors.New("its sum differs")

// check looks at the sum of frame n. With sharing on, the bytes are only looked at, else they are returned in a buffer of the pool.
func (b *base) check(n, worker int, pool *zframe.Buffers, sharing bool) ([]byte, error) {
	fr := b.frames[n]
	if !sharing {
		stored, err := b.framed.ReadStored(n, pool.Get(int(fr.Stored)))
		if err == nil && sha256.Sum256(stored) != fr.Sum {
			err = errDamaged
		}
		if err != nil {
			pool.Put(stored)
			return nil, err
		}
		return stored, nil
	}
	if b.chunks[worker] == nil {
		b.chunks[worker] = make([]byte, 256<<10)
	}
	return nil, sound(b.file, b.framed.Frames()[n].Offset, fr, b.chunks[worker])
}

// sound checks that the stored bytes of frame fr lie at off of f.
func sound(f io.ReaderAt, off int64, fr zframe.Frame, buf []byte) error {
	h := sha256.New()
	n, err := io.CopyBuffer(h, io.NewSectionReader(f, off, fr.Stored), buf)
	switch {
	case err != nil:
		return err
	case n != fr.Stored || !bytes.Equal(h.Sum(nil), fr.Sum[:]):
		return errDamaged
	}
	return nil
}
