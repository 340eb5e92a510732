package zframe

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// File is an archive opened from its end. It is safe for concurrent use.
type File struct {
	r      io.ReaderAt
	frames []Span
	toc    Span
	stored Buffers

	mu   sync.Mutex
	idle []*Decoder
}

// Open checks the tail of an archive of size bytes: footer, seek table, sizes that add up to the file exactly, a table of
// contents where the seek table says. r stays the caller's and must outlive the File.
//
// The error is ErrNotSeekable for a file without our tail that does not bear our mark either, ErrTruncated for one
// that does or that ends within its first bytes, *CorruptError for a damaged tail (test with errors.Is and errors.As), or r's.
func Open(r io.ReaderAt, size int64) (*File, error) {
	spans, found, err := readTail(r, size)
	if err == nil {
		last := len(spans) - 1
		return &File{r: r, frames: spans[:last:last], toc: spans[last]}, nil
	}
	if bad := (*CorruptError)(nil); !errors.As(err, &bad) {
		return nil, err
	}
	marked, markErr := hasMark(io.NewSectionReader(r, 0, size))
	switch {
	case markErr != nil:
		return nil, markErr
	case !marked:
		return nil, fmt.Errorf("%w: %w", ErrNotSeekable, err)
	case !found:
		return nil, ErrTruncated
	}
	return nil, err
}

// readTail reads and checks the seek table and the header of the table of contents. found tells whether the file ends
// with the footer of a seek table of any make.
func readTail(r io.ReaderAt, size int64) (spans []Span, found bool, err error) {
	if size < skipHeaderLen+seekFooterLen {
		return nil, false, corrupt("seek table", "is missing")
	}
	var footer [seekFooterLen]byte
	if err := readAt(r, footer[:], size-seekFooterLen); err != nil {
		return nil, false, err
	}
	frames, found, err := parseFooter(footer[:])
	if err != nil {
		return nil, found, err
	}
	n := seekTableLen(frames)
	if n > size {
		return nil, true, corrupt("seek table", "%d frames in a file of %d bytes", frames, size)
	}
	table := make([]byte, n)
	if err := readAt(r, table, size-n); err != nil {
		return nil, true, err
	}
	spans, err = ParseSeekTable(table)
	if err != nil {
		return nil, true, err
	}
	toc := spans[len(spans)-1]
	if toc.Offset+toc.Stored != size-n {
		return nil, true, corrupt("seek table", "frames of %d bytes in a file of %d", toc.Offset+toc.Stored, size-n)
	}
	if toc.Stored < skipHeaderLen+sha256.Size {
		return nil, true, corrupt("table of contents", "has %d bytes", toc.Stored)
	}
	var head [skipHeaderLen]byte
	if err := readAt(r, head[:], toc.Offset); err != nil {
		return nil, true, err
	}
	if binary.LittleEndian.Uint32(head[:]) != magicTOC || int64(binary.LittleEndian.Uint32(head[4:])) != toc.Stored-skipHeaderLen {
		return nil, true, corrupt("table of contents", "is not where the seek table says")
	}
	return spans, true, nil
}

// readAt fills b; the end of the file within it is ErrTruncated: the file was cut while it was read.
func readAt(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == io.EOF {
		return ErrTruncated
	}
	return err
}

// Frames returns where the frames of the tar stream lie, in order. The caller must not change the slice.
func (f *File) Frames() []Span { return f.frames }

// End returns the offset at which the table of contents starts, which is the stored size of the tar stream.
func (f *File) End() int64 { return f.toc.Offset }

// Raw returns the size of the tar stream in bytes.
func (f *File) Raw() (sum int64) {
	for _, s := range f.frames {
		sum += s.Raw
	}
	return sum
}

// ReadStored appends the stored bytes of frame i to dst, unchecked: for sums, and for copying frames between archives.
func (f *File) ReadStored(i int, dst []byte) ([]byte, error) {
	s := f.frames[i]
	had := len(dst)
	dst = append(dst, make([]byte, s.Stored)...)
	if err := readAt(f.r, dst[had:], s.Offset); err != nil {
		return dst[:had], fmt.Errorf("frame %d: %w", i, err)
	}
	return dst, nil
}

// ReadFrame appends the raw bytes of frame i to dst. They have passed the frame's own checksum and have the size that
// the seek table tells; anything else is a *CorruptError.
func (f *File) ReadFrame(i int, dst []byte) ([]byte, error) {
	stored, err := f.ReadStored(i, f.stored.Get(int(f.frames[i].Stored)))
	defer func() { f.stored.Put(stored) }()
	if err != nil {
		return dst, err
	}
	return f.Decode(i, stored, dst)
}

// Decode appends the raw bytes of frame i, whose stored bytes the caller has read with ReadStored, to dst, with ReadFrame's checks.
func (f *File) Decode(i int, stored, dst []byte) ([]byte, error) {
	d, err := f.decoder()
	if err != nil {
		return dst, err
	}
	defer f.release(d)
	want := f.frames[i].Raw
	out, err := d.Decode(dst, stored, want)
	if err != nil {
		return dst, &CorruptError{fmt.Sprintf("frame %d", i), err}
	}
	if got := int64(len(out) - len(dst)); got != want {
		return dst, corrupt(fmt.Sprintf("frame %d", i), "holds %d bytes, the seek table says %d", got, want)
	}
	return out, nil
}

// tocWindow is the largest zstd window in a table of contents: its longest line is 16 MiB (FORMAT §3).
const tocWindow = 32 << 20

// TOC returns the lines of the table of contents as a stream that is decoded on up to two goroutines, after its sum
// was checked. The caller closes it.
func (f *File) TOC() (io.ReadCloser, error) {
	stream, err := f.checkTOC(io.Discard)
	if err != nil {
		return nil, err
	}
	return readTOC(stream, nil), nil
}

// TOCFrames is TOC for who also wants the table's zstd frames, which lie one behind the other in stored: frame is told of each, before
// its lines are read, where it lies there.
func (f *File) TOCFrames(frame func(Span)) (in io.ReadCloser, stored []byte, err error) {
	var b bytes.Buffer
	if _, err := f.checkTOC(&b); err != nil {
		return nil, nil, err
	}
	return readTOC(bytes.NewReader(b.Bytes()), frame), b.Bytes(), nil
}

func readTOC(stored io.Reader, frame func(Span)) io.ReadCloser {
	return NewParallelReader(stored, Options{Workers: 2, MaxWindow: tocWindow, Frame: frame})
}

// checkTOC compares the sum of the table of contents, writes it to w on the way and returns it, rewound.
func (f *File) checkTOC(w io.Writer) (*io.SectionReader, error) {
	const head = skipHeaderLen + sha256.Size
	var want [sha256.Size]byte
	if err := readAt(f.r, want[:], f.toc.Offset+skipHeaderLen); err != nil {
		return nil, err
	}
	stream := io.NewSectionReader(f.r, f.toc.Offset+head, f.toc.Stored-head)
	h := sha256.New()
	if n, err := io.CopyBuffer(io.MultiWriter(h, w), stream, make([]byte, 256<<10)); err != nil {
		return nil, err
	} else if n != stream.Size() {
		return nil, ErrTruncated
	}
	if !bytes.Equal(h.Sum(nil), want[:]) {
		return nil, corrupt("table of contents", "sha256 differs")
	}
	_, err := stream.Seek(0, io.SeekStart)
	return stream, err
}

func (f *File) decoder() (*Decoder, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.idle); n > 0 {
		d := f.idle[n-1]
		f.idle = f.idle[:n-1]
		return d, nil
	}
	return NewDecoder()
}

func (f *File) release(d *Decoder) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.idle = append(f.idle, d)
}
