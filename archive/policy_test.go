package archive_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/idshift"
	"github.com/nsferry/nsferry/tier"
)

// names lists an archive by its names, blank separated.
func names(t testing.TB, archived []byte) string {
	t.Helper()
	var all []string
	for _, n := range listed(t, archived) {
		all = append(all, n.Name)
	}
	return strings.Join(all, " ")
}

func listed(t testing.TB, archived []byte) []listing.Node {
	t.Helper()
	nodes := []listing.Node{}
	check(t, archive.List(t.Context(), file(t, archived), 2, func(n listing.Node) error {
		nodes = append(nodes, n)
		return nil
	}))
	return nodes
}

const specialTree = `dir . 0:0 755 mtime=1
dir d 0:0 755 mtime=1
char d/null 0:0 666 1:3 mtime=1
block d/disk 0:6 660 259:70000 mtime=1
hardlink d/null-2 d/null
file f 0:0 644 mtime=1 "x"
sock sock 0:0 755 mtime=1
hardlink sock-2 sock
char whiteout 0:0 000 0:0 mtime=1
`

func TestSpecialFiles(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	dir := buildText(t, specialTree)
	stored, sum := pack(t, dir, options())
	if got, want := names(t, stored), ". d d/disk d/null d/null-2 f whiteout"; got != want || sum.Skipped["socket"] != 2 {
		t.Errorf("stored: %s, left out %v", got, sum.Skipped)
	}
	whole, _ := unpack(t, stored, extraction())
	want, _ := storable(dump(t, dir))
	sameTree(t, want, dump(t, whole))

	o := options()
	o.Policy.Devices = archive.Skip
	skipped, sum := pack(t, dir, o)
	if d := cmp.Diff(map[string]int64{"socket": 2, "device node": 3}, sum.Skipped); d != "" {
		t.Error(d)
	}
	if got, want := names(t, skipped), ". d f whiteout"; got != want {
		t.Errorf("skip: %s, want %s", got, want)
	}
	if w := sum.Warnings(); len(w) != 2 || w[0] != "left out 2 × socket" || w[1] != "left out 3 × device node" {
		t.Errorf("warnings: %q", w)
	}
	x := extraction()
	x.Policy.Devices = archive.Fail
	_, err := archive.Extract(t.Context(), bytes.NewReader(stored), emptyDir(t), x)
	wantError(t, err, "d/disk", "--devices")
	o.Policy.Devices = archive.Fail
	_, err = archive.Create(t.Context(), dir, io.Discard, o)
	wantError(t, err, "d/disk", "--devices")
	o = options()
	o.Policy.Sockets = archive.Fail
	_, err = archive.Create(t.Context(), dir, io.Discard, o)
	wantError(t, err, "sock", "--sockets")
}

// TestSkippedDeviceLinks leaves out on extraction what a skipped device has other names of.
func TestSkippedDeviceLinks(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	stored, _ := pack(t, buildText(t, specialTree), options())
	x := extraction()
	x.Policy.Devices = archive.Skip
	dir, sum := unpack(t, stored, x)
	for _, gone := range []string{"d/null", "d/null-2", "d/disk"} {
		if _, err := os.Lstat(filepath.Join(dir.Name(), gone)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", gone, err)
		}
	}
	if sum.Skipped["device node"] != 3 {
		t.Errorf("left out: %v", sum.Skipped)
	}
}

func TestXattrPolicies(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	dir := buildText(t, `dir . 0:0 755 mtime=1 default=u::rwx,u:5:rwx,g::r-x,m::rwx,o::---
file f 0:0 750 mtime=1 acl=u::rwx,u:9:r-x,g::r-x,m::r-x,o::--- cap=cap_setuid=ep xattr:user.k="v" xattr:trusted.t="t" "x"
`)
	want := dump(t, dir)
	for _, c := range []struct {
		x       archive.Xattrs
		skipped map[string]int64
		strip   func(*listing.Node)
	}{
		{archive.All, nil, func(*listing.Node) {}},
		{archive.Portable, map[string]int64{"attribute trusted.t": 1}, func(n *listing.Node) {
			if n.Name == "f" {
				n.Xattrs = n.Xattrs[1:]
			}
		}},
		{archive.None, map[string]int64{"attribute trusted.t": 1, "attribute user.k": 1, "attribute security.capability": 1,
			"attribute system.posix_acl_access": 1, "attribute system.posix_acl_default": 1},
			func(n *listing.Node) { n.Xattrs, n.ACL, n.Default, n.Cap = nil, "", "", nil }},
	} {
		nodes := append([]listing.Node(nil), want...)
		for i := range nodes {
			c.strip(&nodes[i])
		}
		o, x := options(), extraction()
		o.Policy.Xattrs, x.Policy.Xattrs = c.x, c.x
		all := options()
		all.Policy.Xattrs = archive.All
		full, _ := pack(t, dir, all)
		packed, sum := pack(t, dir, o)
		if d := cmp.Diff(c.skipped, sum.Skipped); d != "" {
			t.Errorf("%s: %s", c.x, d)
		}
		// Left out on the way in and on the way out, and counted both times.
		early, _ := unpack(t, packed, extractionAll())
		late, back := unpack(t, full, x)
		if d := cmp.Diff(c.skipped, back.Skipped); d != "" {
			t.Errorf("%s: %s", c.x, d)
		}
		sameTree(t, nodes, dump(t, early))
		sameTree(t, nodes, dump(t, late))
	}
}

func extractionAll() archive.ExtractOptions {
	x := extraction()
	x.Policy.Xattrs = archive.All
	return x
}

func TestExcludes(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	dir := buildText(t, `dir . 0:0 755 mtime=1
dir dev 0:0 755 mtime=1
fifo dev/console 0:0 600 mtime=1
file dev/null 0:0 600 mtime=1 ""
dir tmp 0:0 1777 mtime=1
file tmp/x 0:0 600 mtime=1 ""
dir tmp/y 0:0 700 mtime=1
file tmp/y/z 0:0 600 mtime=1 ""
dir var 0:0 755 mtime=1
dir var/tmp 0:0 755 mtime=1
file var/tmp/x 0:0 644 mtime=1 ""
`)
	whole, _ := pack(t, dir, options())
	for pattern, want := range map[string]string{
		"./dev/console": ". dev dev/null tmp tmp/x tmp/y tmp/y/z var var/tmp var/tmp/x",
		"tmp/*":         ". dev dev/console dev/null tmp var var/tmp var/tmp/x",
		"/tmp":          ". dev dev/console dev/null var var/tmp var/tmp/x",
		"var/":          ". dev dev/console dev/null tmp tmp/x tmp/y tmp/y/z",
		"*/*/z":         ". dev dev/console dev/null tmp tmp/x tmp/y var var/tmp var/tmp/x",
		"x":             ". dev dev/console dev/null tmp tmp/x tmp/y tmp/y/z var var/tmp var/tmp/x",
		"d?v":           ". tmp tmp/x tmp/y tmp/y/z var var/tmp var/tmp/x",
	} {
		o, x := options(), extraction()
		o.Exclude, x.Exclude = archive.Excludes{pattern}, archive.Excludes{pattern}
		packed, _ := pack(t, dir, o)
		if got := names(t, packed); got != want {
			t.Errorf("pack without %s: %s", pattern, got)
		}
		out, _ := unpack(t, whole, x)
		again, _ := pack(t, out, options())
		if got := names(t, again); got != want {
			t.Errorf("unpack without %s: %s", pattern, got)
		}
	}
	o, x := options(), extraction()
	o.Exclude, x.Exclude = archive.Excludes{"[a"}, archive.Excludes{"[a"}
	_, err := archive.Create(t.Context(), dir, io.Discard, o)
	wantError(t, err, "[a")
	_, err = archive.Extract(t.Context(), bytes.NewReader(whole), emptyDir(t), x)
	wantError(t, err, "[a")
}

func TestClamp(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	dir := buildText(t, `dir . 0:0 755 mtime=2000
file early 0:0 644 mtime=-7.25 ""
file just 0:0 644 mtime=1000 ""
file late 0:0 644 mtime=1000.000000001 ""
symlink latest 0:0 late mtime=99999999999.5
`)
	o := options()
	epoch := int64(1000)
	o.ClampMTime = &epoch
	packed, _ := pack(t, dir, o)
	got := ""
	for _, n := range listed(t, packed) {
		got += fmt.Sprintf("%s=%v ", n.Name, n.MTime)
	}
	if want := ".=1000 early=-7.25 just=1000 late=1000 latest=1000 "; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestMisfits wants every id that has no place in one message: of owners, ACLs and defaults, both ways, and nothing kept.
func TestMisfits(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	dir := buildText(t, `dir . 0:0 755 mtime=1 default=u::rwx,u:70004:rwx,g::r-x,m::rwx,o::---
file a 70000:0 644 mtime=1 "x"
file b 70000:70001 644 mtime=1 "x"
file c 0:0 640 mtime=1 acl=u::rw-,u:70002:r--,g::r--,g:70003:r--,m::r--,o::--- "x"
file d 0:0 640 mtime=1 "x"
`)
	m, err := idshift.NewMap(idshift.Extent{Inside: 0, Outside: 0, Count: 65535})
	check(t, err)
	small := archive.IDs{Plain: idshift.Mapping{UID: m, GID: m}}
	whole, _ := pack(t, dir, options())
	o, x := options(), extraction()
	o.IDs, x.IDs = small, small
	target := emptyDir(t)
	_, cerr := archive.Create(t.Context(), dir, io.Discard, o)
	_, xerr := archive.Extract(t.Context(), bytes.NewReader(whole), target, x)
	for _, err := range []error{cerr, xerr} {
		wantError(t, err, "5 ids", `uid 70000 (2 ×, first "./a")`, `gid 70001 (1 ×, first "./b")`, "uid 70002", "gid 70003", "uid 70004")
		var misfit *archive.MisfitError
		if !errors.As(err, &misfit) || misfit.Total != 5 || len(misfit.IDs) != 5 {
			t.Errorf("%#v", err)
		}
	}
	if names, _ := os.ReadDir(target.Name()); len(names) > 0 {
		t.Errorf("something was written: %v", names)
	}
}

func TestUnmappedToNobody(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	dir := buildText(t, "dir . 0:0 755 mtime=1\nfile a 70000:5 644 mtime=1 \"x\"\nfile b 6:70001 644 mtime=1 \"x\"\nfile c 0:0 640 mtime=1 acl=u::rw-,u:6:r--,u:70002:r--,g::---,g:70003:rw-,m::r--,o::--- \"x\"\n")
	m, err := idshift.NewMap(idshift.Extent{Inside: 0, Outside: 0, Count: 65535})
	check(t, err)
	o, x := options(), extraction()
	o.IDs.Plain = idshift.Mapping{UID: m, GID: m}
	o.Policy.Unmapped = archive.Nobody
	x.IDs, x.Policy = o.IDs, o.Policy
	packed, sum := pack(t, dir, o)
	whole, _ := pack(t, dir, options())
	late, back := unpack(t, whole, x)
	early, _ := unpack(t, packed, extraction())
	for _, got := range []*os.File{early, late} {
		sameTree(t, dump(t, buildText(t, "dir . 0:0 755 mtime=1\nfile a 65534:5 644 mtime=1 \"x\"\nfile b 6:65534 644 mtime=1 \"x\"\nfile c 0:0 640 mtime=1 acl=u::rw-,u:6:r--,g::---,m::r--,o::--- \"x\"\n")), dump(t, got))
	}
	want := map[string]int64{"owner without a place in the map (now 65534)": 2, "ACL entry without a place in the map": 2}
	if d := cmp.Diff([]map[string]int64{want, want}, []map[string]int64{sum.Skipped, back.Skipped}); d != "" {
		t.Error(d)
	}
}

// TestMounts does not look into what is mounted in a tree, bind mounts of the same filesystem included.
func TestMounts(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	dir := buildText(t, `dir . 0:0 755 mtime=1
dir bind 0:5 711 mtime=2
file f 0:0 644 mtime=1 "f"
dir other 0:0 755 mtime=3
file other/x 0:0 644 mtime=1 "x"
file target 0:0 600 mtime=1 ""
dir tmp 0:0 755 mtime=1
`)
	in := func(name string) string { return filepath.Join(dir.Name(), name) }
	mount := func(source, target, fs string, flags uintptr) {
		check(t, unix.Mount(source, in(target), fs, flags, ""))
		t.Cleanup(func() { check(t, unix.Unmount(in(target), unix.MNT_DETACH)) })
	}
	mount(in("other"), "bind", "", unix.MS_BIND)
	mount(in("f"), "target", "", unix.MS_BIND)
	mount("none", "tmp", "tmpfs", 0)
	check(t, os.WriteFile(in("tmp/new"), nil, 0o600))
	packed, sum := pack(t, dir, options())
	if got, want := names(t, packed), ". bind f other other/x tmp"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if d := cmp.Diff(map[string]int64{"contents of a mount point": 3}, sum.Skipped); d != "" {
		t.Error(d)
	}
	o := options()
	o.CrossMounts = true
	packed, sum = pack(t, dir, o)
	if got, want := names(t, packed), ". bind bind/x f other other/x target tmp tmp/new"; got != want || sum.Skipped != nil {
		t.Errorf("%s, want %s; left out %v", got, want, sum.Skipped)
	}
}

// TestPlaceholders leaves out what a killed run made for its mounts, with all that is in it.
func TestPlaceholders(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	mark := ` xattr:` + tree.XattrPlaceholder + `="1"`
	dir := buildText(t, "dir . 0:0 755 mtime=1\ndir keep 0:0 755 mtime=1\nfile keep/stub 0:0 600 mtime=1"+mark+" \"\"\ndir made 0:0 755 mtime=1"+mark+"\ndir made/sub 0:0 755 mtime=1\n"+
		"file timed 0:0 644 mtime=1853056613.000727297 \"\"\n")
	packed, sum := pack(t, dir, options())
	if got := names(t, packed); got != ". keep" || sum.Skipped["placeholder of a mount"] != 3 {
		t.Errorf("%s, left out %v", got, sum.Skipped)
	}
}

// meddler does something to the tree when the first frame is written.
type meddler struct{ do func() }

func (m *meddler) Write(p []byte) (int, error) {
	if m.do != nil {
		m.do()
		m.do = nil
	}
	return len(p), nil
}

// TestChangedWhileRead changes a file between its first and its last frame.
func TestChangedWhileRead(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	for name, do := range map[string]func(path string) error{
		"written":   func(path string) error { return overwrite(path, 30<<20) },
		"same size": func(path string) error { return overwrite(path, 1) },
		"longer":    func(path string) error { return os.Truncate(path, 50<<20) },
		"shorter":   func(path string) error { return os.Truncate(path, 20<<20) },
		"replaced": func(path string) error {
			return errors.Join(os.WriteFile(path+"-", make([]byte, 40<<20), 0o644), os.Rename(path+"-", path))
		},
		"chmod": func(path string) error { return os.Chmod(path, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := buildText(t, "dir . 0:0 755 mtime=1\nfile large 0:0 644 mtime=1 size=41943040 fill=1\n")
			o := options()
			o.Workers = 1
			var failed error
			_, err := archive.Create(t.Context(), dir, &meddler{func() { failed = do(filepath.Join(dir.Name(), "large")) }}, o)
			check(t, failed)
			if !errors.Is(err, tree.ErrChanged) {
				t.Errorf("error: %v", err)
			}
			wantError(t, err, "large")
		})
	}
}

func overwrite(path string, at int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte("other"), at)
	return errors.Join(err, f.Close())
}
