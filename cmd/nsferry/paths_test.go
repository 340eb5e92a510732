package main

import (
	"strings"
	"testing"
)

// TestTargets names places in every way that a caller may, or may not.
func TestTargets(t *testing.T) {
	rootTier(t)
	long := strings.Repeat("x", 255)
	newTree := func(dir string) string { return `^` + dir + ` 40755 2500000000:2500000000 0$` }
	for _, tt := range []struct {
		name  string
		place place
		do    []outcome
	}{
		{"parent missing", place{}, []outcome{
			{args: do("unpack good.tar no/new"), status: 1, says: `no: no such file or directory`},
			{args: do("pack tree -o no/new.tar"), status: 1, says: `no: no such file or directory`},
			{args: do("rm no/tree"), status: 1, says: `no: no such file or directory`},
			{args: do("pack no -o new.tar"), status: 1, says: `no: no such file or directory`},
			{args: do("run --rootfs no -- /bin/true"), status: 125, says: `no: no such file or directory`},
			{args: do("unpack no.tar new"), status: 1, says: `no.tar: no such file or directory`},
		}},
		{"parent is a file", place{}, []outcome{
			{args: do("unpack good.tar good.tar/new"), status: 1, says: `good.tar: not a directory`},
			{args: do("pack tree -o good.tar/new.tar"), status: 1, says: `good.tar: not a directory`},
			{args: do("pack good.tar -o new.tar"), status: 1, says: `good.tar: not a directory`},
			{args: do("run --rootfs good.tar/tree -- /bin/true"), status: 125, says: `good.tar.*: not a directory`},
		}},
		{"target is taken", place{Setup: "ln -s nowhere dangling; mkdir full empty; touch full/x; chown $U:$U full full/x empty"}, []outcome{
			{args: do("unpack good.tar good.tar"), status: 1, says: `not a directory`},
			{args: do("unpack good.tar dangling"), status: 1, says: `not a directory`},
			{args: do("unpack good.tar full"), status: 1, says: `not empty; remove it with nsferry rm`},
			{args: do("unpack good.tar tree"), status: 1, says: `not empty; remove it with nsferry rm`},
			{args: do("pack tree -o good.tar"), status: 1, says: `good.tar: .*exists`},
			{args: do("pack tree -o full"), status: 1, says: `full: .*(exists|directory)`},
			{args: do("pack --force tree -o full"), status: 1, says: `full: .*directory`},
			{args: do("unpack good.tar empty"), left: newTree("/tmp/home/empty")},
		}},
		{"directory of another user", place{Setup: "mkdir -m 0755 /tmp/other; cp -r tree /tmp/other; chown -R 5:5 /tmp/other/tree; touch /tmp/other/file"}, []outcome{
			{args: do("unpack good.tar /tmp/other/new"), status: 1, says: `unpack to /tmp/other/new: .*permission denied`},
			{args: do("pack tree -o /tmp/other/new.tar"), status: 1, says: `/tmp/other/new.tar: .*permission denied`},
			{args: do("rm /tmp/other/file"), status: 1, says: `rm /tmp/other/file: .*permission denied`},
			{args: do("rm /tmp/other/tree"), status: 1, says: `permission denied`},
			{args: do("doctor /tmp/other"), status: 4, says: `(?s)problem  no tree can be made here.*permission denied.*remedy: choose a directory that you may write to`},
		}},
		{"directory that nobody may write", place{Setup: "mkdir -m 0555 shut; chown $U:$U shut"}, []outcome{
			{args: do("pack tree -o shut/new.tar"), status: 1, says: `shut/new.tar: .*permission denied`},
		}},
		{"foreign group", place{Setup: "mkdir -m 0755 here; chown $U:12345 here"}, []outcome{
			{args: do("unpack good.tar here/new"), left: newTree("/tmp/home/here/new")},
			{args: do("pack here/new -o here/new.tar"), left: `^/tmp/home/here/new.tar 100644 54321:54321`},
			{args: do("doctor here"), says: "trees can be made here"},
			{args: do("rm here/new here/new.tar"), left: `/tmp/home/here `},
		}},
		{"setgid and foreign group", place{Setup: "mkdir here; chown $U:12345 here; chmod 2775 here"}, []outcome{
			{args: do("unpack good.tar here/new"), left: newTree("/tmp/home/here/new")},
			{args: do("pack here/new -o here/new.tar"), left: `^/tmp/home/here/new.tar 100644 54321:`},
			{args: do("rm here/new"), says: "removed 7 inodes"},
		}},
		{"sticky directory", place{Setup: "mkdir -m 1777 here; chown root:root here"}, []outcome{
			{args: do("unpack good.tar here/new"), left: newTree("/tmp/home/here/new")},
			{args: do("pack here/new -o here/new.tar"), left: `^/tmp/home/here/new.tar 100644 54321:`},
			{args: do("unpack good.tar here/one"), left: newTree("/tmp/home/here/one")},
			{args: do("rm here/new here/one"), says: "removed 14 inodes"},
			{args: do("doctor here"), says: "trees can be made here"},
		}},
		{"group of the caller's", place{Groups: []int{7777}, Setup: "mkdir -m 0775 here; chown root:7777 here"}, []outcome{
			{args: do("pack tree -o here/new.tar"), left: `^/tmp/home/here/new.tar 100644 54321:`},
			{args: do("unpack good.tar here/new"), left: newTree("/tmp/home/here/new")},
			{args: do("doctor here"), says: "trees can be made here"},
			{args: do("rm here/new here/new.tar"), left: `/tmp/home/here `},
		}},
		{"default ACL", place{Setup: "mkdir here; chown $U:$U here; setfacl -d -m u:5:rwx,g::rwx here; setfacl -m u:5:rwx here"}, []outcome{
			{args: do("unpack good.tar here/new"), left: newTree("/tmp/home/here/new")},
			{args: do("pack here/new -o here/new.tar"), left: `^/tmp/home/here/new.tar 1006[64]4 54321:`},
			{args: do("ls here/new"), says: `dir +\. +0:0 +755 mtime=\S+\n`},
		}},
		{"names", place{}, []outcome{
			{args: []string{"unpack", "good.tar", "new\nline \xff"}, left: `^/tmp/home/new$`},
			{args: []string{"pack", "new\nline \xff", "-o", "a\nb.tar"}, left: `^b.tar 100644 54321:`},
			{args: []string{"rm", "new\nline \xff"}, says: "removed 7 inodes"},
			{args: []string{"unpack", "good.tar", long}, left: newTree("/tmp/home/" + long)},
			{args: []string{"pack", long, "-o", "y" + long[1:]}, left: `^/tmp/home/y` + long[1:] + ` 100644`},
			{args: []string{"rm", long}, says: "removed 7 inodes"},
			{args: []string{"unpack", "good.tar", long + "x"}, status: 1, says: "file name too long"},
			{args: []string{"pack", "tree", "-o", long + "x"}, status: 1, says: "file name too long"},
			{args: []string{"unpack", "good.tar", "--", "-rf"}, left: newTree("/tmp/home/-rf")},
			{args: []string{"unpack", "good.tar", ""}, status: 1, says: `open : (no such file|file does not exist)`},
			{args: []string{"rm", ""}, status: 1, says: `rm : no such file`},
			{args: []string{"pack", "", "-o", "x.tar"}, status: 1, says: `open : no such file`},
		}},
		{"spellings", place{Setup: "mkdir sub; ln -s sub link; ln -s tree to-tree; chown -h $U:$U sub link to-tree"}, []outcome{
			{args: do("unpack good.tar sub/new/"), left: newTree("/tmp/home/sub/new")},
			{args: do("unpack good.tar link/two"), left: newTree("/tmp/home/sub/two")},
			{args: do("unpack good.tar ./sub/../sub//three"), left: newTree("/tmp/home/sub/three")},
			{args: do("unpack /tmp/home/good.tar /tmp/home/sub/four"), left: newTree("/tmp/home/sub/four")},
			{args: do("pack to-tree -o link/t.tar"), left: `^/tmp/home/sub/t.tar 100644`},
			{args: do("pack tree/. -o link/u.tar"), left: `^/tmp/home/sub/u.tar 100644`},
			{args: do("diff link/t.tar sub/u.tar")},
			{args: do("rm link/two/"), says: "removed 7 inodes"},
			{args: do("rm to-tree"), says: "removed 1 inodes", left: `^/tmp/home/tree/etc/hostname `},
			{args: do("rm ."), status: 1, says: `rm \.: refused`},
			{args: do("rm sub/.."), status: 1, says: `rm sub/\.\.: refused`},
		}},
		{"here", place{Setup: "mkdir sub; chown $U:$U sub", Dir: "/tmp/home/sub"}, []outcome{
			{args: do("unpack ../good.tar ."), left: newTree("/tmp/home/sub")},
		}},
		{"here, a tree", place{Dir: "/tmp/home/tree"}, []outcome{
			{args: do("pack . -o ../new.tar"), left: `^/tmp/home/new.tar 100644`},
			{args: do("ls ."), says: `file +etc/hostname `},
			{args: do("run --rootfs . -- /bin/none"), status: 127, says: `/bin/none`},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) { testPlace(t, tt.place, tt.do) })
	}
}

// TestSurroundings: what a caller usually has, and a job of a build system has not.
func TestSurroundings(t *testing.T) {
	rootTier(t)
	all := []outcome{
		{args: do("unpack /tmp/home/good.tar /tmp/home/new"), left: `^/tmp/home/new/var/log/messages 100640 2500000000:2500000000 4$`},
		{args: do("diff /tmp/home/good.tar /tmp/home/new")},
		{args: do("pack /tmp/home/new -o /tmp/home/new.tar"), left: `^/tmp/home/new.tar 100644 54321:54321`},
		{args: do("run --rootfs /tmp/home/new --bind /bin/busybox:/bin/busybox -- /bin/busybox id -u"), says: `^0\n$`},
		{args: do("run --rootfs /tmp/home/new --bind /bin/busybox:/bin/busybox -- /bin/busybox pwd"), says: `^/\n$`},
		{args: do("doctor /tmp/home"), says: "trees can be made here"},
		{args: do("rm /tmp/home/new"), says: "removed 7 inodes"},
	}
	for name, p := range map[string]place{
		"usual":                    {},
		"no HOME":                  {Env: []string{"HOME", "XDG_CACHE_HOME"}},
		"no LOGNAME":               {Env: []string{"LOGNAME", "USER"}},
		"other's LOGNAME":          {Env: []string{"LOGNAME=root", "USER=root"}},
		"HOME closed":              {Env: []string{"HOME=/root"}},
		"cwd deleted":              {Gone: true},
		"cwd closed to the caller": {Dir: "/tmp/shut", Setup: "mkdir -m 0700 /tmp/shut"},
		"cwd in 0700 home":         {Dir: "/tmp/home/deep/er", Setup: "mkdir -p -m 0700 deep/er; chmod 700 deep; chown -R $U:$U deep"},
	} {
		t.Run(name, func(t *testing.T) { testPlace(t, p, all) })
	}
	t.Run("umask 077", func(t *testing.T) {
		testPlace(t, place{Umask: 0o077}, []outcome{
			{args: do("unpack good.tar new"), left: `^/tmp/home/new/etc 40755 `},
			{args: do("ls new"), says: `file +etc/hostname +0:0 +644`},
			{args: do("pack new -o new.tar"), left: `^/tmp/home/new.tar 100600 54321:54321`},
			{args: []string{"run"}, stdin: "umask", says: `^0077\n$`},
		})
	})
	t.Run("umask 000", func(t *testing.T) {
		testPlace(t, place{Umask: 0o10000}, []outcome{
			{args: do("unpack good.tar new"), left: `^/tmp/home/new 40755 `},
			{args: do("pack new -o new.tar"), left: `^/tmp/home/new.tar 100666 54321:54321`},
			{args: []string{"run"}, stdin: "umask", says: `^0000\n$`},
		})
	})
}
