package zframe_test

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/archive/zframe"
)

func FuzzSeekTable(f *testing.F) {
	table, err := zframe.AppendSeekTable(nil, []zframe.Span{{Stored: 10, Raw: 100}, {Offset: 10, Stored: 7, Raw: 3}, {Offset: 17, Stored: 50}})
	check(f, err)
	f.Add(table)
	f.Add(table[:len(table)-1])
	f.Add(append([]byte{0}, table...))
	f.Fuzz(func(t *testing.T, b []byte) {
		spans, err := zframe.ParseSeekTable(b)
		if err != nil {
			if !typed(err) {
				t.Errorf("untyped: %v", err)
			}
			return
		}
		again, err := zframe.AppendSeekTable(nil, spans)
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("% x\nbecomes\n% x, %v", b, again, err)
		}
	})
}

// FuzzStream decodes whatever comes, in pieces of one and of many bytes: no panic, typed errors, the same result both ways.
func FuzzStream(f *testing.F) {
	b := build(f, "hello", strings.Repeat("x", 3000))
	f.Add(b.file)
	f.Add(b.file[:b.frames[0].Stored])
	f.Add([]byte("\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"))
	f.Add([]byte("\x28\xb5\x2f\xfd\x24\x05\x29\x00\x00hello\x00\x00\x00\x00"))
	f.Add([]byte("\x28\xb5\x2f\xfd\x00\x98\xfb\xff\x3fA\x01\x00\x00"))
	f.Add(run(f, []byte("hello"), "xz", "-0c"))
	f.Add(run(f, []byte("hello"), "gzip", "-nc"))
	o := zframe.Options{Workers: 2, MaxRaw: 1 << 20, MaxWindow: 1 << 22}
	f.Fuzz(func(t *testing.T, in []byte) {
		got, _, err := unpack(in, o)
		if err != nil && !typed(err) {
			t.Fatalf("untyped: %v", err)
		}
		r, _, err2 := zframe.Decompress(struct{ io.Reader }{bytes.NewReader(in)}, o)
		if err2 != nil {
			if err == nil || err.Error() != err2.Error() {
				t.Fatalf("%v, then %v", err, err2)
			}
			return
		}
		defer r.Close()
		var again []byte
		piece := make([]byte, 7)
		for err2 == nil {
			var n int
			n, err2 = r.Read(piece)
			again = append(again, piece[:n]...)
		}
		if (err == nil) != (err2 == io.EOF) || err == nil && !bytes.Equal(got, again) {
			t.Fatalf("%d bytes, %v; then %d bytes, %v", len(got), err, len(again), err2)
		}
	})
}

// FuzzOpen opens whatever comes from its end and reads all frames: no panic, typed errors.
func FuzzOpen(f *testing.F) {
	b := build(f, "hello", strings.Repeat("x", 3000))
	f.Add(b.file)
	f.Add(b.file[10:])
	f.Add(b.file[:len(b.file)-10])
	f.Fuzz(func(t *testing.T, in []byte) {
		if _, err := verify(in); err != nil && !typed(err) {
			t.Fatalf("untyped: %v", err)
		}
	})
}
