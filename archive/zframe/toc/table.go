package toc

import (
	"bytes"
	"errors"
	"io"

	"github.com/nsferry/nsferry/archive/zframe"
)

// Table is a table of contents in memory, as text: for looking up a few names, which is much quicker than parsing all
// lines. Only the lines that are asked for are checked; use Reader where all of it has to be right.
type Table struct {
	lines []byte
	spans []zframe.Span
}

// Load reads the table of contents of f: about 170 bytes an entry.
func Load(f *zframe.File) (t *Table, err error) {
	in, err := f.TOC()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	lines, err := io.ReadAll(in)
	if err != nil {
		return nil, err
	}
	return &Table{lines: lines, spans: f.Frames()}, nil
}

// Entry returns the entry of name, nil when there is none.
func (t *Table) Entry(name string) (*Entry, error) {
	// A line begins with its name (FORMAT §3), and a name has one way to be written.
	start := append(appendEscaped([]byte("\n{\"n\":\""), name, true), '"')
	at := bytes.Index(t.lines, start)
	if at < 0 {
		return nil, nil
	}
	line, _, _ := bytes.Cut(t.lines[at+1:], []byte{'\n'})
	e := new(Entry)
	err := parseEntry(line, e)
	if err == nil && (e.Frame >= len(t.spans) || e.Offset >= t.spans[e.Frame].Raw) {
		err = errors.New("its place is outside of the archive")
	}
	if err != nil {
		return nil, &zframe.CorruptError{Where: "table of contents: " + Escape(name), Err: err}
	}
	return e, nil
}
