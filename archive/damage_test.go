package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/archive/treetest"
	"github.com/nsferry/nsferry/archive/zframe"
	"github.com/nsferry/nsferry/idshift"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// plainIDs are all ids as they are: what real root works with, and anybody with his own.
func plainIDs() IDs { return IDs{Plain: idshift.Identity()} }

func openTestDir(t testing.TB, path string) *os.File {
	t.Helper()
	d, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}

// rich has one of everything that an unprivileged user can make, small what is enough to be an archive.
const (
	rich = `
dir . @ 755 mtime=1
dir d @ 700 mtime=2
file d/f @ 640 mtime=3.5 "content of f"
hardlink h d/f
symlink l @ /d/f mtime=4
fifo p @ 600 mtime=5
file s @ 644 mtime=6 xattr:user.x="y" size=262144 sparse=131072+4096 fill=1
`
	small = "dir . @ 755 mtime=1\nfile f @ 640 mtime=3.5 \"content of f\""
)

// sample is a tree of the running user's, packed.
func sample(t testing.TB, format Format, lines string) []byte {
	t.Helper()
	dir := t.TempDir()
	nodes, err := listing.Parse(strings.ReplaceAll(lines, "@", fmt.Sprintf("%d:%d", os.Geteuid(), os.Getegid())))
	must(t, err)
	must(t, treetest.Build(dir, nodes))
	var out bytes.Buffer
	o := CreateOptions{Format: format, ScanOptions: ScanOptions{IDs: plainIDs(), Policy: Policy{}.WithDefaults(false)}}
	_, err = Create(t.Context(), openTestDir(t, dir), &out, o)
	must(t, err)
	return out.Bytes()
}

// extract unpacks in a directory of its own within work, and returns the tree, which is removed again.
func extract(t testing.TB, work string, archive io.Reader) ([]listing.Node, error) {
	t.Helper()
	dir := filepath.Join(work, "tree")
	must(t, os.Mkdir(dir, 0o700))
	defer func() { must(t, os.RemoveAll(dir)) }()
	d, err := os.Open(dir)
	must(t, err)
	defer d.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_, err = Extract(ctx, archive, d, ExtractOptions{IDs: plainIDs(), Policy: Policy{}.WithDefaults(false), Workers: 2})
	if ctx.Err() != nil {
		t.Fatal("took more than 20 seconds")
	}
	if err != nil {
		return nil, err
	}
	nodes, derr := treetest.Dump(dir)
	must(t, derr)
	return nodes, nil
}

// workplace is a directory with something beside the trees that must not change.
func workplace(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "canary"), []byte("sings"), 0o644))
	t.Cleanup(func() {
		b, err := os.ReadFile(filepath.Join(dir, "canary"))
		names, _ := os.ReadDir(dir)
		if err != nil || string(b) != "sings" || len(names) != 1 {
			t.Errorf("changed outside of the tree: %q, %v, %v", b, names, err)
		}
	})
	return dir
}

// TestTruncated cuts an archive at every byte: each time it is an error. The zeros at the end of a plain tar are missed too.
func TestTruncated(t *testing.T) {
	for _, format := range []Format{Framed, Gzip, Plain} {
		t.Run(string(format), func(t *testing.T) {
			work, whole := workplace(t), sample(t, format, small)
			for n := range whole {
				if format == Plain && n%512 > 1 && n%7 != 0 {
					continue // within a block one place is as good as another
				}
				if nodes, err := extract(t, work, bytes.NewReader(whole[:n])); err == nil {
					t.Errorf("%d of %d bytes were taken: %d inodes", n, len(whole), len(nodes))
				}
			}
			if _, err := extract(t, work, bytes.NewReader(whole)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestFlippedBits turns every bit of an archive of ours around, one at a time: it is an error, or the tree is what it was (the
// table of contents is not what unpack goes by), and verify finds each one.
func TestFlippedBits(t *testing.T) {
	work, whole := workplace(t), sample(t, Framed, small)
	want, err := extract(t, work, bytes.NewReader(whole))
	must(t, err)
	taken := 0
	for i := range 8 * len(whole) {
		bad := bytes.Clone(whole)
		bad[i/8] ^= 1 << (i % 8)
		got, err := extract(t, work, bytes.NewReader(bad))
		if err == nil {
			taken++
			if d := treetest.Diff(want, got); d != "" {
				t.Errorf("bit %d of byte %d gives another tree:\n%s", i%8, i/8, d)
			}
		}
		in := tempFile(t, work, bad)
		_, err = Verify(t.Context(), in, 1)
		in.Close()
		if err == nil {
			t.Errorf("bit %d of byte %d was not found by verify", i%8, i/8)
		}
	}
	t.Logf("%d bytes; %d flips did not matter to the tree", len(whole), taken)
}

// tempFile is an open file without a name.
func tempFile(t testing.TB, dir string, b []byte) *os.File {
	t.Helper()
	f, err := os.CreateTemp(dir, "")
	must(t, err)
	must(t, os.Remove(f.Name()))
	t.Cleanup(func() { f.Close() })
	_, err = f.Write(b)
	must(t, err)
	_, err = f.Seek(0, io.SeekStart)
	must(t, err)
	return f
}

// TestTails: what stands behind the tar stream of an archive with our mark must be its own.
func TestTails(t *testing.T) {
	work, a := workplace(t), sample(t, Framed, rich)
	f, err := zframe.Open(bytes.NewReader(a), int64(len(a)))
	must(t, err)
	end := int(f.End())
	table := len(a) - (8 + 8*2 + 9) // one frame, the table of contents
	lie := func(off int, b byte) []byte { c := bytes.Clone(a); c[off] ^= b; return c }
	skippable := []byte("\x50\x2a\x4d\x18\x04\x00\x00\x00evil")
	for name, c := range map[string]struct {
		archive []byte
		taken   bool // by unpack, which goes by the tar stream
	}{
		"no tail":                         {a[:end], false},
		"no seek table":                   {a[:table], false},
		"table of contents lies":          {lie(end+60, 1), true},
		"table of contents has no sum":    {lie(end+8, 1), true},
		"seek table lies about sizes":     {lie(table+8, 1), false},
		"seek table lies about raw sizes": {lie(table+12, 1), false},
		"seek table lies about frames":    {lie(len(a)-9, 1), false},
		"seek table of another magic":     {lie(len(a)-1, 1), false},
		"foreign frame behind":            {append(bytes.Clone(a), skippable...), false},
		"foreign frame before the tail":   {append(append(bytes.Clone(a[:end]), skippable...), a[end:]...), false},
		"garbage behind":                  {append(bytes.Clone(a), "evil"...), false},
		"zeros behind":                    {append(bytes.Clone(a), make([]byte, 512)...), false},
		"twice":                           {append(bytes.Clone(a), a...), false},
		"tail twice":                      {append(bytes.Clone(a), a[end:]...), false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := extract(t, work, bytes.NewReader(c.archive))
			if (err == nil) != c.taken {
				t.Errorf("unpack: error %v, want one: %v", err, !c.taken)
			}
			in := tempFile(t, work, c.archive)
			if _, err := Verify(t.Context(), in, 1); err == nil {
				t.Error("verify found nothing")
			}
		})
	}
}

// TestHugeHoles: a file that is nothing but a hole must not keep the lister busy for years, and cancelling always helps.
func TestHugeHoles(t *testing.T) {
	work := workplace(t)
	a := slicesTar("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=4611686018427387904")
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var nodes []listing.Node
	err := List(ctx, tempFile(t, work, a), 1, func(n listing.Node) error { nodes = append(nodes, n); return nil })
	if err != nil || len(nodes) != 1 || nodes[0].SHA256 != "" || nodes[0].Size != 1<<62 {
		t.Errorf("after %v: %v, error %v; want one file without a digest", time.Since(start), nodes, err)
	}
	if _, err := converted(t, work, a); err == nil || !strings.Contains(err.Error(), `"f": the sparse files`) {
		t.Errorf("convert: %v", err)
	}
	soon, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	if err := Cat(soon, tempFile(t, work, a), "f", 1, io.Discard); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("cat: %v", err)
	}
}

// converted converts b to the framed format.
func converted(t testing.TB, work string, b []byte) ([]byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var out bytes.Buffer
	in := tempFile(t, work, b)
	defer in.Close()
	_, err := Convert(ctx, in, &out, ConvertOptions{Workers: 2, Temp: func() (*os.File, error) { return tempFile(t, work, nil), nil }})
	if ctx.Err() != nil {
		t.Fatal("took more than 20 seconds")
	}
	return out.Bytes(), err
}

// TestConvertDamaged cuts an archive at every byte, and turns every bit around: convert fails, or gives what the whole one gives.
func TestConvertDamaged(t *testing.T) {
	work := workplace(t)
	for _, format := range []Format{Framed, Gzip, Plain} {
		t.Run(string(format), func(t *testing.T) {
			whole := sample(t, format, small)
			want, err := converted(t, work, whole)
			must(t, err)
			for n := range whole {
				if format == Plain && n%512 > 1 && n%7 != 0 {
					continue
				}
				if _, err := converted(t, work, whole[:n]); err == nil {
					t.Errorf("%d of %d bytes were taken", n, len(whole))
				}
			}
			if format == Plain {
				return // it has no sums of its contents
			}
			for i := range 8 * len(whole) {
				bad := bytes.Clone(whole)
				bad[i/8] ^= 1 << (i % 8)
				if got, err := converted(t, work, bad); err == nil && !bytes.Equal(got, want) {
					t.Errorf("bit %d of byte %d gives another archive", i%8, i/8)
				}
			}
		})
	}
}
