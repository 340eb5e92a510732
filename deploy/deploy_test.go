package deploy

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/idshift/userns/usernstest"
)

var epoch = time.Unix(1600000000, 123456789)

// TestOutputIsTheCallers deploys what only inner root may read, in every model: owner, mode, time and content.
func TestOutputIsTheCallers(t *testing.T) {
	for _, e := range usernstest.Models(t) {
		for _, umask := range []int{0o022, 0o077} {
			t.Run(fmt.Sprintf("%s %03o", e.Name, umask), func(t *testing.T) {
				g := newGround(t, e, plant{Path: "boot/initrd.img-6.1", Data: map[int64]string{0: "made by dracut"}, Mode: 0o4600, Owner: 33})
				defer syscall.Umask(syscall.Umask(umask))
				d := g.must(t, "boot/initrd.img-*", g.out(), Options{Sum: true, Symlink: "initrd"})
				path := g.out("initrd.img-6.1")
				if got := read(t, g.out("initrd")); got != "made by dracut" || d.Output != path {
					t.Errorf("%q in %+v", got, d)
				}
				var st unix.Stat_t
				check(t, unix.Lstat(path, &st))
				if int(st.Uid) != os.Getuid() || int(st.Gid) != os.Getgid() || st.Nlink != 1 {
					t.Errorf("owner %d:%d, %d links", st.Uid, st.Gid, st.Nlink)
				}
				if want := uint32(0o644 &^ umask); st.Mode&0o7777 != want {
					t.Errorf("mode %o, want %o", st.Mode&0o7777, want)
				}
				if st.Mtim.Nano() != epoch.UnixNano() {
					t.Errorf("time %v", st.Mtim)
				}
				if want := fmt.Sprintf("%x  initrd.img-6.1\n", sha256.Sum256([]byte("made by dracut"))); read(t, path+".sha256") != want {
					t.Errorf("sum file %q", read(t, path+".sha256"))
				}
				tool(t, g.out(), "sha256sum", "--check", "--strict", "initrd.img-6.1.sha256")
			})
		}
	}
}

func TestModeAndTime(t *testing.T) {
	g := newGround(t, usernstest.Models(t)[0], text("file", "x"))
	clamp := int64(1500000000)
	g.must(t, "file", g.out("a"), Options{Mode: 0o751, ClampMTime: &clamp})
	st, err := os.Stat(g.out("a"))
	check(t, err)
	if st.Mode() != 0o751 || st.ModTime().Unix() != clamp {
		t.Errorf("%v %v", st.Mode(), st.ModTime())
	}
	if _, err := g.deploy(t, []string{"file"}, g.out("b"), Options{Mode: 0o4755}); err == nil {
		t.Error("a setuid output was made")
	}
}

// TestGlobs wants exactly one file for a pattern, all of them with All, and shell rules for what matches.
func TestGlobs(t *testing.T) {
	g := newGround(t, usernstest.Models(t)[0],
		text("boot/vmlinuz-6.1", "k1"), text("boot/vmlinuz-6.2", "k2"), text("boot/.hidden", "h"), plant{Path: "boot/vmlinuz-dir", Kind: unix.S_IFDIR},
		text("usr/lib/linux-image-6.1/arm/a.dtb", "a"), text("usr/lib/linux-image-6.1/x86/b.dtb", "b"), text("weird[1]", "w"), text("a*b", "star"),
		plant{Path: "abs", Link: "/boot"}, plant{Path: "up", Link: "../../../../boot"}, plant{Path: "loop", Link: "loop"}, text("bytes-\xff\n", "n"))
	for _, c := range []struct {
		pattern, want string // contents, or an error's words
		all           bool
	}{
		{"boot/vmlinuz-6.1", "k1", false},
		{"/boot/./vmlinuz-6.1", "k1", false},
		{"boot/vmlinuz-*", "matches 2 files, and one is wanted: boot/vmlinuz-6.1, boot/vmlinuz-6.2", false},
		{"boot/vmlinuz-*", "k1 k2", true},
		{"boot/vmlinuz-?.[2-9]", "k2", false},
		{"boot/*", "k1 k2", true},
		{"boot/.h*", "h", false},
		{"usr/lib/linux-image-*/*/*.dtb", "a b", true},
		{"usr/lib/linux-image-*/arm/*.dtb", "a", false},
		{"*/arm/*.dtb", "matches nothing", true},
		{"abs/vmlinuz-6.2", "k2", false},
		{"up/vmlinuz-*2", "k2", false},
		{"abs/../boot/vmlinuz-6.2", "k2", false},
		{"l*/x", "matches nothing", false},
		{"loop/x", "too many levels", false},
		{`weird\[1\]`, "w", false},
		{`a\*b`, "star", false},
		{"a[*]b", "star", false},
		{"bytes-*", "n", false},
		{"abs", "symbolic link to \"/boot\"", false},
		{"boot", "is a directory", false},
		{"boot/[", "syntax error", false},
		{"boot/nothing", "no such file", false},
		{"nothing/*", "no such file", false},
		{"..", "is a directory", false},
		{"", "not the name of a file", false},
	} {
		t.Run(fmt.Sprint(c.pattern, c.all), func(t *testing.T) {
			out, err := os.MkdirTemp(g.dir, "")
			check(t, err)
			s, err := g.deploy(t, []string{c.pattern}, out, Options{All: c.all})
			if err != nil {
				if !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %s", err, c.want)
				}
				return
			}
			var got []string
			for _, o := range s.Outputs {
				got = append(got, read(t, o.Output))
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("got %v, want %s", got, c.want)
			}
		})
	}
}

// TestPlainPaths deploys without a rootfs: through a directory that only inner root may search, and not through a link of inner root's.
func TestPlainPaths(t *testing.T) {
	e := usernstest.Models(t)[0]
	if e.Direct {
		e = usernstest.Models(t)[1]
	}
	g := newGround(t, e, text("closed/deep/file", "x"), plant{Path: "link", Link: "closed"}, plant{Path: "closed/link", Link: "deep"})
	f, err := os.Open(g.root())
	check(t, err)
	defer f.Close()
	_, err = swapHalf.Run(t.Context(), e.Env, swap{Chmod: "closed"}, nil, f)
	check(t, err)
	check(t, os.Symlink(g.root(), filepath.Join(g.dir, "mine")))
	for i, c := range []struct{ path, want string }{
		{"rootfs/closed/deep/file", ""}, {"mine/closed/deep/*", ""}, {"mine/closed/d*/f?le", ""},
		{"rootfs/link/deep/file", "--from"}, {"rootfs/closed/link/file", "not a directory"}, {"rootfs/closed/deep/../deep/file", "invalid cross-device"},
	} {
		_, err := Files(t.Context(), e.Env, []string{g.dir + "/" + c.path}, g.out(fmt.Sprint(i)), Options{})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) && os.Getuid() != 0 {
			t.Errorf("%s: got %v, want %q", c.path, err, c.want)
		}
	}
}

func TestReplaceOnlyWhenAsked(t *testing.T) {
	g := newGround(t, usernstest.Models(t)[0], text("file", "new"), text("two", "2"))
	check(t, os.WriteFile(g.out("file"), []byte("old"), 0o600))
	if _, err := g.deploy(t, []string{"two", "file"}, g.out(), Options{}); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), g.out("file")) {
		t.Errorf("got %v", err)
	}
	if got := read(t, g.out("file")); got != "old" || g.outputs(t) != "file" {
		t.Errorf("%q, %s", got, g.outputs(t))
	}
	if _, err := g.deploy(t, []string{"two", "file"}, g.out(), Options{Replace: true}); err != nil {
		t.Error(err)
	}
	if got := read(t, g.out("file")); got != "new" || g.outputs(t) != "file two" {
		t.Errorf("%q, %s", got, g.outputs(t))
	}
}

func TestDestinations(t *testing.T) {
	g := newGround(t, usernstest.Models(t)[0], text("a/x", "1"), text("b/x", "2"), text("c", "3"))
	for _, c := range []struct {
		sources []string
		dest    string
		o       Options
		want    string
	}{
		{[]string{"a/x", "b/x"}, g.out(), Options{}, "two outputs would be called"},
		{[]string{"a/x", "c"}, g.out("name"), Options{}, "more than one output"},
		{[]string{"a/*"}, g.out("name"), Options{All: true}, "not a directory"},
		{[]string{"c"}, g.out("none") + "/", Options{}, "no such file"},
		{[]string{"c"}, g.out("none/c"), Options{}, "no such file"},
		{[]string{"c"}, "/proc/self/fdinfo/x", Options{}, "/proc/self/fdinfo"},
		{[]string{"c"}, g.out(), Options{Symlink: "c"}, "two outputs would be called"},
		{[]string{"c"}, g.out(), Options{Symlink: "../c"}, "by its name alone"},
		{[]string{"c", "a/x"}, g.out(), Options{Symlink: "l"}, "single output"},
		{[]string{"c", "a/x"}, g.out(), Options{Expect: Expectation{SHA256: strings.Repeat("0", 64)}}, "single source"},
		{[]string{"c"}, g.out(), Options{Expect: Expectation{SHA256: "0"}}, "not a sha256"},
	} {
		if _, err := g.deploy(t, c.sources, c.dest, c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v to %s: got %v, want %q", c.sources, c.dest, err, c.want)
		}
	}
	if got := g.outputs(t); got != "" {
		t.Errorf("left: %s", got)
	}
}

func TestExpectations(t *testing.T) {
	g := newGround(t, usernstest.Models(t)[0], text("file", "x"))
	right, wrong := int64(1), int64(2)
	sum := fmt.Sprintf("%X", sha256.Sum256([]byte("x")))
	var mismatch *MismatchError
	for _, c := range []Compression{Plain, Zstd, Gzip} {
		for _, x := range []Expectation{{Size: &wrong}, {SHA256: strings.Repeat("0", 64)}} {
			if _, err := g.deploy(t, []string{"file"}, g.out(), Options{Expect: x, Compress: c}); !errors.As(err, &mismatch) {
				t.Errorf("%+v: got %v", x, err)
			}
		}
		g.must(t, "file", g.out(), Options{Expect: Expectation{&right, sum}, Compress: c})
	}
}

// TestNames deploys names that have to be escaped, or are as long as can be.
func TestNames(t *testing.T) {
	for _, name := range []string{"a\nb", `a\b`, "-rf", strings.Repeat("n", 248), "\xff"} {
		g := newGround(t, usernstest.Models(t)[0], text(name, "x"))
		pattern := strings.ReplaceAll(name, `\`, `\\`)
		if _, err := g.deploy(t, []string{pattern}, g.out(), Options{Sum: true}); err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		tool(t, g.out(), "sha256sum", "--check", "--strict", "--", name+".sha256")
	}
}

// TestHolesStay compares blocks: an output has no more than its source.
func TestHolesStay(t *testing.T) {
	for _, e := range usernstest.Models(t) {
		g := newGround(t, e, plant{Path: "img", Mode: 0o644, Size: 1 << 28, Data: map[int64]string{0: "a", 100 << 20: strings.Repeat("b", 70000), 1<<28 - 1: "c"}})
		ways := []Options{{}}
		if e.Name == "base" {
			ways = append(ways, Options{Sum: true, Map: true})
		}
		for _, o := range ways {
			d := g.must(t, "img", g.out(), Options{Sum: o.Sum, Map: o.Map, Replace: true})
			var a, b unix.Stat_t
			check(t, errors.Join(unix.Stat(filepath.Join(g.root(), "img"), &a), unix.Stat(g.out("img"), &b)))
			if a.Size != b.Size || b.Blocks > a.Blocks || d.Bytes != 1<<28 || d.Holes < 1<<27 {
				t.Errorf("%s: %d bytes in %d blocks became %d in %d; %+v", e.Name, a.Size, a.Blocks, b.Size, b.Blocks, d)
			}
		}
		if e.Name == "base" {
			tool(t, g.out(), "cmp", "img", filepath.Join(g.root(), "img"))
			tool(t, g.out(), "sha256sum", "--check", "img.sha256")
		}
	}
}

// TestNothingIsLeftOpen counts descriptors.
func TestNothingIsLeftOpen(t *testing.T) {
	g := newGround(t, usernstest.Models(t)[0], text("a", "1"), text("b", "2"), plant{Path: "fifo", Kind: unix.S_IFIFO})
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		check(t, err)
		return len(entries)
	}
	g.must(t, "a", g.out("warm"), Options{Compress: Zstd})
	before := count()
	for range 5 {
		g.must(t, "a", g.out("x"), Options{Replace: true, Sum: true, Map: true})
		for _, sources := range [][]string{{"a", "b", "fifo"}, {"a", "none"}, {"a", "b"}} {
			if _, err := g.deploy(t, sources, g.out("x"), Options{}); err == nil {
				t.Error("no error")
			}
		}
	}
	if after := count(); after > before+2 { // what the runtime opens for itself
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// TestCancelledPublishesNothing cancels in the middle.
func TestCancelledPublishesNothing(t *testing.T) {
	g := newGround(t, usernstest.Models(t)[0], text("a", "1"))
	o := Options{From: g.root()}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o.Progress = func(int64, int64) { cancel() }
	if _, err := Files(ctx, g.env.Env, []string{"a"}, g.out(), o); err == nil {
		t.Error("no error")
	}
	if got := g.outputs(t); got != "" {
		t.Errorf("left: %s", got)
	}
}
