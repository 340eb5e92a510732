package toc

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/nsferry/nsferry/archive/zframe"
)

// Reader streams a table of contents. Every line is checked against the format, the lines before it and the seek table; what
// does not fit is a *zframe.CorruptError that names the line. Not safe for concurrent use.
type Reader struct {
	in     io.ReadCloser
	br     *bufio.Reader
	long   []byte // a line that is longer than br's buffer
	line   int64  // number of the line last read, from 1
	spans  []zframe.Span
	header Header
	left   int64 // entries still to come
	prev   Entry // Name and place of the entry before
	frames []zframe.Frame
	err    error // sticky
}

// Open starts to read the table of contents of f. The caller closes the Reader.
func Open(f *zframe.File) (*Reader, error) {
	in, err := f.TOC()
	if err != nil {
		return nil, err
	}
	r := &Reader{in: in, br: bufio.NewReaderSize(in, 256<<10), spans: f.Frames()}
	if err := r.readHeader(f.Raw(), f.End()); err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return r, nil
}

// ReadAll returns the whole table of contents of f.
func ReadAll(f *zframe.File) (c Contents, err error) {
	r, err := Open(f)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	c.Header = r.Header()
	c.Entries = make([]Entry, 0, min(c.Header.Entries, 1<<16)+1) // a header that lies costs no more than that
	for {
		c.Entries = append(c.Entries, Entry{})
		last := len(c.Entries) - 1
		switch err := r.Next(&c.Entries[last]); err {
		case nil:
		case io.EOF:
			c.Entries, c.Frames = c.Entries[:last], r.Frames()
			return c, nil
		default:
			return Contents{}, err
		}
	}
}

// Header returns the first line.
func (r *Reader) Header() Header { return r.header }

// Next reads the next entry into e, all of whose fields it sets; its strings and slices are the caller's. After the last entry it reads and
// checks the rest of the table and returns io.EOF.
func (r *Reader) Next(e *Entry) error {
	if r.err != nil {
		return r.err
	}
	if r.left == 0 {
		r.err = r.readFrames()
		return r.err
	}
	line, err := r.next()
	if err == nil {
		if err = parseEntry(line, e); err == nil {
			err = r.follow(e)
		}
		err = r.wrap(err)
	}
	r.left--
	r.err = err
	return err
}

// Frames returns the frames' records once Next has returned io.EOF, nil before.
func (r *Reader) Frames() []zframe.Frame {
	if r.err != io.EOF {
		return nil
	}
	return r.frames
}

// Close ends reading. The Reader must not be used afterwards.
func (r *Reader) Close() error { return r.in.Close() }

func (r *Reader) readHeader(raw, end int64) error {
	line, err := r.next()
	if err != nil {
		return err
	}
	h, err := parseHeader(line)
	switch {
	case err != nil:
	case h.Frames != int64(len(r.spans)) || h.Raw != raw || h.End != end:
		err = fmt.Errorf("%d frames, %d bytes raw, %d stored; the seek table says %d, %d and %d", h.Frames, h.Raw, h.End, len(r.spans), raw, end)
	case h.Entries > raw/tarBlock:
		err = fmt.Errorf("%d entries in %d bytes", h.Entries, raw)
	}
	r.header, r.left = h, h.Entries
	return r.wrap(err)
}

// follow checks that e may follow the entry before it and lies within its frame.
func (r *Reader) follow(e *Entry) error {
	first := r.left == r.header.Entries
	p := &r.prev
	switch {
	case e.Frame >= len(r.spans):
		return fmt.Errorf("entry in frame %d of %d", e.Frame, len(r.spans))
	case e.HeaderLen > r.spans[e.Frame].Raw-e.Offset:
		return fmt.Errorf("headers of %d bytes at %d in a frame of %d", e.HeaderLen, e.Offset, r.spans[e.Frame].Raw)
	case first && (e.Name != "." || e.Type != Dir || e.Frame != 0 || e.Offset != 0):
		return errors.New("the first entry is not the root directory at the start of the stream")
	case first:
	case e.Name == ".":
		return errors.New("a second root directory")
	case p.Name != "." && compareNames(p.Name, e.Name) >= 0:
		return fmt.Errorf("entry %q is not sorted behind %q", Escape(e.Name), Escape(p.Name))
	case e.Frame < p.Frame, e.Frame == p.Frame && e.Offset < p.Offset+p.HeaderLen:
		return fmt.Errorf("entry at %d in frame %d lies before the end of the one before it", e.Offset, e.Frame)
	}
	p.Name, p.Frame, p.Offset, p.HeaderLen = e.Name, e.Frame, e.Offset, e.HeaderLen
	return nil
}

// readFrames reads the frame lines and makes sure that nothing follows; io.EOF when all is well.
func (r *Reader) readFrames() error {
	frames := make([]zframe.Frame, 0, len(r.spans))
	for i, span := range r.spans {
		line, err := r.next()
		if err != nil {
			return err
		}
		n, f, err := parseFrame(line)
		switch {
		case err != nil:
		case n != int64(i):
			err = fmt.Errorf("line of frame %d where that of %d is due", n, i)
		case f.Raw != span.Raw || f.Stored != span.Stored:
			err = fmt.Errorf("frame %d has %d bytes raw, %d stored; the seek table says %d and %d", i, f.Raw, f.Stored, span.Raw, span.Stored)
		}
		if err != nil {
			return r.wrap(err)
		}
		frames = append(frames, f)
	}
	if _, err := r.br.ReadByte(); err != io.EOF {
		if err == nil {
			err = r.wrap(errors.New("something follows the last line"))
		}
		return err
	}
	r.frames = frames
	return io.EOF
}

// next returns the next line without its LF; it is valid until the next call. That there is none is corruption.
func (r *Reader) next() ([]byte, error) {
	r.line++
	line, err := r.br.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		r.long = r.long[:0]
		for err == bufio.ErrBufferFull && len(r.long) <= MaxLine {
			r.long = append(r.long, line...)
			line, err = r.br.ReadSlice('\n')
		}
		r.long = append(r.long, line...)
		line = r.long
	}
	switch {
	case err == io.EOF:
		return nil, r.wrap(errors.New("the table ends too early"))
	case len(line) > MaxLine:
		return nil, r.wrap(fmt.Errorf("longer than %d bytes", MaxLine))
	case err != nil:
		return nil, err
	}
	return line[:len(line)-1], nil
}

func (r *Reader) wrap(err error) error {
	if err == nil {
		return nil
	}
	return &zframe.CorruptError{Where: fmt.Sprintf("table of contents line %d", r.line), Err: err}
}
