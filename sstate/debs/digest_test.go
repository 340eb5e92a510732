package debs

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFillSums: the digest of a copy is that of the file, holes in front, between and at the end included.
func TestFillSums(t *testing.T) {
	dir, path := open(t)
	for _, text := range []string{"", "x", strings.Repeat("ab", 300_000), "\x00..a", "a..\x00", "a..\x00\x00..b..\x00", "\x00"} {
		f, err := os.Create(filepath.Join(path, "src"))
		check(t, err)
		for part := range strings.SplitSeq(text, "..") {
			end, err := f.Seek(0, 2)
			check(t, err)
			if n := int64(strings.Count(part, "\x00")); n > 0 {
				check(t, f.Truncate(end+n*100_000))
				continue
			}
			_, err = f.WriteString(part)
			check(t, err)
		}
		check(t, f.Close())
		want, err := os.ReadFile(filepath.Join(path, "src"))
		check(t, err)
		dst, err := os.Create(filepath.Join(path, "dst"))
		check(t, err)
		var sum Sum
		check(t, fill(t.Context(), dir, source{Name: "src", Size: int64(len(want))}, dst, make([]byte, 4096), &sum))
		check(t, dst.Close())
		got, err := os.ReadFile(filepath.Join(path, "dst"))
		check(t, err)
		if string(got) != string(want) || sum != (Sum{int64(len(want)), sha256.Sum256(want)}) {
			t.Errorf("%.20q: %d bytes of %d, %+v", text, len(got), len(want), sum)
		}
	}
}

// TestFillWantsTheListedSize: what somebody puts in the place of a file after it was listed is not read to its end, which may be terabytes away.
func TestFillWantsTheListedSize(t *testing.T) {
	dir, path := open(t)
	check(t, os.WriteFile(filepath.Join(path, "src"), []byte("deb"), 0o644))
	check(t, os.Truncate(filepath.Join(path, "src"), 1<<40))
	for _, sum := range []*Sum{nil, {}} {
		dst, err := os.Create(filepath.Join(path, "dst"))
		check(t, err)
		err = fill(t.Context(), dir, source{Name: "src", Size: 3}, dst, make([]byte, 4096), sum)
		if err == nil || !strings.Contains(err.Error(), "it had 3 bytes when it was listed, and has 1099511627776") {
			t.Errorf("got %v", err)
		}
		check(t, dst.Close())
	}
	s := newSummer(3) // it grows while it is copied
	if err := s.see(1<<40, []byte("x")); err == nil {
		t.Error("a digest beyond the size")
	}
}

func open(t *testing.T) (*os.File, string) {
	t.Helper()
	path := t.TempDir()
	dir, err := os.Open(path)
	check(t, err)
	t.Cleanup(func() { dir.Close() })
	return dir, path
}
