//go:build linux

package mounts

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// rootNames are the mount targets that a full rootfs has.
var rootNames = []string{"dev/", "proc/", "sys/", "etc/resolv.conf", "usr/sbin/policy-rc.d", "tmp/", "mnt/"}

func full(root *os.File) Spec {
	return Spec{Root: root, Dev: true, Shm: true, Proc: true, Sys: true, Apt: true,
		ResolvConf: []byte("nameserver 192.0.2.1\n")}
}

// mountPoints reduces a mountinfo text to "path type", without what the host mounts below /sys.
func mountPoints(text string) []string {
	var list []string
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		i := slices.Index(f, "-")
		if strings.HasPrefix(f[4], "/sys/") {
			continue
		}
		list = append(list, f[4]+" "+f[i+1])
	}
	slices.Sort(list)
	return list
}

func TestSetupMountsExactlyThePlanned(t *testing.T) {
	hostTable(t)
	for _, fs := range filesystems {
		for _, w := range ways(t) {
			t.Run(w.name+" on "+filepath.Base(fs), func(t *testing.T) {
				root := tree(t, fs, w.uid, rootNames...)
				rootType := map[string]string{"/tmp": fstype(t, "/tmp"), "/dev/shm": "tmpfs"}[fs]
				want := []string{
					"/ " + rootType, "/dev tmpfs", "/dev/pts devpts", "/dev/shm tmpfs", "/etc/resolv.conf tmpfs",
					"/proc proc", "/sys sysfs", "/usr/sbin/policy-rc.d tmpfs",
				}
				for _, d := range devices {
					if _, err := os.Stat("/dev/" + d.name); err == nil {
						want = append(want, "/dev/"+d.name+" "+fstype(t, "/dev/"+d.name))
					}
				}
				slices.Sort(want)
				got := mountPoints(w.mustSh(t, full(root), "cat /proc/self/mountinfo"))
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("mounts (-want +got):\n%s", d)
				}
			})
		}
	}
}

// fstype returns the type of the filesystem that name lies in, by the host's mountinfo.
func fstype(t *testing.T, name string) string {
	t.Helper()
	f := open(t, name)
	id, err := mountID(f)
	if err != nil {
		t.Fatal(err)
	}
	typ := ""
	if _, err := mountTable(func(i *mountInfo) {
		if i.ID == id {
			typ = i.FSType
		}
	}); err != nil {
		t.Fatal(err)
	}
	return typ
}

func TestInsideWorks(t *testing.T) {
	hostTable(t)
	const script = `
set -e
cat /etc/resolv.conf
cat $APT_CONFIG
/usr/sbin/policy-rc.d || echo "policy $?"
echo x >/dev/null
readlink /dev/stdin
stat -c %a /dev/shm /dev/pts/ptmx
ls /proc/1/exe
cat /proc/1/comm
id -u
cd .. && cd .. && ls -d sys usr
if touch /sys/x 2>/dev/null; then echo sys writable; fi
if echo x 2>/dev/null >/etc/resolv.conf; then echo resolv.conf private; fi
touch /new
`
	for _, w := range ways(t) {
		t.Run(w.name, func(t *testing.T) {
			root := tree(t, "/tmp", w.uid, rootNames...)
			want := "nameserver 192.0.2.1\n" + aptText + "policy 101\n/proc/self/fd/0\n1777\n666\n/proc/1/exe\nsh\n0\nsys\nusr\nresolv.conf private\n"
			if d := cmp.Diff(want, w.mustSh(t, full(root), script)); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
			b, err := os.ReadFile(filepath.Join(root.Name(), "etc/resolv.conf"))
			if err != nil || string(b) != "etc/resolv.conf\n" {
				t.Errorf("the tree's resolv.conf is %q, %v", b, err)
			}
		})
	}
}

// TestClosedParents enters a tree below a directory that inner root may not search, and binds a file from there.
func TestClosedParents(t *testing.T) {
	hostTable(t)
	home := publicDir(t)
	grow(t, home, "secret")
	w := ways(t)[0]
	root := tree(t, home, w.uid, rootNames...)
	s := full(root)
	s.Binds = []Bind{openBind(t, filepath.Join(home, "secret"), "/mnt/file", true), openBind(t, root.Name(), "/tmp", false)}
	grow(t, root.Name(), "mnt/file")
	if err := os.Chmod(home, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, legacy := range ways(t) {
		if legacy.name == "userns legacy carried" { // the rootfs at least needs no path
			s := s
			s.Binds = nil
			legacy.mustSh(t, s, "true")
		}
	}
	if got := w.mustSh(t, s, "cat /mnt/file; ls /tmp/bin/sh"); got != "secret\n/tmp/bin/sh\n" {
		t.Errorf("got %q", got)
	}
	if err := os.Chmod(home, 0o755); err != nil { // for the way by path
		t.Fatal(err)
	}
	if got := ways(t)[1].mustSh(t, s, "cat /mnt/file"); got != "secret\n" {
		t.Errorf("by path: got %q", got)
	}
	if !wide(t) {
		return // inner root is the caller, to whom the directory is open
	}
	if err := os.Chmod(home, 0o700); err != nil {
		t.Fatal(err)
	}
	_, stderr, err := ways(t)[1].sh(t, s, "true")
	if err == nil || !strings.Contains(stderr, "permission denied") {
		t.Errorf("by path below a closed directory: %v, %s", err, stderr)
	}
}

func TestBinds(t *testing.T) {
	hostTable(t)
	outer := publicDir(t)
	grow(t, outer, "a/f", "a/in/", "a/in2/", "b/g", "b/deep/", "file", "x -> a")
	for _, w := range ways(t) {
		t.Run(w.name, func(t *testing.T) {
			own(t, outer, w.uid)
			root := tree(t, "/tmp", w.uid, append(rootNames, "data/", "link -> /data", "one")...)
			s := full(root)
			s.Binds = []Bind{
				openBind(t, outer+"/a", "/link", false),
				openBind(t, outer+"/b", "data/in", false),
				openBind(t, outer+"/b", "/data/in2", true),
				openBind(t, outer+"/file", "/one", true),
				openBind(t, outer+"/file", "/dev/extra/file", false),
			}
			if list, err := Plan(s); err != nil || len(list) != 0 {
				t.Fatalf("plan: %v, %v", list, err)
			}
			got := w.mustSh(t, s, `
cat /data/f /data/in/g /data/in2/g /one /dev/extra/file
touch /data/in/new && echo rw
touch /data/in2/new 2>&1
echo >/one
echo changed >/dev/extra/file && echo rw
true`)
			want := "a/f\nb/g\nb/g\nfile\nfile\nrw\ntouch: /data/in2/new: Read-only file system\nrw\n"
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if err := os.WriteFile(outer+"/file", []byte("file\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			os.Remove(outer + "/b/new")
		})
	}
}

// BenchmarkEnter measures all from the start of a process to its end: namespaces, Detach, Setup, a shell.
func BenchmarkEnter(b *testing.B) {
	for _, w := range ways(b) {
		b.Run(w.name, func(b *testing.B) {
			root := tree(b, "/tmp", w.uid, rootNames...)
			s := full(root)
			for _, with := range []string{"plain", "full"} {
				b.Run(with, func(b *testing.B) {
					if with == "plain" {
						s = Spec{Root: root}
					}
					for b.Loop() {
						w.mustSh(b, s, "true")
					}
				})
				s = full(root)
			}
		})
	}
}
