package ownership

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/archive/treetest"
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/tier"
)

// privileged runs a shell line as the seed's run_privileged does: as inner root of the base model, in which the caller is
// not mapped. It returns what was said.
func (g ground) runPrivileged(t testing.TB, script string) string {
	t.Helper()
	out, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := g.env(t, g.base).Exec(t.Context(), userns.Spec{Argv: []string{"sh", "-c", script}, Stdin: nil, Stdout: out, Stderr: out}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestClampLikeTouch compares Clamp with the find and touch of the recipe that it replaces: rows of one tree, both ways.
func TestClampLikeTouch(t *testing.T) {
	tier.Program(t, "find", "touch")
	g := newGround(t)
	const epoch = 1650000000
	nodes := rootfs(tier.Soaking(25000, 120))
	ours, theirs := g.build(t, g.base, "ours", nodes), g.build(t, g.base, "theirs", nodes)
	e := g.env(t, g.base)
	c, err := Clamp(t.Context(), e, ours, epoch, 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(g.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := os.Open(theirs)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := touchHalf.Run(t.Context(), e, epoch, nil, root); err != nil {
		t.Fatal(err)
	}
	want, got := g.dump(t, g.base, theirs), g.dump(t, g.base, ours)
	if d := treetest.Diff(want, got); d != "" {
		t.Errorf("find and touch (-) and we (+) differ:\n%s", d)
	}
	later := 0
	for _, n := range got {
		if n.MTime != nil && (n.MTime.Sec > epoch || n.MTime.Sec == epoch && n.MTime.Nsec > 0) {
			later++
		}
	}
	if later > 0 || c.Changed == 0 || c.Changed == c.Inodes {
		t.Errorf("%+v, and %d are later still", c, later)
	}
	if again, err := Clamp(t.Context(), e, ours, epoch, 1); err != nil || again.Changed != 0 {
		t.Errorf("once more: %+v %v", again, err)
	}
}

var touchHalf = userns.Half[int64, string]{Name: "test touch", Func: func(ctx context.Context, in *userns.Inner, epoch int64) (string, error) {
	cmd := exec.CommandContext(ctx, "/usr/bin/find", ".", "-newermt", fmt.Sprintf("@%d", epoch), "-exec", "touch", "-h", "-d", fmt.Sprintf("@%d", epoch), "{}", "+")
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	cmd.Dir = fmt.Sprintf("/proc/self/fd/%d", in.Files[0].Fd())
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return string(out), err
}}

// TestGiveTake hands files to and fro: what is below only with Recursive, symlinks themselves, setuid bits and capabilities
// dropped and counted, ACLs and times as they were.
func TestGiveTake(t *testing.T) {
	g := newGround(t)
	path := g.build(t, g.base, "tree", files(t, "dir . 0:0 755 mtime=1", "dir d 5:5 700 mtime=1", `file d/suid 6:6 4755 mtime=1 "x"`,
		"file d/acl 7:7 640 mtime=1 acl=u::rw-,u:9:r--,g::r--,m::r--,o::---", "file d/cap 0:0 755 mtime=1 cap=cap_net_raw=ep", "symlink d/link 8:8 ../out mtime=1",
		`file out 9:9 600 mtime=1 "x"`, "symlink top 3:3 out mtime=1"))
	e := g.env(t, g.base)
	uid, gid := must(e.Handoff.UID.ToInside(e.Caller.UID)), must(e.Handoff.GID.ToInside(e.Caller.GID))
	give := func(name string, r bool, want Handed) {
		t.Helper()
		if h, err := Give(t.Context(), e, filepath.Join(path, name), HandOptions{Recursive: r}); err != nil || h != want {
			t.Errorf("give %s: %+v %v, want %+v", name, h, err, want)
		}
	}
	give("top", true, Handed{Inodes: 1, Changed: 1})
	give("d", false, Handed{Inodes: 1, Changed: 1})
	give("d", true, Handed{Inodes: 5, Changed: 4, Setuid: 1, Capabilities: 1})
	give("d", true, Handed{Inodes: 5})
	own := fmt.Sprintf("%d:%d", uid, gid)
	want := files(t, "dir . 0:0 755 mtime=1", "dir d "+own+" 700 mtime=1",
		"file d/acl "+own+" 640 mtime=1 acl=u::rw-,u:9:r--,g::r--,m::r--,o::---", "file d/cap "+own+" 755 mtime=1", "symlink d/link "+own+" ../out mtime=1", `file d/suid `+own+` 755 mtime=1 "x"`,
		`file out 9:9 600 mtime=1 "x"`, "symlink top "+own+" out mtime=1")
	g.wantSame(t, g.base, path, want)
	h, err := Take(t.Context(), e, filepath.Join(path, "d"), HandOptions{Recursive: true})
	if err != nil || h.Changed != 5 {
		t.Errorf("take: %+v %v", h, err)
	}
	for i := range want {
		if want[i].Name == "d" || strings.HasPrefix(want[i].Name, "d/") {
			want[i].UID, want[i].GID = 0, 0
		}
	}
	g.wantSame(t, g.base, path, want)
	_, err = Give(t.Context(), e, filepath.Join(path, "missing"), HandOptions{})
	wantError(t, err, "missing", "no such file")
	if os.Getuid() != 0 {
		_, err = Give(t.Context(), e, "/etc/passwd", HandOptions{})
		wantError(t, err, "/etc/passwd", "neither to you nor to your sub-ids")
	}
}

// TestSymlinks names trees by symlinks: what works on a tree refuses, what works on an inode takes the symlink itself, and
// nothing happens to where it leads.
func TestSymlinks(t *testing.T) {
	g := newGround(t)
	path := g.build(t, g.base, "tree", files(t, "dir . 0:0 755 mtime=5", `file f 0:0 644 mtime=5 "x"`))
	want := g.dump(t, g.base, path)
	e := g.env(t, g.base)
	link := filepath.Join(g.dir, "link")
	if err := os.Symlink("tree", link); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		if err := os.Lchown(link, 3000000005, 3000000005); err != nil { // of the range base
			t.Fatal(err)
		}
	}
	_, err := Clamp(t.Context(), e, link, 1, 2)
	wantError(t, err, "link", "symbolic link")
	for _, hand := range []func(context.Context, *userns.Env, string, HandOptions) (Handed, error){Take, Give, Take} {
		if h, err := hand(t.Context(), e, link, HandOptions{Recursive: true}); err != nil || h.Inodes != 1 {
			t.Errorf("%+v %v", h, err)
		}
	}
	if _, err := ferry.Remove(t.Context(), e, link, ferry.RemoveOptions{}); err != nil {
		t.Error(err)
	}
	g.wantSame(t, g.base, path, want)
}

// mixed is a tree of three owner models: inner root's closed directory, in it one of the caller's, in that one another of
// the range's, all closed, and what is in the way of each rm.
func (g ground) mixed(t testing.TB, name string) string {
	t.Helper()
	e := g.env(t, g.base)
	own := fmt.Sprintf("%d:%d", must(e.Handoff.UID.ToInside(e.Caller.UID)), must(e.Handoff.GID.ToInside(e.Caller.GID)))
	return g.build(t, g.base, name, files(t, "dir . "+own+" 755", "dir base 0:0 700", "dir base/caller "+own+" 700", "file base/caller/f "+own+" 600", "dir base/caller/range 1000:1000 000",
		"file base/caller/range/f 1000:1000 600", "dir caller "+own+" 700", "dir caller/base 0:0 000", "file caller/base/f 5:5 600"))
}

// TestRmOldVariants is row 20 of what the builders do by hand: three variants of clean, none of which removes every owner; and Remove.
func TestRmOldVariants(t *testing.T) {
	tier.User(t, "the owners of an unprivileged user")
	g := newGround(t)
	if err := os.Chmod(g.dir, 0o777); err != nil { // so that inner root may write here: the seed's ACL on the parent directory
		t.Fatal(err)
	}
	for dir := g.dir; dir != "/"; dir = filepath.Dir(dir) {
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err == nil && int(st.Uid) == os.Getuid() {
			_ = os.Chmod(dir, os.FileMode(st.Mode&0o777|0o111))
		}
	}
	sh := func(script string) { _ = exec.Command("sh", "-c", script).Run() } //nolint:gosec // a test's own script
	for name, clean := range map[string]func(path string){
		"outer rm -rf":          func(p string) { sh("rm -rf " + p) },
		"run_privileged rm -rf": func(p string) { g.runPrivileged(t, "rm -rf "+p) },
		"privileged, then outer rm": func(p string) {
			g.runPrivileged(t, "find "+p+" -depth ! -uid 65534 -exec rm -rf {} +")
			sh("rm -rf " + p)
		},
	} {
		path := g.mixed(t, "tree")
		clean(path)
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%s removed everything: the defect is gone", name)
		}
		r, err := ferry.Remove(t.Context(), g.env(t, g.base), path, ferry.RemoveOptions{})
		if err != nil {
			t.Errorf("after %s: %v", name, err)
		}
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("after %s: still there, %+v", name, r)
		}
	}
}

// TestRmEveryOwner removes mixed trees at any number of workers, after a dry run that says as many.
func TestRmEveryOwner(t *testing.T) {
	g := newGround(t)
	for _, workers := range []int{1, 2, 7} {
		path := g.mixed(t, fmt.Sprintf("tree%d", workers))
		e := g.env(t, g.base)
		dry, err := ferry.Remove(t.Context(), e, path, ferry.RemoveOptions{DryRun: true, Workers: workers})
		if err != nil || dry.Inodes != 9 {
			t.Errorf("dry run: %+v %v", dry, err)
		}
		r, err := ferry.Remove(t.Context(), e, path, ferry.RemoveOptions{Workers: workers})
		if err != nil || r != dry {
			t.Errorf("%d workers: %+v %v, and the dry run said %+v", workers, r, err, dry)
		}
		if _, err := os.Lstat(path); err == nil {
			t.Error("still there")
		}
	}
}

// TestMountsAreNotCrossed has something mounted in the tree: rm names it and leaves all of it, shift and clamp leave it and count.
func TestMountsAreNotCrossed(t *testing.T) {
	tier.Root(t, "mounts")
	g := newGround(t)
	path := g.build(t, g.base, "tree", files(t, "dir . 0:0 755", "dir mnt 0:0 755", "dir mnt/below 0:0 755", "file f 0:0 644 mtime=2000000000"))
	outside := filepath.Join(g.dir, "outside")
	if err := os.MkdirAll(filepath.Join(outside, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(outside, "dir/file"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	before := treeOf(t, outside)
	if err := unix.Mount(outside, filepath.Join(path, "mnt"), "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	mounted := true
	unmount := func() {
		if mounted {
			mounted = false
			if err := unix.Unmount(filepath.Join(path, "mnt"), unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		}
	}
	defer unmount()
	if s := g.shift(t, g.base, g.caller, path, ShiftOptions{}); s.Mounts != 1 || s.Changed != 2 {
		t.Errorf("%+v", s)
	}
	e := g.env(t, g.caller)
	if c, err := Clamp(t.Context(), e, path, 1000, 2); err != nil || c.Mounts != 1 || c.Changed != 2 {
		t.Errorf("%+v %v", c, err)
	}
	if h, err := Take(t.Context(), e, path, HandOptions{Recursive: true}); err != nil || h.Mounts != 1 {
		t.Errorf("%+v %v", h, err)
	}
	for _, dry := range []bool{true, false} {
		_, err := ferry.Remove(t.Context(), e, path, ferry.RemoveOptions{DryRun: dry})
		wantError(t, err, "mnt", "something is mounted here")
		if _, err := ferry.Remove(t.Context(), e, filepath.Join(path, "mnt"), ferry.RemoveOptions{DryRun: dry}); err == nil {
			t.Error("a mount point was removed")
		}
	}
	if d := treetest.Diff(before, treeOf(t, outside)); d != "" {
		t.Errorf("what is mounted was touched:\n%s", d)
	}
	unmount()
}
