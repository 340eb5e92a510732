package toc

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/nsferry/nsferry/archive/zframe"
)

// chunk is the raw size of the zstd frames of the table, which are cut at line borders so that a reader can decode in parallel.
const chunk = 512 << 10

// Writer collects the lines of a table of contents, compressed. Memory: about 60 bytes an entry. Not safe for concurrent use.
type Writer struct {
	enc     *zframe.Encoder
	raw     []byte // lines not yet compressed
	stream  []byte // zstd frames of lines
	entries int64
	known   Chunks
}

// NewWriter returns an empty table. It uses enc, which the caller must not use until Finish has returned.
func NewWriter(enc *zframe.Encoder) *Writer { return &Writer{enc: enc} }

// Inherit lets the writer copy what it would have to compress otherwise. The chunks must be made by an encoder of the same name.
func (w *Writer) Inherit(c Chunks) {
	w.known = c
	size := 0
	for _, stored := range c {
		size += len(stored)
	}
	w.stream = make([]byte, 0, size)
}

// Add appends the line of the next entry in stream order. It keeps nothing of e.
func (w *Writer) Add(e *Entry) error {
	had := len(w.raw)
	w.raw = append(appendEntry(w.raw, e), '\n')
	if n := len(w.raw) - had; n > MaxLine {
		return fmt.Errorf("entry %s: its line in the table of contents has %d bytes, more than %d", Escape(e.Name), n, MaxLine)
	}
	w.entries++
	w.flush(chunk)
	return nil
}

// flush compresses the lines at hand if they have at least n bytes.
func (w *Writer) flush(n int) {
	if len(w.raw) == 0 || len(w.raw) < n {
		return
	}
	var stored []byte
	if w.known != nil {
		stored = w.known[sha256.Sum256(w.raw)]
	}
	if stored != nil {
		w.stream = append(w.stream, stored...)
	} else {
		w.stream = w.enc.Encode(w.stream, w.raw)
	}
	w.raw = w.raw[:0]
}

// Finish returns the tail of an archive that consists of frames: the table of contents and the seek table, ready to be
// written behind the last frame. Of h it takes Encoder and Policy; the numbers follow from frames and the entries added.
func (w *Writer) Finish(h Header, frames []zframe.Frame) ([]byte, error) {
	if len(frames) == 0 || w.entries == 0 {
		return nil, errors.New("table of contents: an archive has at least one frame and one entry")
	}
	h.Entries, h.Frames, h.Raw, h.End = w.entries, int64(len(frames)), 0, 0
	spans := make([]zframe.Span, 0, len(frames)+1)
	for i, f := range frames {
		w.raw = append(appendFrame(w.raw, i, f), '\n')
		w.flush(chunk)
		spans = append(spans, zframe.Span{Offset: h.End, Stored: f.Stored, Raw: f.Raw})
		h.Raw += f.Raw
		h.End += f.Stored
	}
	w.flush(0)
	head := w.enc.Encode(nil, append(appendHeader(nil, h), '\n'))
	tail, err := zframe.AppendTOCFrame(nil, slices.Concat(head, w.stream))
	if err != nil {
		return nil, err
	}
	return zframe.AppendSeekTable(tail, append(spans, zframe.Span{Offset: h.End, Stored: int64(len(tail))}))
}

func appendHeader(b []byte, h Header) []byte {
	b = append(b, `{"nsferry":`...)
	b = strconv.AppendInt(b, Version, 10)
	b = appendString(b, `,"encoder":"`, h.Encoder)
	b = appendInt(b, `,"entries":`, h.Entries)
	b = appendInt(b, `,"frames":`, h.Frames)
	b = appendInt(b, `,"raw":`, h.Raw)
	b = appendInt(b, `,"end":`, h.End)
	keys := make([]string, 0, len(h.Policy))
	for k := range h.Policy {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for i, k := range keys {
		if i == 0 {
			b = append(b, `,"policy":{"`...)
		} else {
			b = append(b, `,"`...)
		}
		b = append(appendEscaped(b, k, true), `":"`...)
		b = append(appendEscaped(b, h.Policy[k], true), '"')
	}
	if len(keys) > 0 {
		b = append(b, '}')
	}
	return append(b, '}')
}

func appendFrame(b []byte, number int, f zframe.Frame) []byte {
	b = append(b, `{"F":`...)
	b = strconv.AppendInt(b, int64(number), 10)
	b = append(b, `,"i":"`...)
	b = base64.RawURLEncoding.AppendEncode(b, f.Identity[:])
	b = append(b, '"')
	b = appendInt(b, `,"r":`, f.Raw)
	b = appendInt(b, `,"c":`, f.Stored)
	b = append(b, `,"h":"`...)
	b = base64.RawURLEncoding.AppendEncode(b, f.Sum[:])
	return append(b, `"}`...)
}

func appendEntry(b []byte, e *Entry) []byte {
	b = appendString(b, `{"n":"`, e.Name)
	b = append(b, `,"t":"`...)
	b = append(b, byte(e.Type), '"')
	b = appendInt(b, `,"m":`, int64(e.Mode))
	b = appendInt(b, `,"u":`, int64(e.UID))
	b = appendInt(b, `,"g":`, int64(e.GID))
	b = appendInt(b, `,"s":`, e.Size)
	if e.ModTime != (Time{}) {
		b = append(b, `,"mt":`...)
		b = appendTime(b, e.ModTime)
	}
	b = appendString(b, `,"l":"`, e.Link)
	if e.Type == File {
		b = append(b, `,"d":"`...)
		b = append(base64.RawURLEncoding.AppendEncode(b, e.Digest[:]), '"')
	}
	if e.DevMajor != 0 || e.DevMinor != 0 {
		b = append(b, `,"dev":[`...)
		b = strconv.AppendUint(b, uint64(e.DevMajor), 10)
		b = append(b, ',')
		b = append(strconv.AppendUint(b, uint64(e.DevMinor), 10), ']')
	}
	b = appendXattrs(b, e.Xattrs)
	b = appendString(b, `,"a":"`, e.ACL)
	b = appendString(b, `,"ad":"`, e.DefaultACL)
	b = appendSparse(b, e.Sparse)
	b = appendInt(b, `,"f":`, int64(e.Frame))
	b = appendInt(b, `,"o":`, e.Offset)
	b = appendInt(b, `,"hl":`, e.HeaderLen)
	return append(b, '}')
}

func appendXattrs(b []byte, xattrs []Xattr) []byte {
	for i, x := range xattrs {
		if i == 0 {
			b = append(b, `,"x":{"`...)
		} else {
			b = append(b, `,"`...)
		}
		b = append(appendEscaped(b, x.Key, true), `":"`...)
		b = append(base64.RawURLEncoding.AppendEncode(b, x.Value), '"')
	}
	if len(xattrs) > 0 {
		b = append(b, '}')
	}
	return b
}

func appendSparse(b []byte, segments []Segment) []byte {
	if segments == nil {
		return b
	}
	b = append(b, `,"sp":[`...)
	for i, s := range segments {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, s.Offset, 10)
		b = append(b, ',')
		b = strconv.AppendInt(b, s.Length, 10)
	}
	return append(b, ']')
}

// appendInt appends key and n, nothing for 0.
func appendInt(b []byte, key string, n int64) []byte {
	if n == 0 {
		return b
	}
	return strconv.AppendInt(append(b, key...), n, 10)
}

// appendString appends key, which ends with the opening quote, and s escaped; nothing for an empty s.
func appendString(b []byte, key, s string) []byte {
	if s == "" {
		return b
	}
	return append(appendEscaped(append(b, key...), s, true), '"')
}

// appendTime appends t as decimal seconds, trailing zeros of the fraction cut, as pax(1) has it.
func appendTime(b []byte, t Time) []byte {
	sec, nsec := t.Sec, t.Nsec
	if nsec == 0 {
		return strconv.AppendInt(b, sec, 10)
	}
	if sec < 0 {
		b = append(b, '-')
		sec, nsec = -(sec + 1), 1e9-nsec
	}
	b = append(strconv.AppendInt(b, sec, 10), '.')
	at := len(b)
	b = strconv.AppendUint(b, 1e9+uint64(nsec), 10)
	b = append(b[:at], b[at+1:]...) // the leading 1 has kept the zeros
	for b[len(b)-1] == '0' {
		b = b[:len(b)-1]
	}
	return b
}
