package toc

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	"github.com/nsferry/nsferry/archive/zframe"
)

// ReadFrames returns the header and the frames' records of the table of contents of f, which are checked as a Reader does. What
// lies between them, the entries' lines, is not looked at: that takes a tenth of the time.
func ReadFrames(f *zframe.File) (h Header, frames []zframe.Frame, err error) {
	in, err := f.TOC()
	if err != nil {
		return h, nil, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	text, err := io.ReadAll(in)
	if err != nil {
		return h, nil, err
	}
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
