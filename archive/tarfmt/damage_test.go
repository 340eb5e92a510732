package tarfmt

import (
	"bytes"
	"errors"
	"os"
	"reflect"
	"slices"
	"testing"
)

// small is an archive with a bit of everything, short enough to be damaged everywhere.
func small(t testing.TB) []byte {
	own := write(t, []item{
		{Header: Header{Name: "./", Type: Dir, Mode: 0o755, Comment: "nsferry-archive-1"}},
		file("./a\xff", "hello").with(func(h *Header) { h.ModTime.Nsec, h.Xattrs = 5, []Xattr{{"user.x", []byte("v")}} }),
		{Header: Header{Name: "./s", Type: Reg, Size: 9000, Sparse: []Segment{{512, 512}, {8192, 100}}}, data: repeat('d', 612)},
		{Header: Header{Name: "./l", Type: Symlink, Link: "target", UID: 4000000000}},
	})
	old := crafted('S', "old", gnuMagic, size(1024), put(fOldRealSize, "00000010000"), put(fOldSparse, "00000000000\x0000000001000\x00"),
		func(b *block) { b[oldExtended] = 1 })
	ext := make([]byte, BlockSize)
	copy(ext, "00000002000\x0000000001000\x00")
	return slices.Concat(long('L', "gnu\x00"), old, ext, make([]byte, 1024), own)
}

func TestTruncatedAnywhere(t *testing.T) {
	archive := small(t)
	mustRead(t, archive)
	for n := range archive {
		if _, err := readAll(bytes.NewReader(archive[:n]), Limits{}); !errors.Is(err, ErrTruncated) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
}

// TestEveryBitFlipped demands an error or entries that Append takes again, whatever bit is wrong, and little memory.
func TestEveryBitFlipped(t *testing.T) {
	archive := small(t)
	good := mustRead(t, archive)
	silent := 0
	buf := make([]byte, bufferSize)
	for i := range archive {
		for bit := range 8 {
			archive[i] ^= 1 << bit
			r := NewReader(bytes.NewReader(archive), Limits{HeaderBytes: 1 << 16, SparseSegments: 1000})
			r.in.buf = buf // a new one each time is most of the work
			items, err := readItems(r)
			switch {
			case err != nil:
			case reflect.DeepEqual(good, items):
				silent++
			default:
				checkSound(t, items)
			}
			archive[i] ^= 1 << bit
		}
	}
	// Only padding, the bodies of auxiliary headers' own fields and the like may change nothing.
	if limit := len(archive) * 8 * 3 / 4; silent > limit {
		t.Errorf("%d of %d flips went unnoticed", silent, len(archive)*8)
	}
}

// checkSound checks what Next promises of every header that it returns.
func checkSound(t testing.TB, items []item) {
	t.Helper()
	for _, it := range items {
		h := it.Header
		if h.Type == Link { // foreign tars say more of hard links than we write
			h.Xattrs, h.ACL, h.DefaultACL, h.Comment = nil, "", "", ""
		}
		h.Xattrs = slices.DeleteFunc(slices.Clone(h.Xattrs), func(x Xattr) bool { return checkXattrs([]Xattr{x}) != nil })
		if h.Sparse != nil {
			if dataLength(h.Sparse) != int64(len(it.data)) {
				t.Fatalf("%q: %d bytes for segments %v", h.Name, len(it.data), h.Sparse)
			}
			h.Sparse = Coalesce(h.Sparse, h.Size, BlockSize, 1)
		} else if h.Size != int64(len(it.data)) {
			t.Fatalf("%q: %d bytes, not %d", h.Name, len(it.data), h.Size)
		}
		h.DevMajor, h.DevMinor = min(h.DevMajor, maxOctal7), min(h.DevMinor, maxOctal7)
		b, err := h.Append(nil)
		if err != nil {
			t.Fatalf("Next returned what Append refuses: %v", err)
		}
		again, err := NewReader(bytes.NewReader(b), Limits{}).Next()
		if h.Sparse == nil && (err != nil || again.Name != h.Name || again.Link != h.Link || again.Size != h.Size) {
			t.Fatalf("%+v\nis read back as %+v, %v", h, again, err)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add(small(f))
	f.Add(write(f, oddities()[:12]))
	f.Add(slices.Concat(pax('g', "uid=5", "SCHILY.xattr.user.x=1"), pax('x', "LIBARCHIVE.xattr.user.a%3Db=MQ", "SCHILY.xattr.user.a=b=1", "mtime=-1.5"), plain, trailer))
	f.Add(slices.Concat(pax('x', "GNU.sparse.size=9", "GNU.sparse.numblocks=1", "GNU.sparse.offset=1", "GNU.sparse.numbytes=0"), plain, trailer))
	f.Add(slices.Concat(pax('x', "GNU.sparse.map=0,1,5,1", "GNU.sparse.size=9", "GNU.sparse.name=n"), crafted('0', "f", size(2)), body("ab"), trailer))
	f.Add(slices.Concat(crafted('1', "f", size(5), put(fLink, "t")), plain, crafted('D', "d", gnuMagic, size(3)), body("Yx\x00"), trailer))
	for _, name := range []string{"gnu-v7", "gnu-oldgnu", "gnu-sparse", "gnu-pax", "gnu-pax-sparse-1.0", "bsdtar-pax"} {
		archive, err := os.ReadFile("testdata/vectors/" + name + ".tar")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(archive)
	}
	f.Fuzz(func(t *testing.T, archive []byte) {
		seal(archive)
		items, err := readAll(bytes.NewReader(archive), Limits{HeaderBytes: 1 << 16, SparseSegments: 1000})
		if err == nil {
			checkSound(t, items)
		}
	})
}

// seal mends the checksum of every block that could be a header, so that the fuzzer gets beyond them.
func seal(archive []byte) {
	for at := 0; at+BlockSize <= len(archive); at += BlockSize {
		b := (*block)(archive[at:])
		if b[fChecksum.to-1] == ' ' && b[fChecksum.to-2] == 0 {
			b.octal(field{fChecksum.from, fChecksum.to - 1}, b.sum())
		}
	}
}

// TestSums compares both sums with the plain loop of POSIX, at the extremes too.
func TestSums(t *testing.T) {
	for _, fill := range []byte{0, 1, 0x7f, 0x80, 0xff} {
		for at := range BlockSize {
			b := (*block)(repeat(fill, BlockSize))
			b[at] ^= 0x81
			var unsigned, signed int64
			for i, c := range b {
				if i >= 148 && i < 156 {
					c = ' '
				}
				unsigned, signed = unsigned+int64(c), signed+int64(int8(c))
			}
			if b.sum() != unsigned || b.signedSum() != signed {
				t.Fatalf("%#x, byte %d: %d and %d, want %d and %d", fill, at, b.sum(), b.signedSum(), unsigned, signed)
			}
		}
	}
}
