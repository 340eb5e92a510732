package zframe

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// frameReader walks a zstd stream frame by frame without decoding it: frame and block headers tell where a frame ends.
type frameReader struct {
	br  *bufio.Reader
	off int64 // stored bytes taken from br
}

// walk is one frame on the way: Read yields its stored bytes, io.EOF at its end, ErrTruncated when the input ends first.
type walk struct {
	frameHeader
	fr    *frameReader
	start int64 // offset of the frame
	left  int64 // bytes of header, block or payload that may be passed on
	state walkState
	bound int64 // raw bytes at most, of the blocks met so far
	// failed is the error, other than io.EOF, that Read has returned: decoders do not always pass it on.
	failed error
}

type walkState uint8

const (
	inBlocks walkState = iota
	inLast             // the last block is being passed on; a checksum may follow
	inTail             // the last bytes of the frame
)

// next returns the next frame, io.EOF when there is none.
func (r *frameReader) next() (*walk, error) {
	head, err := r.br.Peek(frameHeaderMax)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if len(head) == 0 {
		return nil, io.EOF
	}
	h, err := parseHeader(head)
	switch {
	case errors.Is(err, errShort):
		return nil, ErrTruncated
	case err != nil:
		return nil, &CorruptError{fmt.Sprintf("frame at offset %d", r.off), err}
	}
	w := &walk{frameHeader: h, fr: r, start: r.off, left: int64(h.length)}
	if h.skip >= 0 {
		w.left += h.skip
		w.state = inTail
	}
	return w, nil
}

// Read passes on stored bytes of the frame, its header first.
func (w *walk) Read(p []byte) (n int, err error) {
	defer func() {
		if err != nil && err != io.EOF {
			w.failed = err
		}
	}()
	if w.left == 0 {
		if err := w.advance(); err != nil {
			return 0, err
		}
	}
	p = p[:min(int64(len(p)), w.left)]
	n, err = w.fr.br.Read(p)
	w.left -= int64(n)
	w.fr.off += int64(n)
	if err == io.EOF {
		err = ErrTruncated
	}
	return n, err
}

// advance looks at the next block header, which is then passed on together with its block.
func (w *walk) advance() error {
	switch {
	case w.state == inTail || w.state == inLast && !w.checksum:
		return io.EOF
	case w.state == inLast:
		w.state, w.left = inTail, 4
		return nil
	}
	head, err := w.fr.br.Peek(blockHeaderLen)
	if err == io.EOF {
		return ErrTruncated
	} else if err != nil {
		return err
	}
	blk, err := w.parseBlock(head)
	if err != nil {
		return &CorruptError{fmt.Sprintf("frame at offset %d", w.start), err}
	}
	w.left = int64(blockHeaderLen + blk.stored)
	w.bound += blk.bound
	if blk.last {
		w.state = inLast
	}
	return nil
}

// collect appends the rest of the frame to dst until its end, done, or until it has more than maxStored bytes or may hold more than
// maxRaw, not done: then Read yields what follows.
func (w *walk) collect(dst []byte, maxStored, maxRaw int64) (out []byte, done bool, err error) {
	for {
		if int64(len(dst)) > maxStored || min(w.bound, w.contentOr(w.bound)) > maxRaw {
			return dst, false, nil
		}
		if len(dst) == cap(dst) {
			dst = append(dst, make([]byte, max(64<<10, len(dst)))...)[:len(dst)]
		}
		n, err := w.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		switch {
		case err == io.EOF:
			return dst, true, nil
		case err != nil:
			return dst, false, err
		}
	}
}

func (w *walk) contentOr(n int64) int64 {
	if w.content >= 0 {
		return w.content
	}
	return n
}
