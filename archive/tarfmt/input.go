package tarfmt

import (
	"errors"
	"io"
)

// bufferSize is how much is read ahead at once. Reads of at least half of it bypass the buffer.
const bufferSize = 64 << 10

// input reads a stream in blocks and in bulk. The buffer serves headers and small files.
type input struct {
	r      io.Reader
	buf    []byte
	rd, wr int   // buf[rd:wr] is read from r but not consumed
	off    int64 // raw offset of buf[rd]
	err    error // what r said together with data, due when these are used up
}

// peek returns the next block without consuming it. It is valid until the next call of any method. The error is io.EOF
// when the stream ends here, and io.ErrUnexpectedEOF when it ends inside the block.
func (in *input) peek() (*block, error) {
	if in.wr-in.rd < BlockSize {
		if err := in.fill(BlockSize); err != nil {
			return nil, err
		}
	}
	return (*block)(in.buf[in.rd:]), nil
}

// block is peek, and consumes the block.
func (in *input) block() (*block, error) {
	b, err := in.peek()
	if err == nil {
		in.advance(BlockSize)
	}
	return b, err
}

func (in *input) advance(n int) {
	in.rd += n
	in.off += int64(n)
}

// fill reads until at least n bytes, n ≤ bufferSize, lie in one piece in the buffer.
func (in *input) fill(n int) error {
	if in.buf == nil {
		in.buf = make([]byte, bufferSize)
	}
	if in.rd == in.wr {
		in.rd, in.wr = 0, 0
	}
	if len(in.buf)-in.rd < n {
		in.wr = copy(in.buf, in.buf[in.rd:in.wr])
		in.rd = 0
	}
	for idle := 0; in.wr-in.rd < n && in.err == nil; idle++ {
		var k int
		k, in.err = in.r.Read(in.buf[in.wr:])
		if in.wr += k; k > 0 {
			idle = 0
		} else if idle > 100 {
			in.err = io.ErrNoProgress
		}
	}
	switch {
	case in.wr-in.rd >= n:
		return nil
	case errors.Is(in.err, io.EOF) && in.wr > in.rd:
		return io.ErrUnexpectedEOF
	}
	return in.err
}

// read reads up to len(p) > 0 bytes, straight from the stream when the buffer is empty and p is large.
func (in *input) read(p []byte) (int, error) {
	if in.rd == in.wr {
		if len(p) >= bufferSize/2 && in.err == nil {
			n, err := in.r.Read(p)
			in.off += int64(n)
			return n, err
		}
		if err := in.fill(1); err != nil {
			return 0, err
		}
	}
	n := copy(p, in.buf[in.rd:in.wr])
	in.advance(n)
	return n, nil
}

// skip consumes n bytes; io.EOF or io.ErrUnexpectedEOF when there are fewer. What is long is sought over where r can
// seek: the end of the stream then shows at the next read.
func (in *input) skip(n int64) error {
	for n > 0 {
		if in.rd == in.wr {
			if n > bufferSize && in.seek(n) {
				return nil
			}
			if err := in.fill(1); err != nil {
				return err
			}
		}
		k := int(min(n, int64(in.wr-in.rd)))
		in.advance(k)
		n -= int64(k)
	}
	return nil
}

// seek moves r forward by n bytes, if it is something that can (pipes have the method, too, and fail).
func (in *input) seek(n int64) bool {
	s, ok := in.r.(io.Seeker)
	if !ok || in.err != nil {
		return false
	}
	if at, err := s.Seek(n, io.SeekCurrent); err != nil || at < n {
		return false // tapes succeed and stay where they are
	}
	in.off += n
	return true
}
