package archive_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/archive/treetest"
	"github.com/nsferry/nsferry/archive/zframe"
	"github.com/nsferry/nsferry/archive/zframe/toc"
	"github.com/nsferry/nsferry/idshift"
	"github.com/nsferry/nsferry/tier"
)

func TestMain(m *testing.M) {
	tier.PrivateMounts()
	os.Exit(m.Run())
}

// tool runs a program that must succeed, and returns its standard output.
func tool(t testing.TB, stdin []byte, name string, args ...string) string {
	t.Helper()
	tier.Program(t, name)
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "TZ=UTC")
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(stdin), &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, stderr.Bytes())
	}
	return string(out)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// emptyDir is a new directory, open.
func emptyDir(t testing.TB) *os.File {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	check(t, os.Mkdir(dir, 0o755))
	return opened(t, dir)
}

func opened(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	check(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// build makes a tree.
func build(t testing.TB, nodes []listing.Node) *os.File {
	t.Helper()
	dir := emptyDir(t)
	check(t, treetest.Build(dir.Name(), nodes))
	return dir
}

// buildText makes a tree from lines.
func buildText(t testing.TB, text string) *os.File {
	t.Helper()
	nodes, err := listing.Parse(text)
	check(t, err)
	return build(t, nodes)
}

// dump reads a tree by the oracle's code.
func dump(t testing.TB, dir *os.File) []listing.Node {
	t.Helper()
	nodes, err := treetest.Dump(dir.Name())
	check(t, err)
	return nodes
}

// options are those of a process that sees inside ids.
func options() archive.CreateOptions {
	return archive.CreateOptions{ScanOptions: archive.ScanOptions{
		IDs: archive.IDs{Plain: idshift.Identity()}, Policy: archive.Policy{}.WithDefaults(true),
	}, Workers: 2}
}

func extraction() archive.ExtractOptions {
	return archive.ExtractOptions{IDs: archive.IDs{Plain: idshift.Identity()}, Policy: archive.Policy{}.WithDefaults(true), Workers: 2}
}

// pack packs a tree that must give an archive.
func pack(t testing.TB, dir *os.File, o archive.CreateOptions) ([]byte, archive.Summary) {
	t.Helper()
	var out bytes.Buffer
	sum, err := archive.Create(t.Context(), dir, &out, o)
	check(t, err)
	if sum.Stored != int64(out.Len()) {
		t.Fatalf("the summary says %d bytes, %d were written", sum.Stored, out.Len())
	}
	return out.Bytes(), sum
}

// unpack extracts an archive that must be good.
func unpack(t testing.TB, archived []byte, o archive.ExtractOptions) (*os.File, archive.Summary) {
	t.Helper()
	dir := emptyDir(t)
	sum, err := archive.Extract(t.Context(), bytes.NewReader(archived), dir, o)
	check(t, err)
	return dir, sum
}

// file puts bytes into a file.
func file(t testing.TB, b []byte) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "archive")
	check(t, os.WriteFile(path, b, 0o600))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	check(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func contents(t testing.TB, archived []byte) (*zframe.File, toc.Contents) {
	t.Helper()
	f, err := zframe.Open(bytes.NewReader(archived), int64(len(archived)))
	check(t, err)
	c, err := toc.ReadAll(f)
	check(t, err)
	return f, c
}

// raw is the tar stream of an archive of ours.
func raw(t testing.TB, archived []byte) []byte {
	t.Helper()
	f, _ := contents(t, archived)
	var out []byte
	for i := range f.Frames() {
		var err error
		out, err = f.ReadFrame(i, out)
		check(t, err)
	}
	return out
}

// without returns the nodes that are not of the type, nor other names of one that is, and how many names went.
func without(nodes []listing.Node, typ listing.Type) (kept []listing.Node, gone int64) {
	names := map[string]bool{}
	for _, n := range nodes {
		if n.Type == typ {
			names[n.Name] = true
		}
	}
	kept = slices.DeleteFunc(slices.Clone(nodes), func(n listing.Node) bool {
		return names[n.Name] || n.Type == listing.Hardlink && names[n.Target]
	})
	return kept, int64(len(nodes) - len(kept))
}

func sameTree(t testing.TB, want, got []listing.Node) {
	t.Helper()
	if d := treetest.Diff(want, got); d != "" {
		t.Errorf("- wanted, + got:\n%s", d)
	}
}

// wantError demands an error that says all of the words.
func wantError(t testing.TB, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; wanted one with %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error does not say %q: %v", w, err)
		}
	}
}

// storable returns the nodes as an archive keeps them: without sockets, and with holes of less than 64 KiB as data (FORMAT
// §1). It also returns how many names of sockets went.
func storable(nodes []listing.Node) (kept []listing.Node, sockets int64) {
	kept, sockets = without(nodes, listing.Sock)
	for i := range kept {
		n := &kept[i]
		if n.Sparse == nil {
			continue
		}
		const least = 64 << 10
		segs := []listing.Segment{}
		end, sparse := int64(0), false
		for _, s := range append(slices.Clone(n.Sparse), listing.Segment{Offset: n.Size}) {
			if s.Offset-end >= least {
				segs, sparse = append(segs, s), true
			} else if len(segs) == 0 {
				segs = append(segs, listing.Segment{Length: s.Offset + s.Length})
			} else {
				last := &segs[len(segs)-1]
				last.Length = s.Offset + s.Length - last.Offset
			}
			end = s.Offset + s.Length
		}
		if segs[len(segs)-1].Length == 0 {
			segs = segs[:len(segs)-1]
		}
		if n.Sparse = segs; !sparse || n.Size <= least {
			n.Sparse = nil
		}
	}
	return kept, sockets
}
