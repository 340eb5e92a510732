package debs

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pierrec/lz4/v4"

	"github.com/nsferry/nsferry/tier"
)

// TestStructure: what dpkg-deb makes is whole, with any compressor; every shorter file and every longer one is not.
func TestStructure(t *testing.T) {
	tier.Program(t, "dpkg-deb")
	p := Package{"sample", "1:2.0~rc1-1", "amd64"}
	for _, z := range []string{"-Znone", "-Zgzip", "-Zxz", "-Zzstd"} {
		data := buildDeb(t, p, "x", z)
		if _, err := checkStructure(bytes.NewReader(data), int64(len(data))); err != nil {
			t.Errorf("%s: %v", z, err)
		}
		if got, err := readControl(bytes.NewReader(data), int64(len(data))); err != nil || got != p {
			t.Errorf("%s: control says %v, %v", z, got, err)
		}
		for n := range data {
			_, err := checkStructure(bytes.NewReader(data[:n]), int64(n))
			if n == len(data)-1 && data[n] == '\n' && err == nil {
				continue // only ar's pad byte is gone
			}
			if !errors.Is(err, errDamaged) {
				t.Fatalf("%s: %d of %d bytes: %v", z, n, len(data), err)
			}
		}
		long := append(bytes.Clone(data), 'x')
		if _, err := checkStructure(bytes.NewReader(long), int64(len(long))); !errors.Is(err, errDamaged) {
			t.Errorf("%s: with a byte more: %v", z, err)
		}
		// A size that says more than is there.
		lie := bytes.Clone(data)
		copy(lie[8+48:], "9999999999")
		if _, err := checkStructure(bytes.NewReader(lie), int64(len(lie))); !errors.Is(err, errDamaged) {
			t.Errorf("%s: with a lie: %v", z, err)
		}
	}
	for name, data := range map[string]string{"zip": "PK\x03\x04" + strings.Repeat("x", 100), "text": "hello", "empty": "", "ar": "!<arch>\n", "zeros": strings.Repeat("\x00", 5000)} {
		if _, err := checkStructure(strings.NewReader(data), int64(len(data))); !errors.Is(err, errDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzStructure: no input panics, and none that dpkg-deb made is refused (the corpus has one).
func FuzzStructure(f *testing.F) {
	if _, err := exec.LookPath("dpkg-deb"); err == nil {
		f.Add(buildDeb(f, Package{"a", "1", "all"}, "x", "-Znone"))
	}
	f.Add([]byte("!<arch>\ndebian-binary   0           0     0     100644  4         `\n2.0\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		members, err := checkStructure(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		last := members[len(members)-1]
		if end := last.offset + last.size; end != int64(len(data)) && end+1 != int64(len(data)) {
			t.Errorf("the last member ends at %d of %d", end, len(data))
		}
		_, _ = readControl(bytes.NewReader(data), int64(len(data)))
	})
}

// TestLists: an index is the same however the lists are stored, and with whatever order and spacing of fields.
func TestLists(t *testing.T) {
	a, b := sample{Package{"a", "1:2", "amd64"}, []byte("a")}, sample{Package{"bb", "1", "all"}, []byte("bb")}
	text := packages(a, b) + "Version: 3\nSHA256:" + strings.Repeat("ab", 32) + "\nSize:7\nArchitecture: all\nPackage:last\n"
	for _, kind := range []string{"", ".gz", ".xz", ".zst", ".bz2", ".lz4"} {
		dir := t.TempDir()
		file := filepath.Join(dir, "x_Packages")
		check(t, os.WriteFile(file, []byte(text), 0o644))
		var packed bytes.Buffer
		switch kind {
		case ".gz":
			w := gzip.NewWriter(&packed)
			_, _ = w.Write([]byte(text))
			check(t, w.Close())
		case ".lz4":
			w := lz4.NewWriter(&packed)
			_, _ = w.Write([]byte(text))
			check(t, w.Close())
		case ".xz", ".zst", ".bz2":
			tool := map[string]string{".xz": "xz", ".zst": "zstd", ".bz2": "bzip2"}[kind]
			tier.Program(t, tool)
			cmd := exec.Command(tool, "-c", file)
			cmd.Stdout = &packed
			check(t, cmd.Run())
		}
		if kind != "" {
			check(t, os.Remove(file))
			check(t, os.WriteFile(file+kind, packed.Bytes(), 0o644))
		}
		x := listsAt(t, dir, []string{"a", "bb", "last"})
		if s := x[a.Package]; len(s) != 1 || s[0] != (Sum{1, sha256.Sum256(a.data)}) {
			t.Errorf("%s: a: %v", kind, s)
		}
		if len(x[Package{"a", "2", "amd64"}]) != 1 {
			t.Errorf("%s: the name of a pool's file is not found", kind)
		}
		if s := x[Package{"last", "3", "all"}]; len(s) != 1 || s[0].Size != 7 {
			t.Errorf("%s: last: %v", kind, s)
		}
		only := listsAt(t, dir, []string{"bb"})
		if len(only) != 1 || len(only[b.Package]) != 1 {
			t.Errorf("%s: asked for bb: %v", kind, only)
		}
	}
}

// TestLongLists: stanzas that cross the borders of what is read at once are found, and a very long one too.
func TestLongLists(t *testing.T) {
	var all []sample
	for i := range 9000 {
		all = append(all, sample{Package{fmt.Sprintf("p%d", i), "1", "all"}, nil})
	}
	text := packages(all...)
	text = text[:len(text)/2] + strings.Replace(text[len(text)/2:], "\n more\n", "\n "+strings.Repeat("more ", 300<<10)+"\n", 1)
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "Packages"), []byte(text), 0o644))
	x := listsAt(t, dir, nil)
	if len(x) != len(all) {
		t.Errorf("%d of %d packages", len(x), len(all))
	}
}

// listsAt reads the lists in a directory. Parsing them has seen the bytes that are there, to the last.
func listsAt(t *testing.T, dir string, names []string) Index {
	t.Helper()
	from := listSource{nil, dir}
	l, err := from.read(t.Context(), names)
	check(t, err)
	if d, err := from.digest(t.Context()); err != nil || d != l.digest {
		t.Errorf("%v: the digest is %x, of what was parsed %x", err, d, l.digest)
	}
	return l.index
}
