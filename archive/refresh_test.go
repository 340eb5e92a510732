package archive_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/archive/statindex"
	"github.com/nsferry/nsferry/archive/treetest"
	"github.com/nsferry/nsferry/idshift"
	"github.com/nsferry/nsferry/tier"
)

func refreshing() archive.RefreshOptions {
	return archive.RefreshOptions{IDs: archive.IDs{Plain: idshift.Identity()}, Policy: archive.Policy{}.WithDefaults(true), Workers: 2}
}

// refresh turns dir into the state of the archive.
func refresh(t testing.TB, archived []byte, dir *os.File, o archive.RefreshOptions) archive.Refreshed {
	t.Helper()
	sum, err := archive.Refresh(t.Context(), file(t, archived), dir, o)
	check(t, err)
	return sum
}

// small are the oddities without those that take long.
func small() []listing.Node {
	nodes := slices.DeleteFunc(treetest.Oddities(), func(n listing.Node) bool { return n.Size > 5<<20 })
	kept, _ := storable(nodes)
	return kept
}

// TestRefreshRandom turns any tree into any other one, and back.
func TestRefreshRandom(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	for seed := range uint64(tier.Soaking(200, 4)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			first, second := treetest.Random(seed, 120), treetest.Random(seed+1000, 120)
			if seed == 0 {
				second = small()
			}
			a, _ := pack(t, build(t, first), options())
			b, _ := pack(t, build(t, second), options())
			wantA, _ := unpack(t, a, extraction())
			wantB, _ := unpack(t, b, extraction())
			dir, _ := unpack(t, a, extraction())
			if sum := refresh(t, a, dir, refreshing()); sum.Changed() || sum.Kept != sum.Entries {
				t.Errorf("the same tree is changed: %+v", sum)
			}
			if sum := refresh(t, b, dir, refreshing()); !sum.Changed() {
				t.Errorf("nothing is changed: %+v", sum)
			}
			sameTree(t, dump(t, wantB), dump(t, dir))
			if sum := refresh(t, b, dir, refreshing()); sum.Changed() {
				t.Errorf("a second time something is changed: %+v", sum)
			}
			refresh(t, a, dir, refreshing())
			sameTree(t, dump(t, wantA), dump(t, dir))
		})
	}
}

// TestRefreshTouchesOnlyWhatDiffers looks at inode numbers, at what is read, and at who may go on reading what was replaced.
func TestRefreshTouchesOnlyWhatDiffers(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	const text = "dir . 0:0 755 mtime=1\nfile a 0:0 644 mtime=2 size=3000000 fill=1\nfile b 0:0 644 mtime=2 size=3000000 fill=2\nfile c 0:0 644 mtime=3 \"old\"\nhardlink d c\n"
	archived, _ := pack(t, buildText(t, text), options())
	dir, _ := unpack(t, archived, extraction())
	inode := func(name string) uint64 {
		st, err := os.Lstat(filepath.Join(dir.Name(), name))
		check(t, err)
		return st.Sys().(*syscall.Stat_t).Ino
	}
	before := inode("a")
	reader := opened(t, filepath.Join(dir.Name(), "b"))
	check(t, os.WriteFile(filepath.Join(dir.Name(), "b"), bytes.Repeat([]byte("x"), 3000000), 0))
	sum := refresh(t, archived, dir, refreshing())
	if inode("a") != before || sum.Made != 1 || sum.Fetched > 2 || sum.Adjusted != 1 {
		t.Errorf("%+v", sum)
	}
	var first [1]byte
	if _, err := reader.Read(first[:]); err != nil || first[0] != 'x' {
		t.Errorf("who had the old file open now reads %q, %v", first, err)
	}
	sameTree(t, dump(t, buildText(t, text)), dump(t, dir))
}

// TestRefreshSparesOutside has inodes in the tree that have other names outside of it.
func TestRefreshSparesOutside(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	archived, _ := pack(t, buildText(t, "dir . 0:0 755 mtime=1\nfile a 0:0 644 mtime=2 \"text\"\nfile b 0:0 644 mtime=2 \"text\"\ndir etc 0:0 755 mtime=1\nfile etc/c 0:0 600 mtime=4 \"c\"\n"), options())
	dir, _ := unpack(t, archived, extraction())
	want := dump(t, dir)
	outside := filepath.Join(filepath.Dir(dir.Name()), "outside")
	check(t, os.Mkdir(outside, 0o755))
	for name, mode := range map[string]os.FileMode{"a": 0o600, "b": 0o644} {
		check(t, os.WriteFile(filepath.Join(outside, name), []byte("text"), mode))
		check(t, os.Remove(filepath.Join(dir.Name(), name)))
		check(t, os.Link(filepath.Join(outside, name), filepath.Join(dir.Name(), name)))
	}
	check(t, os.RemoveAll(filepath.Join(dir.Name(), "etc")))
	check(t, os.Symlink(outside, filepath.Join(dir.Name(), "etc")))
	check(t, os.Symlink(outside, filepath.Join(dir.Name(), "extra")))
	before := dump(t, opened(t, outside))
	refresh(t, archived, dir, refreshing())
	sameTree(t, want, dump(t, dir))
	sameTree(t, before, dump(t, opened(t, outside)))
	for _, name := range []string{"a", "b"} {
		if st, err := os.Stat(filepath.Join(outside, name)); err != nil || st.Sys().(*syscall.Stat_t).Nlink != 1 {
			t.Errorf("outside/%s still has a name in the tree (%v)", name, err)
		}
	}
}

// TestRefreshDamage flips bytes of an archive: nothing is changed unless all that is needed is whole.
func TestRefreshDamage(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	archived, _ := pack(t, build(t, treetest.Random(9, 60)), options())
	other := buildText(t, "dir . 0:0 700 mtime=5\ndir a 0:0 700 mtime=5\nfile a/b 0:0 644 mtime=6 \"other\"\n")
	before := dump(t, other)
	f, _ := contents(t, archived)
	step := len(archived)/tier.Soaking(2000, 40) + 1
	for at := 0; at < len(archived); at += step {
		bad := bytes.Clone(archived)
		bad[at] ^= 0x10
		o := refreshing()
		begun := false
		o.Begin = func() error { begun = true; return errors.New("enough") }
		_, err := archive.Refresh(t.Context(), file(t, bad), other, o)
		if begun || err == nil {
			t.Fatalf("byte %d of %d (frames end at %d): begun %v, %v", at, len(bad), f.End(), begun, err)
		}
	}
	for _, cut := range []int{0, 1, 100, int(f.End()), int(f.End()) + 10, len(archived) - 1} {
		if _, err := archive.Refresh(t.Context(), file(t, archived[:cut]), other, refreshing()); err == nil {
			t.Errorf("cut at %d: no error", cut)
		}
	}
	sameTree(t, before, dump(t, other))
}

// TestRefreshForeign has archives that have no table of contents.
func TestRefreshForeign(t *testing.T) {
	o := options()
	o.Format = archive.Plain
	var out bytes.Buffer
	dir := emptyDir(t)
	_, err := archive.Create(t.Context(), dir, &out, o)
	check(t, err)
	if _, err := archive.Refresh(t.Context(), file(t, out.Bytes()), dir, refreshing()); !errors.Is(err, archive.ErrNoTable) {
		t.Error(err)
	}
}

// TestRefreshExcluded leaves what is excluded alone, also in directories that the archive does not have.
func TestRefreshExcluded(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	archived, _ := pack(t, buildText(t, "dir . 0:0 755 mtime=1\ndir var 0:0 755 mtime=2\nfile var/x 0:0 644 mtime=3 \"x\"\n"), options())
	dir := buildText(t, "dir . 0:0 755 mtime=1\ndir var 0:0 700 mtime=2\ndir var/cache 5:5 750 mtime=3\ndir var/cache/apt 5:5 750 mtime=4\nfile var/cache/apt/deb 7:7 600 mtime=5 \"deb\"\nfile var/cache/apt/other 7:7 600 mtime=5 \"deb\"\ndir gone 0:0 755\n")
	o := refreshing()
	o.Exclude = archive.Excludes{"var/cache/apt/deb"}
	refresh(t, archived, dir, o)
	want, err := listing.Parse("dir . 0:0 755 mtime=1\ndir var 0:0 755 mtime=2\ndir var/cache 5:5 750 mtime=3\ndir var/cache/apt 5:5 750 mtime=4\nfile var/cache/apt/deb 7:7 600 mtime=5 \"deb\"\nfile var/x 0:0 644 mtime=3 \"x\"\n")
	check(t, err)
	sameTree(t, want, dump(t, dir))
	if sum := refresh(t, archived, dir, o); sum.Changed() {
		t.Errorf("%+v", sum)
	}
	blocked, _ := pack(t, buildText(t, "dir . 0:0 755 mtime=1\nfile var 0:0 755 mtime=2 \"in the way\"\n"), options())
	_, err = archive.Refresh(t.Context(), file(t, blocked), dir, o)
	wantError(t, err, "something excluded in it")
	sameTree(t, want, dump(t, dir))
}

// TestRefreshOnly takes parts of an archive, and reads the frames of these only.
func TestRefreshOnly(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	archived, _ := pack(t, buildText(t, `dir . 1:1 711 mtime=1
dir a 2:2 711 mtime=2
file a/big 0:0 644 mtime=3 size=9000000 fill=1
file a/small 3:3 600 mtime=3 "small"
dir b 0:0 755 mtime=4
hardlink b/first a/small
hardlink b/second a/small
dir c 0:0 700 mtime=4
`), options())
	dir := emptyDir(t)
	o := refreshing()
	o.Only = []string{"./b/"}
	sum := refresh(t, archived, dir, o)
	want, err := listing.Parse("dir . 1:1 711 mtime=1\ndir b 0:0 755 mtime=4\nfile b/first 3:3 600 mtime=3 \"small\"\nhardlink b/second b/first\n")
	check(t, err)
	sameTree(t, want, dump(t, dir))
	if f, _ := contents(t, archived); sum.Fetched != 1 || len(f.Frames()) < 3 {
		t.Errorf("%d frames were read of %d", sum.Fetched, len(f.Frames()))
	}
	o.Only = []string{"c", "../x"}
	_, err = archive.Refresh(t.Context(), file(t, archived), emptyDir(t), o)
	wantError(t, err, "outside")
	o.Only = []string{"c"}
	_, err = archive.Refresh(t.Context(), file(t, archived), dir, o)
	wantError(t, err, "empty tree only")
}

// indexOf is the index of a tree that is old enough for one.
func indexOf(t testing.TB, archived []byte, dir *os.File) []byte {
	t.Helper()
	time.Sleep(50 * time.Millisecond)
	var w *statindex.Writer
	o := refreshing()
	o.Remember = func() *statindex.Writer {
		var err error
		w, err = statindex.NewWriter(dir, statindex.Options{})
		check(t, err)
		return w
	}
	x := extraction()
	x.Remember = func() *statindex.Writer { return nil }
	refresh(t, archived, dir, o)
	var out bytes.Buffer
	if w != nil {
		_, err := w.WriteTo(&out)
		check(t, err)
	}
	return out.Bytes()
}

// TestRefreshIndex has an index that is right, and one damaged in every byte, before a tree that was changed in every way: with none
// the result is another one.
func TestRefreshIndex(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	base, err := os.MkdirTemp("/dev/shm", "nsferry-refresh-*") // a filesystem that may have an index
	check(t, err)
	t.Cleanup(func() { check(t, os.RemoveAll(base)) })
	nodes, err := listing.Parse("dir . 0:0 755 mtime=1\nfile a 0:0 644 mtime=2 \"text\"\nfile b 0:0 644 mtime=2 size=100000 fill=5\nsymlink l 0:0 a mtime=2\nfile x 0:0 644 mtime=2 xattr:user.k=\"v\" \"x\"\n")
	check(t, err)
	root := filepath.Join(base, "tree")
	check(t, os.Mkdir(root, 0o755))
	check(t, treetest.Build(root, nodes))
	dir := opened(t, root)
	archived, _ := pack(t, dir, options())
	want := dump(t, dir)
	time.Sleep(3100 * time.Millisecond) // what is young is not remembered
	index := indexOf(t, archived, dir)
	known, err := statindex.Read(file(t, index), dir)
	check(t, err)
	if known.Len() != len(nodes) {
		t.Fatalf("the index has %d records", known.Len())
	}
	mutate := []func() error{
		func() error { return nil },
		func() error { return os.WriteFile(filepath.Join(root, "a"), []byte("TEXT"), 0) },
		func() error { return os.Chmod(filepath.Join(root, "b"), 0o600) },
		func() error {
			return errors.Join(os.Remove(filepath.Join(root, "l")), os.Symlink("b", filepath.Join(root, "l")))
		},
	}
	step := tier.Soaking(1, 7)
	for at := 0; at < len(index); at += step {
		check(t, mutate[at%len(mutate)]())
		bad := bytes.Clone(index)
		bad[at] ^= 1 << (at % 8)
		o := refreshing()
		if o.Index, err = statindex.Read(file(t, bad), dir); err == nil {
			t.Fatalf("byte %d: damaged, and believed", at)
		}
		refresh(t, archived, dir, o)
		check(t, mutate[at%len(mutate)]())
		o.Index = known
		refresh(t, archived, dir, o)
		sameTree(t, want, dump(t, dir))
		if t.Failed() {
			t.Fatalf("byte %d", at)
		}
	}
}

// TestExtractIndex compares what Extract tells an index with what Refresh finds by reading.
func TestExtractIndex(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	archived, _ := pack(t, build(t, small()), options())
	base, err := os.MkdirTemp("/dev/shm", "nsferry-refresh-*")
	check(t, err)
	t.Cleanup(func() { check(t, os.RemoveAll(base)) })
	dir := opened(t, base)
	x := extraction()
	var w *statindex.Writer
	x.Remember = func() *statindex.Writer {
		time.Sleep(50 * time.Millisecond)
		w, err = statindex.NewWriter(dir, statindex.Options{})
		check(t, err)
		return w
	}
	sum, err := archive.Extract(t.Context(), bytes.NewReader(archived), dir, x)
	check(t, err)
	var out bytes.Buffer
	_, err = w.WriteTo(&out)
	check(t, err)
	o := refreshing()
	o.Index, err = statindex.Read(file(t, out.Bytes()), dir)
	check(t, err)
	none := 0 // links, and inodes of which nothing can be said
	for _, n := range dump(t, dir) {
		if n.Type == listing.Hardlink || n.Type != listing.File && (n.ACL != "" || n.Default != "" || n.Xattrs != nil) {
			none++
		}
	}
	if got := o.Index.Len(); got != int(sum.Entries)-none {
		t.Errorf("%d records of %d entries, %d of them with nothing to say", got, sum.Entries, none)
	}
	o.Remember = func() *statindex.Writer { t.Error("there is something new to remember"); return nil }
	if sum := refresh(t, archived, dir, o); sum.Changed() {
		t.Errorf("%+v", sum)
	}
}
