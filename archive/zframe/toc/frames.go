package toc

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"io"

	"github.com/nsferry/nsferry/archive/zframe"
)

// ReadFrames returns the header and the frames' records of the table of contents of f, which are checked as a Reader does. What
// lies between them, the entries' lines, is not looked at: that takes a tenth of the time.
func ReadFrames(f *zframe.File) (Header, []zframe.Frame, error) {
	in, err := f.TOC()
	if err != nil {
		return Header{}, nil, err
	}
	return readFrames(f, in, 0)
}

// readFrames reads the table from in, whose text has about size bytes.
func readFrames(f *zframe.File, in io.ReadCloser, size int) (h Header, frames []zframe.Frame, err error) {
	defer func() { err = errors.Join(err, in.Close()) }()
	all := bytes.NewBuffer(make([]byte, 0, size+bytes.MinRead))
	if _, err := all.ReadFrom(in); err != nil {
		return h, nil, err
	}
	text := all.Bytes()
	r := &Reader{br: bufio.NewReader(bytes.NewReader(text)), spans: f.Frames()}
	if err := r.readHeader(f.Raw(), f.End()); err != nil {
		return h, nil, err
	}
	at := len(text)
	for range len(r.spans) + 1 { // the LF before the first of their lines
		at = max(bytes.LastIndexByte(text[:at], '\n'), 0)
	}
	r.br.Reset(bytes.NewReader(text[at+1:]))
	r.line = 1 + r.header.Entries
	if err := r.readFrames(); err != io.EOF {
		return h, nil, err
	}
	return r.header, r.frames, nil
}

// typicalRatio is about how many bytes of text there are for a compressed one.
const typicalRatio = 4

// Chunks are the zstd frames of a table of contents by the sha256 of their lines, for the Writer of one that is like it.
type Chunks map[[sha256.Size]byte][]byte

// ReadChunks is ReadFrames that also returns the table's own frames, in about as much memory as they take in f.
func ReadChunks(f *zframe.File) (h Header, frames []zframe.Frame, chunks Chunks, err error) {
	s := summed{chunks: make(Chunks)}
	in, stored, err := f.TOCFrames(s.frame)
	if err != nil {
		return h, nil, nil, err
	}
	s.ReadCloser, s.stored = in, stored
	h, frames, err = readFrames(f, &s, typicalRatio*len(stored))
	return h, frames, s.chunks, err
}

// summed sums up what is read of each frame of a table.
type summed struct {
	io.ReadCloser
	stored []byte
	chunks Chunks
	span   zframe.Span // the frame that comes next or is being read
	text   []byte      // what was read of it
}

func (s *summed) frame(span zframe.Span) { s.span, s.text = span, s.text[:0] }

func (s *summed) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if s.span.Raw >= 0 { // one that is not too large
		s.text = append(s.text, p[:n]...)
	}
	if s.span.Raw == int64(len(s.text)) {
		s.chunks[sha256.Sum256(s.text)] = s.stored[s.span.Offset:][:s.span.Stored]
	}
	return n, err
}
