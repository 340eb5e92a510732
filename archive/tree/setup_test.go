package tree

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/acl"
	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/archive/treetest"
	"github.com/nsferry/nsferry/tier"
)

// rootTier skips what only the run as root can show.
func rootTier(t testing.TB, programs ...string) {
	t.Helper()
	tier.Root(t, "filesystems and owners of every kind")
	tier.Program(t, programs...)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openTestDir(t testing.TB, path string) *os.File {
	t.Helper()
	d, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}

// own puts the running user's ids in place of "@".
func own(lines string) string {
	return strings.ReplaceAll(lines, "@", fmt.Sprintf("%d:%d", os.Geteuid(), os.Getegid()))
}

// build makes a tree from lines in a new directory.
func build(t testing.TB, lines string) string {
	t.Helper()
	dir := t.TempDir()
	nodes, err := listing.Parse(own(lines))
	must(t, err)
	must(t, treetest.Build(dir, nodes))
	return dir
}

// wantTree compares the tree in dir with lines.
func wantTree(t testing.TB, dir, lines string) {
	t.Helper()
	got, err := treetest.Dump(dir)
	must(t, err)
	want, err := listing.Parse(own(lines))
	must(t, err)
	if d := treetest.Diff(want, got); d != "" {
		t.Errorf("tree differs (- wanted, + there):\n%s", d)
	}
}

// bothRoots runs f with a Root of dir for each way to resolve paths.
func bothRoots(t *testing.T, dir func(t *testing.T) string, f func(t *testing.T, r *Root)) {
	t.Helper()
	t.Run("openat2", func(t *testing.T) {
		r := NewRoot(openTestDir(t, dir(t)))
		if !r.openat2 {
			tier.Have(t, false, "openat2")
		}
		f(t, r)
	})
	t.Run("walk", func(t *testing.T) { f(t, newWalkingRoot(openTestDir(t, dir(t)))) })
}

// limitFiles lowers the limit of open files for the test, to n more than are open now.
func limitFiles(t testing.TB, n int) {
	t.Helper()
	var old unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(countFiles(t) + n), Max: old.Max}))
	t.Cleanup(func() { must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &old)) })
}

func countFiles(t testing.TB) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(names) - 1
}

// noLeak fails the test when it ends with more open files than it began with.
func noLeak(t testing.TB) {
	before := countFiles(t)
	t.Cleanup(func() {
		if after := countFiles(t); after > before {
			t.Errorf("%d files are open, %d were before", after, before)
		}
	})
}

// aclValue is the kernel's form of an ACL in setfacl's text.
func aclValue(t testing.TB, text string) []byte {
	t.Helper()
	a, err := acl.Parse(text, nil)
	must(t, err)
	return a.Encode()
}
