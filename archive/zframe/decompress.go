package zframe

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"

	"github.com/klauspost/pgzip"
)

// Kind is the format of an archive's outer layer.
type Kind uint8

// The formats that Decompress tells apart.
const (
	KindUnknown Kind = iota
	KindTar          // not compressed
	KindZstd         // of any make, also with a skippable frame first
	KindGzip
	KindXz
	KindBzip2
)

func (k Kind) String() string {
	return [...]string{"unknown", "tar", "zstd", "gzip", "xz", "bzip2"}[k]
}

// ratioSlack is the raw size from which on Options.MaxRatio is looked at.
const ratioSlack = 1 << 20

// Decompress finds out by its first bytes, never by a name, how r is compressed and returns the tar stream in it.
// It reads ahead of need, in other goroutines, until Close has returned; r stays the caller's.
//
// Errors while reading: ErrTruncated, *CorruptError, *LimitError, or r's. Empty input is ErrTruncated, input
// of no known kind ErrUnknownFormat; both come with KindUnknown and no reader.
func Decompress(r io.Reader, o Options) (io.ReadCloser, Kind, error) {
	o = o.withDefaults()
	in := &counter{r: r}
	br := bufio.NewReaderSize(in, 64<<10)
	head, err := br.Peek(tarBlock)
	if err != nil && err != io.EOF {
		return nil, KindUnknown, err
	}
	if len(head) == 0 {
		return nil, KindUnknown, fmt.Errorf("empty input: %w", ErrTruncated)
	}
	out := &limited{opt: o, in: in}
	kind := sniff(head)
	err = nil // fewer than 512 bytes are no error yet
	switch kind {
	case KindTar:
		out.r = br
	case KindZstd:
		z := NewParallelReader(br, o)
		out.r, out.close = z, z.Close
	case KindGzip:
		err = out.openGzip(br)
	case KindXz:
		out.r, err = newXzReader(br, o.MaxWindow)
	case KindBzip2:
		out.r = bzip2.NewReader(br)
	default:
		return nil, KindUnknown, ErrUnknownFormat
	}
	if err != nil {
		return nil, KindUnknown, classify(kind, in, unexpected(err))
	}
	out.kind = kind
	return out, kind, nil
}

// Sniff tells how r is compressed by its first bytes, as Decompress does. It reads no more than these, and r is as good as
// before.
func Sniff(r io.ReaderAt) (Kind, error) {
	var head [tarBlock]byte
	n, err := r.ReadAt(head[:], 0)
	if err != nil && err != io.EOF {
		return KindUnknown, err
	}
	return sniff(head[:n]), nil
}

// sniff tells the format by the first bytes; head has up to 512 of them.
func sniff(head []byte) Kind {
	switch {
	case bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")):
		return KindZstd
	case len(head) >= 4 && head[0]&0xF0 == 0x50 && string(head[1:4]) == "\x2a\x4d\x18":
		return KindZstd
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		return KindGzip
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")):
		return KindXz
	case len(head) >= 4 && string(head[:3]) == "BZh" && head[3] >= '1' && head[3] <= '9':
		return KindBzip2
	case isTar(head):
		return KindTar
	}
	return KindUnknown
}

// isTar tells whether head is a tar header with a valid checksum, signed or not as old tars had it, or the first block of an empty archive.
func isTar(head []byte) bool {
	if len(head) < tarBlock {
		return false
	}
	var unsigned, signed int64
	zero := true
	for i, c := range head[:tarBlock] {
		zero = zero && c == 0
		if i >= 148 && i < 156 {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c))
	}
	if zero {
		return true
	}
	sum, err := strconv.ParseInt(string(bytes.Trim(head[148:156], " \x00")), 8, 64)
	return err == nil && (sum == unsigned || sum == signed)
}

// counter counts what was read, and keeps the error that was no end of file. One goroutine reads, others may look.
type counter struct {
	r   io.Reader
	n   atomic.Int64
	err atomic.Pointer[error]
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	if err != nil && err != io.EOF {
		c.err.Store(&err)
	}
	return n, err
}

// limited holds a decompressor to the limits and its errors to our types.
type limited struct {
	r     io.Reader
	close func() error
	kind  Kind
	opt   Options
	in    *counter
	raw   int64
	err   error // sticky
}

func (l *limited) openGzip(r io.Reader) error {
	z, err := pgzip.NewReaderN(r, 256<<10, 4)
	if err != nil {
		return err
	}
	// Its Close ends the read-ahead and repeats an error that Read has returned, or would have.
	l.r, l.close = z, func() error { _ = z.Close(); return nil }
	return nil
}

func (l *limited) Read(p []byte) (int, error) {
	if l.err != nil {
		return 0, l.err
	}
	n, err := l.r.Read(p)
	l.raw += int64(n)
	switch {
	case l.opt.MaxRaw > 0 && l.raw > l.opt.MaxRaw:
		l.err = &LimitError{"raw size", l.opt.MaxRaw}
	case l.opt.MaxRatio > 0 && l.raw > ratioSlack && (l.raw-ratioSlack)/l.opt.MaxRatio > l.in.n.Load():
		l.err = &LimitError{"ratio", l.opt.MaxRatio}
	case err != nil:
		l.err = classify(l.kind, l.in, err)
	}
	return n, l.err
}

func (l *limited) Close() error {
	if l.err == nil || l.err == io.EOF {
		l.err = errors.New("read of a closed archive")
	}
	if l.close == nil {
		return nil
	}
	return l.close()
}

// classify gives the errors of the decompressors our types. An error of the input itself stays what it is.
func classify(kind Kind, in *counter, err error) error {
	var (
		bad   *CorruptError
		limit *LimitError
		lost  = in.err.Load()
	)
	switch {
	case err == io.EOF, errors.Is(err, ErrTruncated), errors.As(err, &bad), errors.As(err, &limit):
		return err
	case lost != nil:
		return *lost
	case errors.Is(err, io.ErrUnexpectedEOF):
		return ErrTruncated
	}
	return &CorruptError{kind.String() + " stream", err}
}
