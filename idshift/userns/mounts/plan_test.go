//go:build linux

package mounts

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPlan(t *testing.T) {
	src := t.TempDir()
	grow(t, src, "dir/sub/", "file")
	dir, file := openBind(t, src+"/dir", "", false), openBind(t, src+"/file", "", false)
	to := func(b Bind, target string) Bind { b.Target = target; return b }
	for _, c := range []struct {
		name  string
		tree  []string
		binds []Bind
		want  []Placeholder // beyond the presets'
		fails string
	}{
		{name: "none", tree: rootNames},
		{name: "all", want: bare},
		{name: "dangling resolv.conf is a target", tree: []string{"dev/", "proc/", "sys/", "usr/sbin/policy-rc.d", "etc/resolv.conf -> /run/x"}},
		{name: "etc elsewhere", tree: []string{"dev/", "proc/", "sys/", "usr/sbin/policy-rc.d", "etc -> /e", "e/"}, want: []Placeholder{{"e/resolv.conf", false}}},
		{name: "bind", tree: rootNames, binds: []Bind{to(dir, "/a/b"), to(file, "a/f"), to(dir, "tmp")},
			want: []Placeholder{{"a", true}, {"a/b", true}, {"a/f", false}}},
		{name: "bind on dangling link", tree: append(rootNames, "l -> ../x/y"), binds: []Bind{to(file, "/l")}, want: []Placeholder{{"x", true}, {"x/y", false}}},
		{name: "bind in bind", tree: rootNames, binds: []Bind{to(dir, "tmp"), to(dir, "/tmp/sub")}},
		{name: "bind in bind by link", tree: append(rootNames, "l -> tmp/sub"), binds: []Bind{to(dir, "tmp"), to(dir, "/l")}},
		{name: "bind in dev", tree: rootNames, binds: []Bind{to(dir, "dev/x/y"), to(file, "/dev/shm/z")}},
		{name: "bind missing in bind", tree: rootNames, binds: []Bind{to(dir, "tmp"), to(dir, "/tmp/no")}, fails: "create it in " + src + "/dir"},
		{name: "bind below file", tree: rootNames, binds: []Bind{to(file, "etc/resolv.conf/x")}, fails: "not a directory"},
		{name: "file on directory", tree: rootNames, binds: []Bind{to(file, "tmp")}, fails: "is a directory"},
		{name: "directory on file", tree: append(rootNames, "f"), binds: []Bind{to(dir, "f")}, fails: "not a directory"},
		{name: "root", tree: rootNames, binds: []Bind{to(dir, "/..")}, fails: "cover the root"},
		{name: "dots behind nothing", tree: rootNames, binds: []Bind{to(dir, "/no/../tmp")}, fails: "no such file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := t.TempDir()
			grow(t, base, c.tree...)
			s := full(open(t, base))
			s.Binds = c.binds
			before, fds := snapshot(t, base), fdCount(t)
			got, err := Plan(s)
			if n := fdCount(t); n != fds {
				t.Errorf("%d files open, had %d", n, fds)
			}
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Errorf("got %v, %v; want %q", got, err, c.fails)
				}
				return
			}
			if d := cmp.Diff(c.want, got); err != nil || d != "" {
				t.Errorf("%v, -want +got:\n%s", err, d)
			}
			unchanged(t, base, before)
		})
	}
}
