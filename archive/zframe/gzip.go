package zframe

import (
	"fmt"
	"io"
	"time"

	"github.com/klauspost/pgzip"
)

// gzipBlock is the raw size of the pieces that are compressed in parallel. It is part of the output: another size, other bytes.
const gzipBlock = 1 << 20

// NewGzipWriter returns a writer of one gzip member, compressed on workers goroutines. Its bytes depend on level (1 to 9)
// and input alone: the header holds no name and no time. Close ends the member and leaves w open.
func NewGzipWriter(w io.Writer, workers, level int) (io.WriteCloser, error) {
	if level < 1 || level > 9 {
		return nil, fmt.Errorf("gzip level %d is not between 1 and 9", level)
	}
	z, err := pgzip.NewWriterLevel(w, level)
	if err != nil {
		return nil, fmt.Errorf("gzip writer: %w", err)
	}
	if err := z.SetConcurrency(gzipBlock, max(workers, 1)+1); err != nil {
		return nil, fmt.Errorf("gzip writer: %w", err)
	}
	z.ModTime = time.Unix(0, 0) // the field's zero is "none"; pgzip writes the zero time.Time as a date
	z.OS = 255                  // unknown, RFC 1952 §2.3.1: the same on every system
	return z, nil
}

// PadGzip returns the gzip member that NewGzipWriter wrote with at least n bytes, n below 64 KiB, for readers that want so many to
// tell a format: its header gets an extra field, which others skip (RFC 1952 §2.3.1.1).
func PadGzip(member []byte, n int) []byte {
	const head, extra, flagExtra = 10, 2 + 4, 4
	if len(member) >= n {
		return member
	}
	fill := max(n-len(member)-extra, 0)
	out := append(make([]byte, 0, n+extra), member[:head]...)
	out[3] |= flagExtra
	out = append(out, byte(fill+4), byte((fill+4)>>8), 'n', 's', byte(fill), byte(fill>>8))
	return append(append(out, make([]byte, fill)...), member[head:]...)
}
