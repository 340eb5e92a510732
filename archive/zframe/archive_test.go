package zframe_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nsferry/nsferry/archive/zframe"
	"github.com/nsferry/nsferry/archive/zframe/toc"
)

func TestToolsAcceptArchive(t *testing.T) {
	b := build(t, "hello\n", strings.Repeat("long ", 300000), "bye\n")
	name := write(t, b.file)
	run(t, nil, "zstd", "-q", "-t", name)
	if got := run(t, b.file, "zstd", "-dc"); !bytes.Equal(got, b.raw) {
		t.Errorf("zstd -dc gives %d bytes, want %d", len(got), len(b.raw))
	}
	if !bytes.HasPrefix(b.file, []byte("\x28\xb5\x2f\xfd")) {
		t.Errorf("the first bytes are % x", b.file[:4])
	}
	list := run(t, nil, "zstd", "-lv", name)
	for _, want := range []string{"Zstandard Frames: 3", "Skippable Frames: 2", "Check: XXH64", fmt.Sprintf("(%d B)", len(b.raw))} {
		if !bytes.Contains(list, []byte(want)) {
			t.Errorf("zstd -lv does not say %q:\n%s", want, list)
		}
	}
}

// TestSeekTableByItsPublishedForm reads the table as zstd's seekable format describes it, from the end of the file.
func TestSeekTableByItsPublishedForm(t *testing.T) {
	b := build(t, "one", "two", "three")
	u32 := binary.LittleEndian.Uint32
	end := b.file[len(b.file)-9:]
	if u32(end[5:]) != 0x8F92EAB1 || end[4] != 0 {
		t.Fatalf("footer % x", end)
	}
	n := int(u32(end))
	table := b.file[len(b.file)-9-8*n-8:]
	if u32(table) != 0x184D2A5E || int(u32(table[4:])) != 8*n+9 {
		t.Fatalf("header % x", table[:8])
	}
	at, raw := 0, 0
	for i := range n {
		stored, size := int(u32(table[8+8*i:])), int(u32(table[12+8*i:]))
		if i < n-1 {
			if got := run(t, b.file[at:at+stored], "zstd", "-dc"); !bytes.Equal(got, b.raw[raw:raw+size]) {
				t.Errorf("frame %d differs", i)
			}
		} else if u32(b.file[at:]) != 0x184D2A5D || size != 0 {
			t.Errorf("last frame is no table of contents")
		}
		at, raw = at+stored, raw+size
	}
	if n != 4 || at != len(b.file)-len(table) || raw != len(b.raw) {
		t.Errorf("%d frames, %d bytes, %d raw", n, at, raw)
	}
}

func TestRoundTrip(t *testing.T) {
	b := build(t, "a", "", strings.Repeat("x", 100000))
	raw, err := verify(b.file)
	check(t, err)
	if !bytes.Equal(raw, b.raw) {
		t.Error("tar stream differs")
	}
	f, err := zframe.Open(bytes.NewReader(b.file), int64(len(b.file)))
	check(t, err)
	c, err := toc.ReadAll(f)
	check(t, err)
	want := toc.Contents{Entries: b.entries, Frames: b.frames, Header: toc.Header{Encoder: "klauspost/3", Entries: 4, Frames: 3, Raw: int64(len(b.raw)),
		End: f.End(), Policy: map[string]string{"devices": "skip", "ids": "inside"}}}
	if d := cmp.Diff(want, c); d != "" {
		t.Error(d)
	}
	if f.Raw() != int64(len(b.raw)) || len(f.Frames()) != 3 {
		t.Errorf("Raw %d, Frames %v", f.Raw(), f.Frames())
	}
	if got, kind, err := unpack(b.file, zframe.Options{}); err != nil || kind != zframe.KindZstd || !bytes.Equal(got, b.raw) {
		t.Errorf("as a stream: %v %v", kind, err)
	}
}

// typed tells whether err is one of those that a caller of a damaged archive branches on.
func typed(err error) bool {
	var bad *zframe.CorruptError
	var limit *zframe.LimitError
	return errors.Is(err, zframe.ErrTruncated) || errors.Is(err, zframe.ErrNotSeekable) || errors.As(err, &bad) || errors.As(err, &limit) ||
		errors.Is(err, zframe.ErrUnknownFormat)
}

func TestTruncatedAtEveryByte(t *testing.T) {
	b := build(t, "some content\n", "more of it\n")
	for n := range b.file {
		if _, err := verify(b.file[:n]); !errors.Is(err, zframe.ErrTruncated) {
			t.Errorf("%d of %d bytes, from the end: %v", n, len(b.file), err)
		}
		if got, _, err := unpack(b.file[:n], zframe.Options{}); !errors.Is(err, zframe.ErrTruncated) && !(n < 4 && err == zframe.ErrUnknownFormat) {
			t.Errorf("%d of %d bytes, as a stream: %v", n, len(b.file), err)
		} else if !bytes.HasPrefix(b.raw, got) {
			t.Errorf("%d of %d bytes, as a stream: other bytes", n, len(b.file))
		}
	}
}

func TestEveryFlippedBitIsFound(t *testing.T) {
	b := build(t, "some content\n", "more of it\n")
	file := bytes.Clone(b.file)
	for i := range file {
		for bit := range 8 {
			file[i] ^= 1 << bit
			if _, err := verify(file); !typed(err) {
				t.Errorf("byte %d of %d, bit %d, from the end: %v", i, len(file), bit, err)
			}
			// A stream does not look into the table of contents and may miss a bit that changes nothing in the tar stream.
			if bit != i%8 {
				file[i] ^= 1 << bit
				continue
			}
			if got, _, err := unpack(file, zframe.Options{}); err == nil && !bytes.Equal(got, b.raw) || err != nil && !typed(err) {
				t.Errorf("byte %d of %d, bit %d, as a stream: %v", i, len(file), bit, err)
			}
			file[i] ^= 1 << bit
		}
	}
}

func TestOpenForeign(t *testing.T) {
	plain := []byte(strings.Repeat("not an archive ", 100))
	seekable := func(b []byte) []byte {
		table, err := zframe.AppendSeekTable(nil, []zframe.Span{{Stored: int64(len(b)), Raw: 1}, {}})
		check(t, err)
		return append(bytes.Clone(b), table...)
	}
	foreign := run(t, bytes.Repeat(plain, 10), "zstd", "-c")
	for name, file := range map[string][]byte{"text": plain, "zstd": foreign, "zstd with another's seek table": seekable(foreign)} {
		if _, err := zframe.Open(bytes.NewReader(file), int64(len(file))); !errors.Is(err, zframe.ErrNotSeekable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b := build(t, "x")
	var bad *zframe.CorruptError
	for name, file := range map[string][]byte{
		"another's table behind ours": seekable(b.file),
		"a byte in front":             append([]byte{0x28}, b.file...),
		"a frame twice":               append(bytes.Clone(b.file[:b.frames[0].Stored]), b.file...),
	} {
		if _, err := zframe.Open(bytes.NewReader(file), int64(len(file))); !errors.As(err, &bad) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestVector holds the format still: the golden file must read as ever, and be made as ever.
func TestVector(t *testing.T) {
	dir := filepath.Join("..", "..", "testdata", "vectors")
	b := build(t, "hello\n", strings.Repeat("0123456789abcdef", 4096))
	if os.Getenv("UPDATE_VECTORS") != "" {
		check(t, os.MkdirAll(dir, 0o755))
		check(t, os.WriteFile(filepath.Join(dir, "frames.tar.zst"), b.file, 0o644))
		f, err := zframe.Open(bytes.NewReader(b.file), int64(len(b.file)))
		check(t, err)
		check(t, os.WriteFile(filepath.Join(dir, "frames.toc"), lines(t, f), 0o644))
	}
	golden, err := os.ReadFile(filepath.Join(dir, "frames.tar.zst"))
	check(t, err)
	raw, err := verify(golden)
	check(t, err)
	if !bytes.Equal(raw, b.raw) {
		t.Error("the golden file holds another tar stream")
	}
	if !bytes.Equal(golden, b.file) {
		t.Error("encoder klauspost/3 makes other frames than it did: it needs another name")
	}
	f, err := zframe.Open(bytes.NewReader(golden), int64(len(golden)))
	check(t, err)
	want, err := os.ReadFile(filepath.Join(dir, "frames.toc"))
	check(t, err)
	if d := cmp.Diff(string(want), string(lines(t, f))); d != "" {
		t.Error(d)
	}
}

func lines(tb testing.TB, f *zframe.File) []byte {
	tb.Helper()
	r, err := f.TOC()
	check(tb, err)
	defer r.Close()
	var out bytes.Buffer
	_, err = out.ReadFrom(r)
	check(tb, err)
	return out.Bytes()
}

func TestIdentity(t *testing.T) {
	h := zframe.NewIdentityHash()
	h.Header([]byte("header"))
	h.Part(0, 3)
	h.Digest([32]byte{1})
	h.Header(nil)
	h.Part(4<<20, 5)
	h.Digest([32]byte{2})
	h.End()
	text := "\x06\x00\x00\x00header" + strings.Repeat("\x00", 8) + "\x03" + strings.Repeat("\x00", 7) + "\x01" + strings.Repeat("\x00", 31) +
		"\x00\x00\x00\x00" + "\x00\x00\x40\x00\x00\x00\x00\x00" + "\x05" + strings.Repeat("\x00", 7) + "\x02" + strings.Repeat("\x00", 31) + "end"
	want := strings.Fields(string(run(t, []byte(text), "sha256sum")))[0]
	if got := fmt.Sprintf("%x", h.Sum()); got != want {
		t.Errorf("identity %s, want %s", got, want)
	}
	if got := fmt.Sprintf("%x", h.Sum()); got != "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" {
		t.Errorf("after Sum the hash is not empty: %s", got)
	}
}
