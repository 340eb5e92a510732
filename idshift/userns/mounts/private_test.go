//go:build linux

package mounts

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nsferry/nsferry/tier"

	"golang.org/x/sys/unix"
)

// inPrivate runs the calling test again in a mount namespace of its own, where it may mount what it likes: it goes
// with the process. It returns true in there.
func inPrivate(t *testing.T) bool {
	t.Helper()
	if os.Getenv("MOUNTS_TEST_PRIVATE") != "" {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		return true
	}
	hostTable(t)
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "MOUNTS_TEST_PRIVATE=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		own := way{uid: uint32(os.Getuid()), size: 1}
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = own.gids()
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in a private mount namespace: %v\n%s", err, out)
	}
	return false
}

func mountTest(t *testing.T, source, target, fstype string, flags uintptr, data string) {
	t.Helper()
	if err := os.MkdirAll(target, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		t.Fatalf("mount %s: %v", target, err)
	}
	if flags&unix.MS_REMOUNT == 0 {
		t.Cleanup(func() { unix.Unmount(target, unix.MNT_DETACH) }) // so that the directory can be removed
	}
}

// optionsOf returns the per-mount options of a mount point in a mountinfo text.
func optionsOf(text, point string) string {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 5 && f[4] == point {
			return f[5]
		}
	}
	return "not mounted"
}

// TestReadOnlySubmounts: a read-only bind is so all the way down, and flags that are locked stay.
func TestReadOnlySubmounts(t *testing.T) {
	if !inPrivate(t) {
		return
	}
	src := publicDir(t)
	mountTest(t, "x", src, "tmpfs", unix.MS_NODEV, "mode=777")
	mountTest(t, "x", src+"/sub dir", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_NOATIME, "mode=777")
	mountTest(t, "x", src+"/sub dir/deep", "tmpfs", unix.MS_NODIRATIME, "mode=777")
	mountTest(t, src+"/sub dir/deep", src+"/ro", "", unix.MS_BIND, "")
	mountTest(t, "", src+"/ro", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
	for _, w := range ways(t) {
		t.Run(w.name, func(t *testing.T) {
			root := tree(t, "/tmp", w.uid, append(rootNames, "data/", "rw/")...)
			s := full(root)
			s.Binds = []Bind{openBind(t, src, "/data", true), openBind(t, src, "/rw", false)}
			out := w.mustSh(t, s, `
for d in /data "/data/sub dir" "/data/sub dir/deep" /data/ro /rw/ro; do touch "$d/x" 2>/dev/null && echo "$d is writable"; done
for d in /rw "/rw/sub dir" "/rw/sub dir/deep"; do touch "$d/`+strings.ReplaceAll(w.name, " ", "-")+`" || echo "$d is not writable"; done
cat /proc/self/mountinfo`)
			if strings.Contains(out, "writable") {
				t.Error(out)
			}
			for point, want := range map[string]string{
				"/data": "ro,nodev,relatime", `/data/sub\040dir`: "ro,nosuid,nodev,noexec,noatime",
				`/data/sub\040dir/deep`: "ro,nodiratime,relatime", `/rw/sub\040dir`: "rw,nosuid,nodev,noexec,noatime", "/rw/ro": "ro,nodiratime,relatime",
			} {
				got := optionsOf(out, point)
				got = strings.Replace(got, "noatime,nodiratime", "noatime", 1)
				if got != want && !(want == "ro,nodiratime,relatime" && got == "ro,relatime,nodiratime") {
					t.Errorf("%s: %q, want %q", point, got, want)
				}
			}
		})
	}
	s := full(tree(t, "/tmp", ways(t)[0].uid, append(rootNames, "data/")...))
	s.Binds = []Bind{openBind(t, src, "/data", false)}
	s.Binds[0].Rec = false
	for _, w := range ways(t)[:4] {
		if _, stderr, err := w.sh(t, s, "true"); err == nil || !strings.Contains(stderr, "bind it recursively") {
			t.Errorf("%s: non-recursive bind of locked mounts: %v, %s", w.name, err, stderr)
		}
	}
}

// TestSubmountsOfRootfs: what is mounted below the rootfs comes along.
func TestSubmountsOfRootfs(t *testing.T) {
	if !inPrivate(t) {
		return
	}
	for _, w := range ways(t) {
		root := tree(t, "/tmp", w.uid, append(rootNames, "data/")...)
		mountTest(t, "x", root.Name()+"/data", "tmpfs", 0, "mode=777")
		grow(t, root.Name(), "data/f")
		if got := w.mustSh(t, full(root), "cat /data/f; touch /data/g; ls /data"); got != "data/f\nf\ng\n" {
			t.Errorf("%s: got %q", w.name, got)
		}
		if err := unix.Unmount(root.Name()+"/data", unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}
}

// TestMaskedProc: in a container that covers parts of /proc, the run gets that /proc and is told so.
func TestMaskedProc(t *testing.T) {
	if !inPrivate(t) {
		return
	}
	if err := unix.Mount("/dev/null", "/proc/interrupts", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	for _, w := range ways(t) {
		t.Run(w.name, func(t *testing.T) {
			root := tree(t, "/tmp", w.uid, rootNames...)
			out, stderr, err := w.sh(t, full(root), "cat /proc/self/comm; stat -c %F /proc/interrupts; ls /proc/self/fd/0; cat /dev/fd/0")
			if err != nil {
				t.Fatal(err, stderr)
			}
			masked := "character special file"
			if !w.userns { // real root may have a new one
				masked = "regular empty file"
			}
			if want := "cat\n" + masked + "\n/proc/self/fd/0\n"; out != want {
				t.Errorf("got %q, want %q", out, want)
			}
			if got := strings.Contains(stderr, "note: /proc is the enclosing one"); got != w.userns {
				t.Errorf("noted: %v\n%s", got, stderr)
			}
		})
	}
}

// TestWithoutRoot: no rootfs, but /proc of the new pid namespace and binds over host paths.
func TestWithoutRoot(t *testing.T) {
	hostTable(t)
	dir := publicDir(t)
	grow(t, dir, "a/f", "b/g", "link -> b")
	for _, w := range ways(t) {
		t.Run(w.name, func(t *testing.T) {
			own(t, dir, w.uid)
			s := Spec{Proc: true, Binds: []Bind{openBind(t, dir+"/a", dir+"/link", true)}, Chdir: dir + "/b"}
			got := w.mustSh(t, s, "cat /proc/1/comm f; echo >f; pwd; true")
			want := "sh\na/f\n" + dir + "/b\n"
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if b, err := os.ReadFile(filepath.Join(dir, "b/g")); err != nil || string(b) != "b/g\n" {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
}

// TestMarkWithoutXattrs makes placeholders on a filesystem that has none.
func TestMarkWithoutXattrs(t *testing.T) {
	tier.Root(t, "to mount a ramfs")
	if !inPrivate(t) {
		return
	}
	base := publicDir(t)
	mountTest(t, "x", base, "ramfs", 0, "")
	probe := filepath.Join(base, "probe")
	if err := os.Mkdir(probe, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(probe, MarkXattr, nil, 0); err != unix.EOPNOTSUPP {
		t.Fatalf("ramfs has user xattrs: %v", err)
	}
	root := open(t, base)
	before := snapshot(t, base)
	m, err := Make(root, bare)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := Plan(full(root)); err != nil || len(list) != len(bare) {
		t.Errorf("a second run sees %v, %v", list, err)
	}
	if err := m.Remove(); err != nil {
		t.Error(err)
	}
	unchanged(t, base, before)
	if m, err = Make(root, bare); err != nil {
		t.Fatal(err)
	}
	for _, h := range m.held {
		h.file.Close()
	}
	grow(t, base, "etc/hosts")
	if n, err := Sweep(root); n != len(bare)-1 || err != nil {
		t.Errorf("swept %d, %v", n, err)
	}
	if !exists(base, "etc/hosts") || exists(base, "etc/resolv.conf") || exists(base, "usr") {
		t.Error(snapshot(t, base))
	}
}

func TestSpecCheck(t *testing.T) {
	for _, s := range []Spec{
		{Dev: true}, {Sys: true}, {Shm: true}, {ResolvConf: []byte{}}, {Apt: true},
		{Root: open(t, "/"), Apt: true},
		{Binds: []Bind{{Source: open(t, "/"), Target: "relative"}}},
		{Binds: []Bind{{Target: "/tmp"}}},
	} {
		if _, err := Plan(s); err == nil {
			t.Errorf("Plan accepts %+v", s)
		}
		if _, err := Setup(s); err == nil {
			t.Errorf("Setup accepts %+v", s)
		}
	}
}
