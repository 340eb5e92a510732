package listing

import (
	"encoding/hex"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/tier"

	"github.com/google/go-cmp/cmp"
)

func seed(v uint64) *uint64 { return &v }

var lines = []struct {
	line string
	node Node
}{
	{`dir      . 0:0 755`, Node{Type: Dir, Name: ".", Mode: 0o755}},
	{`dir      srv 0:50 2775 default=u::rwx,g::rwx,g:50:rwx,m::rwx,o::r-x`,
		Node{Type: Dir, Name: "srv", GID: 50, Mode: 0o2775, Default: "u::rwx,g::rwx,g:50:rwx,m::rwx,o::r-x"}},
	{`file     srv/a 33:33 640 mtime=1700000000.5 acl=u::rw-,u:1000:r--,g::r--,m::r--,o::--- "hello"`,
		Node{Type: File, Name: "srv/a", UID: 33, GID: 33, Mode: 0o640, MTime: &Time{1700000000, 5e8},
			ACL: "u::rw-,u:1000:r--,g::r--,m::r--,o::---", Size: 5, Content: []byte("hello")}},
	{`hardlink srv/b srv/a`, Node{Type: Hardlink, Name: "srv/b", Target: "srv/a"}},
	{`hardlink "with space" "new\nline"`, Node{Type: Hardlink, Name: "with space", Target: "new\nline"}},
	{`symlink  lib 0:0 usr/lib`, Node{Type: Symlink, Name: "lib", Target: "usr/lib"}},
	{`symlink  lib 0:4294967294 "\xff \"" mtime=-1 xattr:trusted.x=0x`,
		Node{Type: Symlink, Name: "lib", GID: math.MaxUint32 - 1, Target: "\xff \"", MTime: &Time{Sec: -1},
			Xattrs: []Xattr{{"trusted.x", []byte{}}}}},
	{`fifo     p 1:2 000`, Node{Type: Fifo, Name: "p", UID: 1, GID: 2}},
	{`sock     s 1:2 7777`, Node{Type: Sock, Name: "s", UID: 1, GID: 2, Mode: 0o7777}},
	{`char     dev/null 0:0 666 1:3`, Node{Type: Char, Name: "dev/null", Mode: 0o666, Major: 1, Minor: 3}},
	{`block    b 0:0 660 4095:1048575 mtime=0`,
		Node{Type: Block, Name: "b", Mode: 0o660, Major: 4095, Minor: 1048575, MTime: &Time{}}},
	{`file     ping 0:0 755 cap=cap_net_raw=ep size=0`,
		Node{Type: File, Name: "ping", Mode: 0o755, Cap: unhex("0100000200200000000000000000000000000000")}},
	{`file     c3 0:0 755 cap=0x010000030020000000000000000000000000000064000000 size=0`,
		Node{Type: File, Name: "c3", Mode: 0o755, Cap: unhex("010000030020000000000000000000000000000064000000")}},
	{`file     x 0:0 644 xattr:"user.a=b"=0x00ff xattr:user.c=0x ""`,
		Node{Type: File, Name: "x", Mode: 0o644, Content: []byte{},
			Xattrs: []Xattr{{"user.a=b", []byte{0, 0xff}}, {"user.c", []byte{}}}}},
	{`file     big 0:0 644 size=100 fill=7 sparse=0+10,20+5`,
		Node{Type: File, Name: "big", Mode: 0o644, Size: 100, Fill: seed(7), Sparse: []Segment{{0, 10}, {20, 5}}}},
	{`file     hole 0:0 644 size=9223372036854775807 sparse=`,
		Node{Type: File, Name: "hole", Mode: 0o644, Size: math.MaxInt64, Sparse: []Segment{}}},
	{`file     h 0:0 644 size=3 sha256=` + strings.Repeat("0a", 32),
		Node{Type: File, Name: "h", Mode: 0o644, Size: 3, SHA256: strings.Repeat("0a", 32)}},
	{`file     t 0:0 644 mtime=-0.000000001 size=0`, Node{Type: File, Name: "t", Mode: 0o644, MTime: &Time{-1, 999999999}}},
	{`file     t 0:0 644 mtime=-1.5 size=0`, Node{Type: File, Name: "t", Mode: 0o644, MTime: &Time{-2, 5e8}}},
	{`file     t 0:0 644 mtime=-9223372036854775808 size=0`, Node{Type: File, Name: "t", Mode: 0o644, MTime: &Time{Sec: math.MinInt64}}},
	{`file     # 0:0 644 size=0`, Node{Type: File, Name: "#", Mode: 0o644}},
	{`file     ü 0:0 644 size=0`, Node{Type: File, Name: "ü", Mode: 0o644}},
	{`file     "\u00a0\u202e" 0:0 644 size=0`, Node{Type: File, Name: "\u00a0\u202e", Mode: 0o644}},
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func TestLine(t *testing.T) {
	for _, c := range lines {
		t.Run(c.line, func(t *testing.T) {
			if got := c.node.Line(); got != c.line {
				t.Errorf("Line:\ngot  %s\nwant %s", got, c.line)
			}
			got, err := ParseLine(c.line)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.node, got); d != "" {
				t.Errorf("ParseLine (-want +got):\n%s", d)
			}
		})
	}
}

// TestParseLiberal reads what people write and Line does not.
func TestParseLiberal(t *testing.T) {
	for in, want := range map[string]string{
		"dir srv 0:50 2775\tdefault=user::rwx,group::rwx,group:50:7,mask::rwx,other::r-x": "dir      srv 0:50 2775 default=u::rwx,g::rwx,g:50:rwx,m::rwx,o::r-x",
		`file a 0:0 0644 "x" mtime=5.10`:                           `file     a 0:0 644 mtime=5.1 "x"`,
		`file a 0:0 0644 xattr:user.b="x y" xattr:user.a=0x00 "x"`: `file     a 0:0 644 xattr:user.a=0x00 xattr:user.b=0x782079 "x"`,
		`file a 0:0 0644`:   `file     a 0:0 644 size=0`,
		`file "a" 0:0 0644`: `file     a 0:0 644 size=0`,
		`file a 0:0 755 cap=0100000200200000000000000000000000000000`: `file     a 0:0 755 cap=cap_net_raw=ep size=0`,
		"file a 0:0 755\r": `file     a 0:0 755 size=0`,
	} {
		n, err := ParseLine(in)
		if err != nil || n.Line() != want {
			t.Errorf("%s:\ngot  %s, %v\nwant %s", in, n.Line(), err, want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, in := range []string{
		``, `dir`, `tree a 0:0 755`, `dir a`, `dir a 0:0`, `dir a 0 755`, `dir a 0:x 755`, `dir a -1:0 755`,
		`dir a 4294967295:0 755`, `dir a 0:0 888`, `dir a 0:0 17777`, `dir /a 0:0 755`, `dir a/../b 0:0 755`, `dir a//b 0:0 755`,
		`dir a/ 0:0 755`, `dir ./a 0:0 755`, `dir "" 0:0 755`, `dir "a 0:0 755`, `dir "a\x00" 0:0 755`, `dir a"b" 0:0 755`, `dir a\b 0:0 755`,
		`hardlink a`, `hardlink a b mtime=1`, `hardlink a ../b`, `symlink a 0:0`, `symlink a 0:0 ""`, `symlink a 0:0 b "x"`,
		`char a 0:0 644`, `char a 0:0 644 1`, `dir a 0:0 755 "x"`, `dir a 0:0 755 size=1`, `file a 0:0 644 default=u::rwx,g::r-x,o::---`,
		`file a 0:0 644 x`, `file a 0:0 644 x=y`, `file a 0:0 644 mtime=1 mtime=1`, `file a 0:0 644 mtime=1.`, `file a 0:0 644 mtime=1.1234567890`,
		`file a 0:0 644 mtime=.5`, `file a 0:0 644 mtime=1.-5`, `file a 0:0 644 mtime=-9223372036854775808.5`,
		`file a 0:0 644 acl=u::rwx`, `file a 0:0 644 acl=nonsense`, `file a 0:0 644 acl=`, `file a 0:0 644 acl=u::rwx,u:root:rwx,g::rwx,m::rwx,o::rwx`,
		`file a 0:0 644 cap=cap_x=ep`, `file a 0:0 644 cap=cap_chown`, `file a 0:0 644 cap=cap_chown=`, `file a 0:0 644 cap=cap_chown=e`, `file a 0:0 644 cap=0x0`,
		`file a 0:0 644 cap=cap_chown=ep;cap_kill=p`,
		`file a 0:0 644 xattr:user.a=1`, `file a 0:0 644 xattr:=0x00`, `file a 0:0 644 xattr:user.a=0x0`, `file a 0:0 644 xattr:user.a=0x xattr:"user.a"=0x`,
		`file a 0:0 644 size=-1`, `file a 0:0 644 size=9223372036854775808`, `file a 0:0 644 "x" size=1`, `file a 0:0 644 size=1 "x"`,
		`file a 0:0 644 "x" "y"`, `file a 0:0 644 fill=x size=1`, `file a 0:0 644 sha256=00`, `file a 0:0 644 sha256=` + strings.Repeat("0A", 32),
		`file a 0:0 644 size=5 sparse=0+6`, `file a 0:0 644 size=5 sparse=0+0`, `file a 0:0 644 size=5 sparse=2+1,1+1`, `file a 0:0 644 size=5 sparse=1`,
		`file a 0:0 644 size=5 sparse=9223372036854775807+9223372036854775807`, `file a 0:0 644 "abc" sparse=0+1`, `file a 0:0 644 "x`,
	} {
		if n, err := ParseLine(in); err == nil {
			t.Errorf("%s: read as %s", in, n.Line())
		}
	}
}

func TestParseText(t *testing.T) {
	nodes, err := Parse("# a comment\n\ndir . 0:0 755\n  file a 0:0 644 \"x\"\n")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := Text(nodes), "dir      . 0:0 755\nfile     a 0:0 644 \"x\"\n"; got != want {
		t.Errorf("got %s", got)
	}
	if _, err := Parse("dir . 0:0 755\n\nfile\n"); err == nil || !strings.Contains(err.Error(), "line 3") {
		t.Errorf("got %v", err)
	}
}

func TestCompareNames(t *testing.T) {
	want := []string{".", "\x01", ".a", "a", "a/b", "a/b/c", "a/b/c/d", "a/b-", "a/b-/c", "a/\xff", "a\x01", "a-b", "a.b", "a0", "b", "\xff"}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, CompareNames)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for i, a := range want {
		for j, b := range want {
			if c := CompareNames(a, b); (c < 0) != (i < j) || (c == 0) != (i == j) {
				t.Errorf("%q against %q: %d", a, b, c)
			}
		}
	}
}

// TestCapabilityNames asks getcap for every capability that the kernel here knows.
func TestCapabilityNames(t *testing.T) {
	tier.Root(t, "to set capabilities")
	tier.Program(t, "getcap")
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, text := range append([]string{"cap_chown,cap_kill=eip", "cap_chown,cap_kill=i"}, capNames[:]...) {
		if !strings.Contains(text, "=") {
			text += "=ep"
		}
		if out, err := exec.Command("setcap", text, path).CombinedOutput(); err != nil {
			t.Fatalf("setcap %s: %v: %s", text, err, out)
		}
		out, err := exec.Command("getfattr", "--absolute-names", "--only-values", "-n", "security.capability", path).Output()
		if err != nil {
			t.Fatal(err)
		}
		got := capText(out)
		back, err := parseCap(text)
		if got != text || err != nil || string(back) != string(out) {
			t.Errorf("%s: text %s, value %x, %v, want %x", text, got, back, err, out)
		}
	}
}

func FuzzParseLine(f *testing.F) {
	for _, c := range lines {
		f.Add(c.line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		n, err := ParseLine(line)
		if err != nil {
			return
		}
		once := n.Line()
		if strings.ContainsAny(once, "\n\x00") {
			t.Errorf("the line of %q is more than one: %q", line, once)
		}
		again, err := ParseLine(once)
		if err != nil {
			t.Fatalf("%q became %q, which is an error: %v", line, once, err)
		}
		if d := cmp.Diff(n, again); d != "" {
			t.Errorf("%q became %q:\n%s", line, once, d)
		}
		if twice := again.Line(); twice != once {
			t.Errorf("%q became %q", once, twice)
		}
	})
}
