//go:build linux

package mounts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestHostileTargets plants symlinks at every mount target. Either the mount lands inside, or nothing runs.
func TestHostileTargets(t *testing.T) {
	hostTable(t)
	victim := publicDir(t)
	grow(t, victim, "resolv.conf", "dir/", "policy-rc.d")
	up := strings.Repeat("../", 20)
	for _, c := range []struct {
		name  string
		names []string // of the tree
		fails string   // in the message; empty: must work and print resolv.conf and policy
	}{
		{"proc to root", []string{"dev/", "sys/", "proc -> /", "etc/resolv.conf", "usr/sbin/policy-rc.d"}, "/proc: "},
		{"proc up", []string{"dev/", "sys/", "proc -> " + up + "proc", "etc/resolv.conf", "usr/sbin/policy-rc.d"}, "/proc: "},
		{"sys to host", []string{"dev/", "sys -> " + victim + "/dir", "proc/", "etc/resolv.conf", "usr/sbin/policy-rc.d"}, "/sys: "},
		{"dev to host", []string{"dev -> " + up + victim + "/dir", "sys/", "proc/", "etc/resolv.conf", "usr/sbin/policy-rc.d"}, "/dev: "},
		{"dev to tmp", []string{"dev -> tmp", "tmp/", "sys/", "proc/", "etc/resolv.conf", "usr/sbin/policy-rc.d"}, "/dev: "},
		{"dev a file", []string{"dev", "sys/", "proc/", "etc/resolv.conf", "usr/sbin/policy-rc.d"}, "/dev: "},
		{"etc to host", []string{"dev/", "sys/", "proc/", "etc -> " + victim, "usr/sbin/policy-rc.d"}, "/etc/resolv.conf: "},
		{"etc loop", []string{"dev/", "sys/", "proc/", "etc -> etc", "usr/sbin/policy-rc.d"}, "/etc/resolv.conf: "},
		{"sbin to host", []string{"dev/", "sys/", "proc/", "etc/resolv.conf", "usr/sbin -> " + victim}, "/usr/sbin/policy-rc.d: "},
		{"etc is elsewhere inside", []string{"dev/", "sys/", "proc/", "etc -> /e", "e/resolv.conf", "usr/sbin/policy-rc.d"}, ""},
		{"etc is up but inside", []string{"dev/", "sys/", "proc/", "etc -> " + up + "e", "e/resolv.conf", "usr/sbin/policy-rc.d"}, ""},
		{"resolv.conf to host", []string{"dev/", "sys/", "proc/", "etc/resolv.conf -> " + up + victim + "/resolv.conf", "usr/sbin/policy-rc.d"}, ""},
		{"resolv.conf dangling", []string{"dev/", "sys/", "proc/", "etc/resolv.conf -> ../run/systemd/resolve/stub-resolv.conf", "usr/sbin/policy-rc.d"}, ""},
		{"resolv.conf to itself", []string{"dev/", "sys/", "proc/", "etc/resolv.conf -> resolv.conf", "usr/sbin/policy-rc.d"}, ""},
		{"resolv.conf into proc", []string{"dev/", "sys/", "proc/", "etc/resolv.conf -> /proc/1/root/" + victim, "usr/sbin/policy-rc.d"}, ""},
		{"policy to host", []string{"dev/", "sys/", "proc/", "etc/resolv.conf", "usr/sbin/policy-rc.d -> " + victim + "/policy-rc.d"}, ""},
	} {
		for _, w := range fewWays(t) {
			t.Run(c.name+"/"+w.name, func(t *testing.T) {
				root := tree(t, "/tmp", w.uid, c.names...)
				out, errs, err := w.sh(t, full(root), "cat /etc/resolv.conf; /usr/sbin/policy-rc.d || echo policy $?; ls /proc/self/fd")
				switch {
				case c.fails == "" && (err != nil || !strings.HasPrefix(out, "nameserver 192.0.2.1\npolicy 101\n0\n1\n2\n3\n")):
					t.Errorf("got %q, %v, %s", out, err, errs)
				case c.fails != "" && (err == nil || !strings.Contains(errs, c.fails) || out != ""):
					t.Errorf("got %q, %v, %s; want an error about %s", out, err, errs, c.fails)
				}
			})
		}
	}
	for _, n := range []string{"resolv.conf", "policy-rc.d"} {
		if b, err := os.ReadFile(filepath.Join(victim, n)); err != nil || string(b) != n+"\n" {
			t.Errorf("%s outside is now %q, %v", n, b, err)
		}
	}
}

func TestHostileBinds(t *testing.T) {
	hostTable(t)
	victim := publicDir(t)
	grow(t, victim, "dir/", "src/f")
	for _, c := range []struct{ name, link, target, fails string }{
		{"root", "x -> /", "/x", "cover the root"},
		{"root by dots", "x -> ../../..", "/x", "cover the root"},
		{"host", "x -> " + victim + "/dir", "/x", "no such file"},
		{"host by dots", "x -> ../../../../../.." + victim + "/dir", "/x", "no such file"},
		{"dots", "d/", "../../../../../" + victim + "/dir", "no such file"},
		{"magic link", "x -> /proc/self/fd/0", "/x", ""},
		{"magic root", "x -> /proc/1/root", "/x/tmp", "too many levels"},
		{"through a file", "x", "/x/y", "not a directory"},
		{"loop", "x -> x", "/x", "too many levels"},
		{"inside", "x -> ../../d", "/x", "ok"},
	} {
		for _, w := range fewWays(t) {
			t.Run(c.name+"/"+w.name, func(t *testing.T) {
				root := tree(t, "/tmp", w.uid, append(rootNames, "d/", c.link)...)
				s := full(root)
				s.Binds = []Bind{openBind(t, victim+"/src", c.target, false)}
				out, errs, err := w.sh(t, s, "cat /d/f")
				if c.fails == "ok" {
					if err != nil || out != "src/f\n" {
						t.Errorf("got %q, %v, %s", out, err, errs)
					}
					return
				}
				if err == nil || !strings.Contains(errs, "bind "+c.target) || !strings.Contains(errs, c.fails) {
					t.Errorf("got %q, %v, %s; want %q", out, err, errs, c.fails)
				}
			})
		}
	}
}

// TestWalkAgrees holds the fallback walk against openat2, and Plan's view of what is missing.
func TestWalkAgrees(t *testing.T) {
	base := t.TempDir()
	grow(t, base, "d/e/f", "abs -> /d", "rel -> d/../d", "up -> ../../../d/e", "loop -> loop2", "loop2 -> loop",
		"dangling -> /no/where", "deep -> abs/e/f", "d/back -> ../rel", "dot -> .", "dotdot -> ..", "file/link -> /")
	root := open(t, base)
	fast, slow := &mounter{}, &mounter{legacy: true}
	for _, name := range []string{".", "/", "..", "d", "d/", "d/e/f", "abs", "abs/e", "rel/e/f", "up", "up/f", "up/..", "up/../..", "loop",
		"dangling", "dangling/x", "deep", "deep/x", "d/back/e/f", "dot/dot/d", "dotdot/d", "d/e/../../../../d", "no", "no/x", "d/e/f/..", "file/link/d",
		"//d//e", "d/./e", "loop/x"} {
		for _, nofollow := range []bool{false, true} {
			describe := func(m *mounter) string {
				f, err := m.inRoot(root, name, nofollow)
				if err != nil {
					for _, no := range errnos {
						if isErrno(err, no) {
							return no.Error()
						}
					}
					return err.Error()
				}
				defer f.Close()
				link, err := os.Readlink(self(f))
				if err != nil {
					t.Fatal(err)
				}
				return link
			}
			if d := cmp.Diff(describe(fast), describe(slow)); d != "" {
				t.Errorf("%q nofollow=%v: -openat2 +walk:\n%s", name, nofollow, d)
			}
		}
	}
}
