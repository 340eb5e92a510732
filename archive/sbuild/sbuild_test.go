package sbuild

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/archive/tarfmt"
)

// block is a header with a good checksum, and what edit makes of it before that.
func block(name string, typ byte, size int, edit func(b []byte)) []byte {
	b := make([]byte, 512)
	copy(b, name)
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	copy(b[124:], fmt.Sprintf("%011o\x0000000000000\x00        %c", size, typ))
	copy(b[257:], "ustar\x0000")
	if edit != nil {
		edit(b)
	}
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

func padded(s string) []byte {
	return append([]byte(s), make([]byte, tarfmt.Padding(int64(len(s))))...)
}

func stream(parts ...[]byte) []byte {
	return append(bytes.Join(append([][]byte{block("./", '5', 0, nil)}, parts...), nil), tarfmt.Trailer[:]...)
}

func zipped(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b) // it goes to memory
	_ = w.Close()
	return out.Bytes()
}

func record(key, value string) string {
	for n := 0; ; n++ {
		if s := fmt.Sprintf("%d %s=%s\n", n, key, value); len(s) == n {
			return s
		}
	}
}

// TestCheck breaks each rule alone.
func TestCheck(t *testing.T) {
	good := stream(block("./a", '0', 5, nil), padded("hello"), block("./b", '1', 0, nil))
	long := record("path", "./"+strings.Repeat("x", 200))
	for name, c := range map[string]struct {
		name string
		data []byte
		says string // "" for a good one
	}{
		"good":             {"c.tar", good, ""},
		"GNU magic":        {"c.tar", stream(block("./a", '0', 0, func(b []byte) { copy(b[257:], "ustar  \x00") })), ""},
		"a long name":      {"c.tar", stream(block("././@PaxHeader", 'x', len(long), nil), padded(long), block("./xx", '0', 0, nil)), ""},
		"a GNU long name":  {"c.tar", stream(block("././@LongLink", 'L', 4, nil), padded("./a\x00"), block("a", '0', 0, nil)), ""},
		"padded":           {"c.tar", append(bytes.Clone(good), make([]byte, 8192)...), ""},
		"too short":        {"c.tar.gz", zipped(good), "at least 512"},
		"wrong name":       {"c.tar.zst", good, "it is tar, and sbuild takes it for zstd by its name"},
		"no tar":           {"c.tar", bytes.Repeat([]byte("text"), 200), "it is unknown"},
		"skippable":        {"c.tar.zst", append([]byte("\x50\x2a\x4d\x18\x04\x00\x00\x00size"), good...), "skippable"},
		"a device":         {"c.tar", stream(block("./null", '3', 0, nil)), `"./null": a device node`},
		"a block device":   {"c.tar", stream(block("./sda", '4', 0, nil)), `"./sda": a device node`},
		"no prefix":        {"c.tar", stream(block("a", '0', 0, nil)), `"a": the name does not begin with "./"`},
		"absolute":         {"c.tar", stream(block("/a", '0', 0, nil)), `does not begin`},
		"prefix field":     {"c.tar", stream(block("a", '0', 0, func(b []byte) { copy(b[345:], "usr") })), `"usr/a": the name`},
		"no magic":         {"c.tar", stream(block("./a", '0', 0, func(b []byte) { copy(b[257:], "\x00\x00\x00\x00\x00\x00\x00\x00") })), "no ustar magic"},
		"short size":       {"c.tar", stream(block("./a", '0', 0, func(b []byte) { copy(b[124:], "0\x00          ") })), "11 octal digits"},
		"base 256":         {"c.tar", stream(block("./a", '0', 0, func(b []byte) { copy(b[124:], "\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00") })), "11 octal digits"},
		"huge by record":   {"c.tar", stream(block("x", 'x', 21, nil), padded(record("size", "8589934592")), block("./a", '0', 0, nil)), "8 GiB"},
		"link with a size": {"c.tar", append(stream(block("./a", '1', 700, nil)), make([]byte, 1024)...), "a size without data"},
		"garbage behind":   {"c.tar", append(bytes.Clone(good), 1), "follows the end"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.name == "c.tar.zst" && name == "skippable" {
				c.data = append(c.data[:12:12], "\x28\xb5\x2f\xfd\x20\x00\x01\x00\x00"...) // an empty frame
				c.data = append(c.data, bytes.Repeat([]byte("\x50\x2a\x4d\x18\x00\x00\x00\x00"), 64)...)
			}
			_, err := Check(t.Context(), bytes.NewReader(c.data), int64(len(c.data)), c.name, 1)
			if c.says == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.says) && name != "skippable" {
				t.Errorf("error %v, want one that says %q", err, c.says)
			}
			if bad := (*Error)(nil); name != "skippable" && !errors.As(err, &bad) {
				t.Errorf("%v is no *Error", err)
			}
		})
	}
}

// TestCheckTruncated: a tarball that ends early is none, wherever.
func TestCheckTruncated(t *testing.T) {
	good := stream(block("./a", '0', 5, nil), padded("hello"))
	for n := 512; n < len(good)-512; n += 100 {
		if _, err := Check(t.Context(), bytes.NewReader(good[:n]), int64(n), "c.tar", 1); err == nil {
			t.Errorf("%d of %d bytes pass", n, len(good))
		}
	}
}

// TestCheckHeader finds in an entry's headers alone what Check finds in a tarball.
func TestCheckHeader(t *testing.T) {
	huge := record("size", "8589934592")
	for says, blocks := range map[string][]byte{
		"":              append(append(block("././@LongLink", 'L', 4, nil), padded("./a\x00")...), block("a", '0', 7000, nil)...),
		"a device node": block("./null", '3', 0, nil),
		`"a": the name`: block("a", '0', 0, nil),
		"8 GiB":         append(append(block("x", 'x', len(huge), nil), padded(huge)...), block("./a", '0', 0, nil)...),
		"internal":      block("x", 'x', 5, nil)[:512:512],
	} {
		if says == "internal" {
			blocks = append(blocks, make([]byte, 1)...)
		}
		if err := CheckHeader(blocks); (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("error %v, want one that says %q", err, says)
		}
	}
}
