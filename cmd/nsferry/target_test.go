package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// outcome is a call with what has to come of it. A status other than 0 also demands one message, and that nothing in the
// home directory has changed.
type outcome struct {
	args   []string
	stdin  string
	status int
	says   string // regular expression, found in stdout or stderr
	left   string // with status 0: regular expression, found in the listing of the home directory
}

// do splits a command line at blanks.
func do(line string) []string { return strings.Fields(line) }

// testPlace does the calls in the place and checks what came of them. Nothing partial may ever be left.
func testPlace(t *testing.T, p place, outcomes []outcome) {
	t.Helper()
	for _, o := range outcomes {
		p.Do = append(p.Do, placeCall{Args: o.args, Stdin: o.stdin})
	}
	for i, a := range p.visit(t) {
		o := outcomes[i]
		what := fmt.Sprintf("%q", o.args)
		if o.args[0] == "doctor" && o.status != 0 {
			if a.Exit != o.status || !regexp.MustCompile(o.says).MatchString(a.Stdout) {
				t.Errorf("%s: status %d, want %d and %q\n%s%s", what, a.Exit, o.status, o.says, a.Stdout, a.Stderr)
			}
			continue
		}
		if o.status != 0 {
			checkRefusal(t, what, a, o.status, o.says)
			continue
		}
		if says := regexp.MustCompile(o.says); a.Exit != 0 || !says.MatchString(a.Stdout) && !says.MatchString(a.Stderr) {
			t.Errorf("%s: status %d, want 0 and %q\n%s%s", what, a.Exit, o.says, a.Stdout, a.Stderr)
		}
		after := strings.Join(a.After, "\n")
		if !regexp.MustCompile(`(?m)` + o.left).MatchString(after) {
			t.Errorf("%s: no %q in\n%s", what, o.left, after)
		}
		if i := slices.IndexFunc(a.After, func(l string) bool { return strings.Contains(l, "partial") || strings.Contains(l, "placeholder") }); i >= 0 {
			t.Errorf("%s: left %s", what, a.After[i])
		}
	}
}

// TestRanges shows what comes of sub-id files that are odd but good: always a map of the whole range, never a smaller one.
func TestRanges(t *testing.T) {
	rootTier(t)
	show := do("run -- /bin/cat /proc/self/uid_map")
	lines := func(extents ...[3]int) string {
		re := `^`
		for _, x := range extents {
			re += fmt.Sprintf(`\s*%d\s+%d\s+%d\n`, x[0], x[1], x[2])
		}
		return re + `$`
	}
	both := func(text string) place { return place{SubUID: text, SubGID: text} }
	for _, tt := range []struct {
		name  string
		place place
		want  string
	}{
		{"by name", place{}, lines([3]int{0, placeFirst, 65536})},
		{"by uid", both("54321:2500000000:65536\n"), lines([3]int{0, placeFirst, 65536})},
		{"no newline at the end", both("# a comment\n\nothers:1:2\nferryman:2500000000:65536"), lines([3]int{0, placeFirst, 65536})},
		{"1000", both("ferryman:2500000000:1000\n"), lines([3]int{0, placeFirst, 999}, [3]int{65534, placeFirst + 999, 1})},
		{"2", both("ferryman:2500000000:2\n"), lines([3]int{0, placeFirst, 1}, [3]int{65534, placeFirst + 1, 1})},
		{"two ranges", both("ferryman:2500000000:1000\nferryman:2600000000:65536\n"), lines([3]int{0, placeFirst, 1000}, [3]int{1000, 2600000000, 65536})},
		{"overlapping ranges", both("ferryman:2500000000:1000\nferryman:2500000500:65536\n"), lines([3]int{0, placeFirst, 66036})},
		{"the same range twice", both("ferryman:2500000000:65536\n54321:2500000000:65536\n"), lines([3]int{0, placeFirst, 65536})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			testPlace(t, tt.place, []outcome{
				{args: show, says: tt.want},
				{args: do("unpack good.tar new"), left: fmt.Sprintf(`^/tmp/home/new/etc/hostname 100644 %d:%[1]d 6$`, placeFirst)},
				{args: do("pack new -o new.tar.zst"), left: `^/tmp/home/new.tar.zst 100644 54321:54321 `},
				{args: do("rm new"), says: "removed 7 inodes"},
				{args: do("doctor ."), says: "trees can be made here"},
			})
		})
	}
}

// odd makes odd.tar, whose tree needs ACLs, attributes and capabilities, and big.tar, which takes more than a MiB.
const odd = `mkdir o; echo x >o/f; setfacl -m u:1:r o/f; setfattr -n user.colour -v blue o/f
tar -C o --numeric-owner --owner=0 --group=0 --acls --xattrs --xattrs-include='user.*' -cf odd.tar .; rm -r o
mkdir o; head -c 3000000 /dev/urandom >o/f; tar -C o --numeric-owner --owner=0 --group=0 -cf big.tar .; rm -r o
mkdir fs
`

// TestFilesystems meets filesystems that cannot hold what they are given.
func TestFilesystems(t *testing.T) {
	rootTier(t)
	mount := func(how string) string { return odd + "mount -t " + how + " none fs\nchown $U:$U fs\nchmod 755 fs\n" }
	for _, tt := range []struct {
		name  string
		setup string
		do    []outcome
	}{
		{"ramfs", mount("ramfs"), []outcome{
			{args: do("unpack odd.tar fs/new"), status: 1, says: `unpack to fs/new: setxattr user.colour f: operation not supported: .*--xattrs none`},
			{args: do("unpack --xattrs none odd.tar fs/new"), left: `^/tmp/home/fs/new/f `},
			{args: do("unpack good.tar fs/good"), left: `^/tmp/home/fs/good/etc/hostname `},
			{args: do("pack fs/good -o fs/good.tar.zst"), left: `^/tmp/home/fs/good.tar.zst 100644 54321:54321`},
			{args: do("run --rootfs fs/good --bind /bin/busybox:/mnt/deep/busybox -- /mnt/deep/busybox echo in"), says: `^in\n$`},
			{args: do("doctor fs"), says: `(?s)POSIX ACLs: no.*remedy`},
			{args: do("rm fs/good fs/new fs/good.tar.zst")},
		}},
		{"full", mount("tmpfs -o size=1m"), []outcome{
			{args: do("unpack big.tar fs/new"), status: 1, says: `unpack to fs/new: .*no space left on device`},
			{args: do("pack tree -o fs/tree.tar.zst"), left: `^/tmp/home/fs/tree.tar.zst`},
			{args: do("unpack big.tar bigtree"), left: `^/tmp/home/bigtree/f`},
			{args: do("pack bigtree -o fs/big.tar.zst"), status: 1, says: `no space left on device`},
			{args: do("pack bigtree -o fs/big.tar"), status: 1, says: `no space left on device`},
			{args: do("pack --force bigtree -o fs/tree.tar.zst"), status: 1, says: `no space left on device`},
			{args: do("verify fs/tree.tar.zst")},
		}},
		{"no inodes", mount("tmpfs -o size=1m,nr_inodes=4"), []outcome{
			{args: do("unpack good.tar fs/new"), status: 1, says: `unpack to fs/new: .*no space left on device`},
			{args: do("run --rootfs tree --bind fs:/mnt/fs -- /nothing"), status: 127, says: `/nothing`},
		}},
		{"not one inode", mount("tmpfs -o size=1m,nr_inodes=1"), []outcome{
			{args: do("unpack good.tar fs/new"), status: 1, says: `unpack to fs/new: .*no space left on device`},
			{args: do("pack tree -o fs/new.tar"), status: 1, says: `fs/new.tar: .*no space left on device`},
			{args: do("doctor fs"), status: 4, says: `(?s)problem  no tree can be made here.*no space left on device.*remedy: .*filesystem with room`},
		}},
		{"read-only", mount("tmpfs -o size=9m") + "cp -a tree fs/tree; cp -a tree fs/mounts; mkdir -p fs/mounts/dev/pts fs/mounts/dev/shm fs/mounts/proc fs/mounts/sys; touch fs/mounts/etc/resolv.conf; chown -R 2500000000:2500000000 fs/mounts; mount -o remount,ro fs", []outcome{
			{args: do("unpack good.tar fs/new"), status: 1, says: `unpack to fs/new: .*read-only file system`},
			{args: do("pack tree -o fs/new.tar"), status: 1, says: `fs/new.tar: .*read-only file system`},
			{args: do("pack fs/tree -o new.tar"), left: `^/tmp/home/new.tar`},
			{args: do("rm fs/tree"), status: 1, says: `rm fs/tree: .*read-only file system`},
			{args: do("run --rootfs fs/tree -- /bin/true"), status: 125, says: `read-only file system`},
			{args: do("run --rootfs fs/mounts -- /bin/nothing"), status: 127, says: `/bin/nothing`},
			{args: do("doctor fs"), status: 4, says: `(?s)problem  no tree can be made here.*read-only file system.*remedy: `},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) { testPlace(t, place{Setup: tt.setup}, tt.do) })
	}
}
