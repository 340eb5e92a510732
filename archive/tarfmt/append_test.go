package tarfmt

import (
	"bytes"
	"math"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestAppendRules holds every header block to what sbuild demands, and to the absence of anything that could vary.
func TestAppendRules(t *testing.T) {
	octal7, octal11 := regexp.MustCompile("^[0-7]{7}\x00$"), regexp.MustCompile("^[0-7]{11}\x00$")
	for _, it := range oddities() {
		out, err := it.Append([]byte("before"))
		if err != nil {
			t.Fatal(err)
		}
		out = bytes.TrimPrefix(out, []byte("before"))
		last := byte(0)
		for at := 0; at < len(out); {
			b := (*block)(out[at:])
			for _, f := range []field{fMode, fUID, fGID, fDevMajor, fDevMinor} {
				if !octal7.Match(b.field(f)) {
					t.Errorf("%q at %d: field %v is %q", it.Name, at, f, b.field(f))
				}
			}
			if !octal11.Match(b.field(fSize)) || !octal11.Match(b.field(fMTime)) || string(b.field(fMagic)) != "ustar\x0000" {
				t.Errorf("%q at %d: size %q, mtime %q, magic %q", it.Name, at, b.field(fSize), b.field(fMTime), b.field(fMagic))
			}
			if !regexp.MustCompile("^[0-7]{6}\x00 $").Match(b.field(fChecksum)) || b.verify() != nil {
				t.Errorf("%q at %d: checksum %q", it.Name, at, b.field(fChecksum))
			}
			if !bytes.Equal(b[265:329], make([]byte, 64)) || !bytes.Equal(b[345:], make([]byte, 167)) {
				t.Errorf("%q at %d: owner names or prefix are not empty", it.Name, at)
			}
			n, _ := b.number(fSize)
			last = b[typeflag]
			at += BlockSize
			if strings.IndexByte("xLK", last) >= 0 {
				at += int(n + Padding(n))
			}
		}
		if last != byte(it.Type) {
			t.Errorf("%q ends with a block of type %q", it.Name, last)
		}
	}
}

func TestAppendGolden(t *testing.T) {
	h := Header{Name: "./a", Type: Reg, Mode: 0o4755, UID: 33, GID: 4000000000, Size: 5, ModTime: Time{1700000000, 120000000},
		Xattrs: []Xattr{{"user.a=b%", []byte("v\n")}}, ACL: "acl", DefaultACL: "dacl", Comment: "c"}
	out, err := h.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	records := "25 SCHILY.acl.access=acl\n27 SCHILY.acl.default=dacl\n33 SCHILY.xattr.user.a%3Db%25=v\n\n13 comment=c\n18 gid=4000000000\n23 mtime=1700000000.12\n"
	if d := cmp.Diff(records, strings.TrimRight(string(out[512:1024]), "\x00")); d != "" {
		t.Error(d)
	}
	want := "./a" + strings.Repeat("\x00", 97) + "0004755\x000000041\x000000000\x0000000000005\x0014524770400\x00" + "007556\x00 0"
	if d := cmp.Diff(want, string(out[1024:1024+157])); d != "" {
		t.Error(d)
	}
	if len(out) != 1536 {
		t.Errorf("%d bytes", len(out))
	}
}

func TestRecordLengths(t *testing.T) {
	for n := range 11000 { // across the borders where the length gets one more digit
		if n > 200 && n < 900 || n > 1100 && n < 9900 {
			continue
		}
		r := appendRecord(nil, "k", "", strings.Repeat("v", n))
		key, value, rest, err := cutRecord(r)
		if err != nil || string(key) != "k" || len(value) != n || len(rest) != 0 {
			t.Fatalf("%d: %q %v", n, r[:10], err)
		}
	}
}

func TestAppendRefuses(t *testing.T) {
	good := Header{Name: "./f", Type: Reg}
	for name, edit := range map[string]func(*Header){
		"no name":                  func(h *Header) { h.Name = "" },
		"NUL in name":              func(h *Header) { h.Name = "a\x00" },
		"NUL in link":              func(h *Header) { h.Type, h.Link = Symlink, "a\x00" },
		"link of a file":           func(h *Header) { h.Link = "x" },
		"symlink without target":   func(h *Header) { h.Type = Symlink },
		"type":                     func(h *Header) { h.Type = 'S' },
		"no type":                  func(h *Header) { h.Type = 0 },
		"mode":                     func(h *Header) { h.Mode = 0o100644 },
		"uid":                      func(h *Header) { h.UID = math.MaxUint32 },
		"gid":                      func(h *Header) { h.GID = math.MaxUint32 },
		"nanoseconds":              func(h *Header) { h.ModTime.Nsec = 1e9 },
		"seconds":                  func(h *Header) { h.ModTime.Sec = math.MinInt64 },
		"negative size":            func(h *Header) { h.Size = -1 },
		"size of a directory":      func(h *Header) { h.Type, h.Size = Dir, 1 },
		"holes of a fifo":          func(h *Header) { h.Type, h.Sparse = Fifo, []Segment{} },
		"size overflows":           func(h *Header) { h.Size = math.MaxInt64 },
		"device of a file":         func(h *Header) { h.DevMinor = 1 },
		"device too large":         func(h *Header) { h.Type, h.DevMajor = Char, 1<<21 },
		"ACL as xattr":             func(h *Header) { h.Xattrs = []Xattr{{"system.posix_acl_access", nil}} },
		"xattrs unsorted":          func(h *Header) { h.Xattrs = []Xattr{{"user.b", nil}, {"user.a", nil}} },
		"xattr twice":              func(h *Header) { h.Xattrs = []Xattr{{"user.b", nil}, {"user.b", nil}} },
		"xattr without key":        func(h *Header) { h.Xattrs = []Xattr{{"", nil}} },
		"hard link with xattr":     func(h *Header) { h.Type, h.Link, h.Xattrs = Link, "x", []Xattr{{"user.a", nil}} },
		"segment beyond size":      func(h *Header) { h.Size, h.Sparse = 5, []Segment{{0, 6}} },
		"segments overlap":         func(h *Header) { h.Size, h.Sparse = 5000, []Segment{{0, 1024}, {1023, 1}} },
		"segments descend":         func(h *Header) { h.Size, h.Sparse = 5000, []Segment{{2048, 512}, {0, 512}} },
		"segment empty":            func(h *Header) { h.Size, h.Sparse = 5000, []Segment{{0, 0}} },
		"segment not whole":        func(h *Header) { h.Size, h.Sparse = 5000, []Segment{{0, 100}, {1024, 512}} },
		"segment negative":         func(h *Header) { h.Size, h.Sparse = 5000, []Segment{{-512, 512}} },
		"segment sum overflows":    func(h *Header) { h.Size, h.Sparse = 5000, []Segment{{math.MaxInt64, 512}} },
		"NUL in ACL":               func(h *Header) { h.ACL = "\x00" },
		"NUL in the default ACL":   func(h *Header) { h.DefaultACL = "\x00" },
		"NUL in an xattr's key":    func(h *Header) { h.Xattrs = []Xattr{{"user.\x00", nil}} },
		"hard link without target": func(h *Header) { h.Type = Link },
	} {
		h := good
		edit(&h)
		if out, err := h.Append([]byte("x")); err == nil || string(out) != "x" {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
	if _, err := good.Append(nil); err != nil {
		t.Error(err)
	}
}

func TestCoalesce(t *testing.T) {
	for _, tt := range []struct {
		segs    []Segment
		size    int64
		minHole int64
		want    []Segment
	}{
		{nil, 100, 1, []Segment{}},
		{[]Segment{{0, 0}}, 100, 1, []Segment{}},
		{[]Segment{{0, 100}}, 100, 1, []Segment{{0, 100}}},
		{[]Segment{{100, 100}, {5000, 10}}, 6000, 1, []Segment{{0, 512}, {4608, 512}}},
		{[]Segment{{0, 512}, {512, 512}}, 6000, 1, []Segment{{0, 1024}}},
		{[]Segment{{0, 511}, {600, 1}}, 6000, 1, []Segment{{0, 1024}}},
		{[]Segment{{0, 512}, {2048, 512}}, 6000, 1536, []Segment{{0, 512}, {2048, 512}}},
		{[]Segment{{0, 512}, {2048, 512}}, 6000, 1537, []Segment{{0, 2560}}},
		{[]Segment{{5999, 1}}, 6000, 1, []Segment{{5632, 368}}},
		{[]Segment{{0, 10}, {7000, 1}}, 6000, 1, []Segment{{0, 512}}},
		{[]Segment{{0, 9000}}, 6000, 1, []Segment{{0, 6000}}},
		{[]Segment{{1024, 512}}, 6000, 1025, []Segment{{0, 1536}}},
		{[]Segment{{1024, 512}}, 6000, 1024, []Segment{{1024, 512}}},
		{[]Segment{{4096, 512}}, 6000, 1393, []Segment{{4096, 1904}}},
		{nil, 100, 101, []Segment{{0, 100}}},
	} {
		got := Coalesce(tt.segs, tt.size, BlockSize, tt.minHole)
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%v: %s", tt, d)
		}
		if err := checkWritable(got, tt.size); err != nil {
			t.Errorf("%v: %v", tt, err)
		}
	}
}
