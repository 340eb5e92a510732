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

// gzipLeast is the size of the smallest member that AppendGzipPadding makes: header, an empty extra field, no data, trailer.
const gzipLeast = 10 + 2 + 4 + 2 + 8

// AppendGzipPadding appends a member without data, of n bytes or a few more, that readers skip as they do between the members of
// a file (RFC 1952 §2.2, §2.3.1.1). It must stand behind others, and n must be less than 64 KiB.
func AppendGzipPadding(dst []byte, n int) []byte {
	extra := max(n-gzipLeast, 0)
	dst = append(dst, 0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255) // deflate, with extra field, of no time and no system
	dst = append(dst, byte(extra+4), byte((extra+4)>>8), 'n', 's', byte(extra), byte(extra>>8))
	dst = append(dst, make([]byte, extra)...)
	dst = append(dst, 3, 0) // the last block, with no data
	return append(dst, make([]byte, 8)...)
}
