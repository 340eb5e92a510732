package archive

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"

	"github.com/nsferry/nsferry/archive/tree"
)

// contentSum passes on the data of a file and sums up its content, holes included.
type contentSum struct {
	ctx  context.Context // of the one call that this value lives in
	in   io.Reader
	hash hash.Hash
	segs []tree.Segment // nil: dense
	size int64
	at   int64 // how much of the content is summed up
}

// newContentSum sums up a file of size bytes whose data, that of segs, come from in.
func newContentSum(ctx context.Context, in io.Reader, size int64, segs []tree.Segment) *contentSum {
	return &contentSum{ctx: ctx, in: in, hash: sha256.New(), segs: segs, size: size}
}

func (c *contentSum) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	for data := p[:n]; len(data) > 0; {
		k := len(data)
		if c.segs != nil {
			if len(c.segs) == 0 {
				return 0, errors.New("more data than the map of the file has room for")
			}
			s := c.segs[0]
			if err := c.zeros(s.Offset); err != nil {
				return 0, err
			}
			k = int(min(int64(k), s.Offset+s.Length-c.at))
			if c.at+int64(k) == s.Offset+s.Length {
				c.segs = c.segs[1:]
			}
		}
		_, _ = c.hash.Write(data[:k]) // never fails
		c.at += int64(k)
		data = data[k:]
	}
	return n, err
}

// zeros sums up a hole.
func (c *contentSum) zeros(to int64) error {
	for c.at < to {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		n := min(to-c.at, int64(len(zeroPage)))
		_, _ = c.hash.Write(zeroPage[:n])
		c.at += n
	}
	return nil
}

// finish returns the sum when all of the data was read.
func (c *contentSum) finish() (sum [32]byte, err error) {
	err = c.zeros(c.size)
	c.hash.Sum(sum[:0])
	return sum, err
}
