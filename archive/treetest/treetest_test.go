//go:build linux

package treetest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/tier"
)

// built builds the nodes in a new directory.
func built(t testing.TB, nodes []listing.Node) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Build(dir, nodes); err != nil {
		t.Fatal(err)
	}
	return dir
}

func dumped(t testing.TB, dir string) []listing.Node {
	t.Helper()
	nodes, err := Dump(dir)
	if err != nil {
		t.Fatal(err)
	}
	return nodes
}

func parsed(t testing.TB, text string) []listing.Node {
	t.Helper()
	nodes, err := listing.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return nodes
}

func TestOdditiesComeBack(t *testing.T) {
	tier.Root(t, "for all owners")
	want := Oddities()
	got := dumped(t, built(t, want))
	if d := Diff(want, got); d != "" {
		t.Errorf("built, but not dumped (-), and dumped, but not built (+):\n%s", d)
	}
	text := listing.Text(got)
	if again := listing.Text(parsed(t, text)); again != text {
		t.Error("the dump's text does not read back")
	}
	for i := range got[1:] {
		if listing.CompareNames(got[i].Name, got[i+1].Name) >= 0 {
			t.Errorf("%s before %s", got[i].Name, got[i+1].Name)
		}
	}
}

func TestRandomComesBack(t *testing.T) {
	tier.Root(t, "for all owners")
	types := map[listing.Type]int{}
	for seed := range uint64(25) {
		want := Random(seed, 60)
		if listing.Text(Random(seed, 60)) != listing.Text(want) {
			t.Fatal("not the same tree for the same seed")
		}
		for _, n := range want {
			types[n.Type]++
			if back, err := listing.ParseLine(n.Line()); err != nil || back.Line() != n.Line() {
				t.Errorf("%s: %v", n.Line(), err)
			}
		}
		if d := Diff(want, dumped(t, built(t, want))); d != "" {
			t.Errorf("seed %d:\n%s", seed, d)
		}
	}
	for _, typ := range []listing.Type{listing.Dir, listing.File, listing.Hardlink, listing.Symlink, listing.Fifo, listing.Sock} {
		if types[typ] < 20 {
			t.Errorf("%d of type %s in all trees", types[typ], typ)
		}
	}
}

// TestOwnTree builds what any user may.
func TestOwnTree(t *testing.T) {
	own := fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid())
	want := parsed(t, strings.ReplaceAll(`
dir      .   ID 750 mtime=5.000000007
dir      ro  ID 500 mtime=6
file     ro/f ID 400 mtime=7 "x"
symlink  ro/l ID nowhere mtime=8
hardlink ro/h ro/f
file     s ID 644 size=131072 fill=1 sparse=65536+65536 xattr:user.a="b"
fifo     p ID 600
sock     q ID 600
`, "ID", own))
	dir := built(t, want)
	t.Cleanup(func() { os.Chmod(filepath.Join(dir, "ro"), 0o700) })
	if d := Diff(want, dumped(t, dir)); d != "" {
		t.Error(d)
	}
}

// TestInheritance builds below a directory whose default ACL and setgid bit go on to everything.
func TestInheritance(t *testing.T) {
	tier.Root(t, "for all owners")
	dir := built(t, parsed(t, `
dir . 0:50 2777 default=u::rwx,u:1:rwx,g::rwx,m::rwx,o::rwx
`))
	tree := filepath.Join(dir, "tree")
	if err := os.Mkdir(tree, 0o777); err != nil {
		t.Fatal(err)
	}
	want := parsed(t, `
dir      . 0:0 755
dir      d 0:0 755
file     d/f 0:0 644 "x"
fifo     d/p 0:0 600
`)
	if err := Build(tree, want); err != nil {
		t.Fatal(err)
	}
	if d := Diff(want, dumped(t, tree)); d != "" {
		t.Error(d)
	}
}

func TestBuildErrors(t *testing.T) {
	own := fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid())
	for _, text := range []string{
		`file no/f ID 644 "x"`,
		`file f ID 644 size=5`,
		`file f ID 644 size=5 sha256=` + strings.Repeat("0a", 32),
		"file f ID 644\nfile f ID 644",
		"symlink l ID .\nfile l/f ID 644",
		"symlink l ID .\nfile l ID 644",
		`hardlink a b`,
		`file f ID 644 acl=u::rwx,g::r-x,m::r-x,o::---`,
		`fifo f ID 644 xattr:user.a="b"`,
		`symlink f ID x xattr:user.a="b"`,
		`file . ID 644`,
	} {
		dir := t.TempDir()
		if err := Build(dir, parsed(t, strings.ReplaceAll(text, "ID", own))); err == nil {
			t.Errorf("%s: built", text)
		}
	}
	if err := Build(filepath.Join(t.TempDir(), "none"), nil); err == nil {
		t.Error("built in a directory that is not there")
	}
	if _, err := Dump(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("dumped a directory that is not there")
	}
}

func TestDiff(t *testing.T) {
	const base = `file f 1:2 644 mtime=5 "abc" xattr:user.a=0x00`
	const abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" // FIPS 180-2, appendix B.1
	for _, c := range []struct {
		a, b  string
		equal bool
	}{
		{base, base, true},
		{base, `file f 1:2 644 "abc" xattr:user.a=0x00`, true},
		{base, `file f 1:2 644 xattr:user.a=0x00 size=3 sha256=` + abc, true},
		{base, `file f 1:2 644 xattr:user.a=0x00 size=3`, true},
		{"dir a 0:0 755\ndir b 0:0 755", "dir b 0:0 755\ndir a 0:0 755", true},
		{"file b 0:0 644 \"x\"\nhardlink a b\nhardlink c a", "file a 0:0 644 \"x\"\nhardlink b a\nhardlink c b", true},
		{`file f 0:0 644 size=10 fill=3 sparse=0+10`, `file f 0:0 644 size=10 fill=3`, true},
		{`file f 0:0 644 size=0 fill=3`, `file f 0:0 644 ""`, true},
		{`file f 0:0 644 size=100000 sparse=`, `file f 0:0 644 size=100000 fill=0 sparse=`, true},
		{base, `file f 1:2 644 mtime=5 "abd" xattr:user.a=0x00`, false},
		{base, `file f 1:2 644 mtime=5 "abcd" xattr:user.a=0x00`, false},
		{base, `file f 1:2 644 mtime=5.000000001 "abc" xattr:user.a=0x00`, false},
		{base, `file f 3:2 644 mtime=5 "abc" xattr:user.a=0x00`, false},
		{base, `file f 1:3 644 mtime=5 "abc" xattr:user.a=0x00`, false},
		{base, `file f 1:2 640 mtime=5 "abc" xattr:user.a=0x00`, false},
		{base, `file f 1:2 644 mtime=5 "abc" xattr:user.a=0x01`, false},
		{base, `file f 1:2 644 mtime=5 "abc" xattr:user.b=0x00`, false},
		{base, `file f 1:2 644 mtime=5 "abc"`, false},
		{base, `file g 1:2 644 mtime=5 "abc" xattr:user.a=0x00`, false},
		{base, ``, false},
		{``, base, false},
		{base, `file f 1:2 644 mtime=5 "abc" xattr:user.a=0x00 cap=cap_chown=p`, false},
		{base, `file f 1:2 644 mtime=5 "abc" xattr:user.a=0x00 acl=u::rw-,g::r--,m::r--,o::r--`, false},
		{`dir d 0:0 755`, `dir d 0:0 755 default=u::rwx,g::r-x,o::---`, false},
		{`dir d 0:0 755`, `fifo d 0:0 755`, false},
		{`symlink l 0:0 a`, `symlink l 0:0 b`, false},
		{`char d 0:0 644 1:3`, `char d 0:0 644 1:5`, false},
		{"file a 0:0 644 \"x\"\nfile b 0:0 644 \"x\"", "file a 0:0 644 \"x\"\nhardlink b a", false},
		{"file a 0:0 644 \"x\"\nhardlink b a\nhardlink c a", "file a 0:0 644 \"x\"\nhardlink b a\nfile c 0:0 644 \"x\"", false},
		{"hardlink a b\nhardlink b a", "file a 0:0 644\nhardlink b a", false},
		{`file f 0:0 644 size=100000 fill=1`, `file f 0:0 644 size=100000 fill=2`, false},
		{`file f 0:0 644 size=131072 sparse=`, `file f 0:0 644 size=131072`, false},
		{`file f 0:0 644 size=10 fill=3 sparse=0+5`, `file f 0:0 644 size=10 fill=3 sparse=0+6`, false},
	} {
		d := Diff(parsed(t, c.a), parsed(t, c.b))
		if (d == "") != c.equal {
			t.Errorf("%s\nand\n%s\nequal: want %v, got:\n%s", c.a, c.b, c.equal, d)
		}
		if back := Diff(parsed(t, c.b), parsed(t, c.a)); (back == "") != c.equal {
			t.Errorf("%s\nand\n%s\nthe other way round: %s", c.b, c.a, back)
		}
	}
	if got, want := Diff(parsed(t, "dir a 0:0 755"), parsed(t, "dir a 0:0 700")), "-dir      a 0:0 755\n+dir      a 0:0 700\n"; got != want {
		t.Errorf("got %s", got)
	}
}
