package archive_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/treetest"
	"github.com/nsferry/nsferry/archive/zframe"
	"github.com/nsferry/nsferry/archive/zframe/toc"
	"github.com/nsferry/nsferry/tier"

	"golang.org/x/sys/unix"
)

// retabled returns the archive with a table of contents that says what change makes of it.
func retabled(t testing.TB, archived []byte, change func([]toc.Entry) []toc.Entry) []byte {
	t.Helper()
	f, c := contents(t, archived)
	enc, err := zframe.NewEncoder(3)
	check(t, err)
	w := toc.NewWriter(enc)
	for _, e := range change(c.Entries) {
		check(t, w.Add(&e))
	}
	tail, err := w.Finish(toc.Header{Encoder: c.Header.Encoder, Policy: c.Header.Policy}, c.Frames)
	check(t, err)
	return append(bytes.Clone(archived[:f.End()]), tail...)
}

// TestRefreshLies has tables of contents that are well-formed and not true. What leads out of the tree is refused before anything
// is changed; what the content does not bear out is an error.
func TestRefreshLies(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	source := buildText(t, "dir . 0:0 755 mtime=1\ndir a 0:0 755 mtime=1\nfile a/f 0:0 644 mtime=2 \"text\"\nhardlink a/h a/f\nfile b 0:0 644 mtime=2 size=200000 fill=3 sparse=131072+65536\nsymlink l 0:0 a mtime=2\n")
	archived, _ := pack(t, source, options())
	at := func(es []toc.Entry, name string) *toc.Entry {
		i := slices.IndexFunc(es, func(e toc.Entry) bool { return e.Name == name })
		return &es[i]
	}
	edit := func(name string, f func(*toc.Entry)) func([]toc.Entry) []toc.Entry {
		return func(es []toc.Entry) []toc.Entry { f(at(es, name)); return es }
	}
	for what, c := range map[string]struct {
		change func([]toc.Entry) []toc.Entry
		late   bool // found with the content only
	}{
		"name leads out":      {change: edit("b", func(e *toc.Entry) { e.Name = "b/../../x" })},
		"name is dots":        {change: edit("b", func(e *toc.Entry) { e.Name = "a/.." })},
		"name is empty below": {change: edit("a/f", func(e *toc.Entry) { e.Name = "a/" })},
		"no directory":        {change: edit("b", func(e *toc.Entry) { e.Name = "c/b" })},
		"below a symlink": {change: func(es []toc.Entry) []toc.Entry {
			e := *at(es, "l")
			e.Name = "l/x"
			e.Offset += e.HeaderLen
			return append(es, e)
		}},
		"link to a directory":       {change: edit("a/h", func(e *toc.Entry) { e.Link = "a" })},
		"link to what comes later":  {change: edit("a/h", func(e *toc.Entry) { e.Link = "b" })},
		"link to nothing":           {change: edit("a/h", func(e *toc.Entry) { e.Link = "../../etc/passwd" })},
		"more than the archive has": {change: edit("b", func(e *toc.Entry) { e.Size, e.Sparse = 1<<40, nil })},
		"digest":                    {change: edit("a/f", func(e *toc.Entry) { e.Digest[0] ^= 1 }), late: true},
		"size":                      {change: edit("a/f", func(e *toc.Entry) { e.Size-- }), late: true},
		"owner":                     {change: edit("a/f", func(e *toc.Entry) { e.UID = 7 }), late: true},
		"holes":                     {change: edit("b", func(e *toc.Entry) { e.Sparse[0].Offset -= 4096 }), late: true},
		"other name":                {change: edit("b", func(e *toc.Entry) { e.Name = "c" }), late: true},
	} {
		t.Run(what, func(t *testing.T) {
			dir := emptyDir(t)
			begun := false
			o := refreshing()
			o.Begin = func() error { begun = true; return nil }
			_, err := archive.Refresh(t.Context(), file(t, retabled(t, archived, c.change)), dir, o)
			if bad := (*zframe.CorruptError)(nil); !archive.Damaged(err) && !errors.As(err, &bad) || begun != c.late {
				t.Errorf("begun %v: %v", begun, err)
			}
		})
	}
}

// TestRefreshMount refuses a tree in which something is mounted, and leaves it as it is; in an excluded directory it may be.
func TestRefreshMount(t *testing.T) {
	tier.Root(t, "mounts")
	archived, _ := pack(t, buildText(t, "dir . 0:0 755 mtime=1\n"), options())
	dir := buildText(t, "dir . 0:0 755 mtime=1\ndir a 0:0 755 mtime=1\ndir a/m 0:0 755 mtime=1\nfile x 0:0 755 mtime=1 \"x\"\n")
	at := filepath.Join(dir.Name(), "a/m")
	check(t, unix.Mount("none", at, "tmpfs", 0, ""))
	t.Cleanup(func() { check(t, unix.Unmount(at, 0)) })
	check(t, os.WriteFile(filepath.Join(at, "precious"), nil, 0o600))
	before := dump(t, dir)
	_, err := archive.Refresh(t.Context(), file(t, archived), dir, refreshing())
	wantError(t, err, "a/m", "something is mounted here")
	sameTree(t, before, dump(t, dir))
	o := refreshing()
	o.Exclude = archive.Excludes{"a/m"}
	refresh(t, archived, dir, o)
	if _, err := os.Stat(filepath.Join(at, "precious")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir.Name(), "x")); err == nil {
		t.Error("nothing was refreshed")
	}
}

// TestRefreshRace has somebody in the tree who swaps directories for links that lead out, while it is refreshed. Whatever comes of the
// tree, nothing beside it changes.
func TestRefreshRace(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	a, _ := pack(t, build(t, treetest.Random(5, 200)), options())
	b, _ := pack(t, build(t, treetest.Random(6, 200)), options())
	dir, _ := unpack(t, a, extraction())
	outside := filepath.Join(filepath.Dir(dir.Name()), "outside")
	check(t, os.Mkdir(outside, 0o755))
	check(t, treetest.Build(outside, treetest.Random(5, 60)))
	before := dump(t, opened(t, outside))
	for round := range tier.Soaking(500, 12) {
		stop := make(chan struct{})
		var attacker sync.WaitGroup
		attacker.Go(func() { swap(dir.Name(), outside, uint64(round), stop) })
		for i := range 4 {
			_, _ = archive.Refresh(t.Context(), file(t, [][]byte{a, b}[i%2]), dir, refreshing()) // any error will do
		}
		close(stop)
		attacker.Wait()
		sameTree(t, before, dump(t, opened(t, outside)))
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
	check(t, os.RemoveAll(dir.Name()+"/swapped"))
	refresh(t, b, dir, refreshing())
	want, _ := unpack(t, b, extraction())
	sameTree(t, dump(t, want), dump(t, dir))
}

// swap replaces names at the top of the tree by links to outside, and back.
func swap(dir, outside string, seed uint64, stop chan struct{}) {
	random := rand.New(rand.NewPCG(seed, 1))
	for {
		select {
		case <-stop:
			return
		default:
		}
		names, _ := os.ReadDir(dir)
		if len(names) == 0 {
			continue
		}
		name := filepath.Join(dir, names[random.IntN(len(names))].Name())
		kept := filepath.Join(dir, fmt.Sprintf("swapped%d", random.IntN(3)))
		if os.Rename(name, kept) == nil && os.Symlink(outside, name) == nil && random.IntN(2) == 0 {
			_ = os.Rename(kept, name) // over the link: whatever comes of it
		}
	}
}
