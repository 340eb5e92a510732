package zframe

import (
	"crypto/sha256"
	"io"
	"slices"
)

// tailCheck compares the tail of an archive that is read as a stream with the frames that went by.
type tailCheck struct {
	spans   []Span
	at      int64
	marked  markState
	foreign bool // a frame went by that is not one of ours
	toc     bool
	whole   bool
}

func (t *tailCheck) frame(stored, raw int64) {
	if raw < 0 || t.toc || len(t.spans) >= MaxFrames {
		t.foreign = true
	}
	if !t.foreign {
		t.spans = append(t.spans, Span{t.at, stored, raw})
	}
	t.at += stored
}

// skippable reads a skippable frame to its end.
func (t *tailCheck) skippable(w *walk) error {
	t.whole = false
	size := int64(w.length) + w.skip
	if w.magic == magicSeek && !t.foreign && t.toc && w.skip <= seekTableLen(MaxFrames+1) {
		table, _, err := w.collect(make([]byte, 0, size), size, 0)
		if err != nil {
			return err
		}
		spans, err := ParseSeekTable(table)
		t.whole = err == nil && slices.Equal(spans, t.spans)
		return nil
	}
	if w.magic == magicTOC && !t.toc && w.skip >= sha256.Size {
		t.toc = true
		t.spans = append(t.spans, Span{t.at, size, 0})
	} else {
		t.foreign = true
	}
	t.at += size
	_, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{w}, make([]byte, 64<<10))
	return err
}

// finish judges the end of the stream.
func (t *tailCheck) finish() error {
	if t.marked == markPresent && !t.whole {
		return ErrTruncated
	}
	return nil
}
