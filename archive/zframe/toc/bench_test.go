package toc

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"testing"

	"github.com/nsferry/nsferry/archive/zframe"
)

// tableOf returns an archive that is nothing but its tail, behind frames of zeros, for a tree of n files in frames of 100.
func tableOf(tb testing.TB, n int) (*zframe.File, int64) {
	tb.Helper()
	enc, err := zframe.NewEncoder(3)
	if err != nil {
		tb.Fatal(err)
	}
	w := NewWriter(enc)
	var file []byte
	var frames []zframe.Frame
	const perFrame = 100
	raw := make([]byte, (perFrame+1)*1024)
	var lines int64
	for i := range n + 1 {
		e := Entry{Name: ".", Type: Dir, Mode: 0o755, HeaderLen: 1024}
		if i > 0 {
			e = Entry{Name: fmt.Sprintf("usr/share/doc/package-%06d/changelog.Debian.gz", i), Type: File, Mode: 0o644, Size: int64(i),
				ModTime: Time{1700000000 + int64(i), 0}, HeaderLen: 512, Digest: sha256.Sum256(fmt.Append(nil, i))}
		}
		e.Frame, e.Offset = i/perFrame, int64(i%perFrame)*1024
		if err := w.Add(&e); err != nil {
			tb.Fatal(err)
		}
		lines += int64(len(appendEntry(nil, &e))) + 1
		if i%perFrame == 0 {
			stored := enc.Encode(nil, raw)
			file = append(file, stored...)
			frames = append(frames, zframe.Frame{Raw: int64(len(raw)), Stored: int64(len(stored)), Sum: sha256.Sum256(stored)})
		}
	}
	tail, err := w.Finish(Header{Encoder: enc.Name()}, frames)
	if err != nil {
		tb.Fatal(err)
	}
	file = append(file, tail...)
	f, err := zframe.Open(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		tb.Fatal(err)
	}
	return f, lines
}

func BenchmarkReadAll(b *testing.B) {
	f, size := tableOf(b, 25600)
	b.SetBytes(size)
	for b.Loop() {
		c, err := ReadAll(f)
		if err != nil || len(c.Entries) != 25601 {
			b.Fatal(len(c.Entries), err)
		}
	}
}

func BenchmarkNext(b *testing.B) {
	f, size := tableOf(b, 25600)
	b.SetBytes(size)
	for b.Loop() {
		r, err := Open(f)
		if err != nil {
			b.Fatal(err)
		}
		var e Entry
		for err == nil {
			err = r.Next(&e)
		}
		if err != io.EOF {
			b.Fatal(err)
		}
		if err := r.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
