//go:build linux

package mounts

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// tree builds a rootfs with a shell, owned by uid. Names ending in "/" are directories, "a -> b" symlinks, others
// files holding their own name.
func tree(t testing.TB, base string, uid uint32, names ...string) *os.File {
	t.Helper()
	dir, err := os.MkdirTemp(base, "mounts-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	grow(t, dir, names...)
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), busybox, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"sh", "cat", "ls", "stat", "touch", "mkdir", "sleep", "readlink", "mount", "echo", "id", "test"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", a)); err != nil {
			t.Fatal(err)
		}
	}
	own(t, dir, uid)
	return open(t, dir)
}

// publicDir is a temporary directory that everybody can search, unlike t.TempDir.
func publicDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mounts-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func grow(t testing.TB, dir string, names ...string) {
	t.Helper()
	for _, n := range names {
		link, target, isLink := strings.Cut(n, " -> ")
		at := filepath.Join(dir, link)
		parent := at
		if !strings.HasSuffix(n, "/") || isLink {
			parent = filepath.Dir(at)
		}
		if err := os.MkdirAll(parent, 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		switch {
		case isLink:
			err = os.Symlink(target, at)
		case !strings.HasSuffix(n, "/"):
			err = os.WriteFile(at, []byte(n+"\n"), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func own(t testing.TB, dir string, uid uint32) {
	t.Helper()
	err := filepath.Walk(dir, func(p string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		if os.Getuid() != 0 {
			return nil
		}
		return os.Lchown(p, int(uid), int(uid))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, name string) *os.File {
	t.Helper()
	f, err := openPath(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// snapshot lists every name below dir with type, mode, size, mtime and mark.
func snapshot(t testing.TB, dir string) []string {
	t.Helper()
	list, err := trySnapshot(dir)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// trySnapshot is snapshot of a tree in which something may just be going away.
func trySnapshot(dir string) (list []string, err error) {
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		marked := "no mark"
		if _, err := unix.Lgetxattr(p, MarkXattr, nil); err == nil {
			marked = "marked"
		}
		rel, err := filepath.Rel(dir, p)
		list = append(list, fmt.Sprint(rel, " ", fi.Mode(), " ", fi.ModTime().UnixNano(), " ", marked))
		return err
	})
	return list, err
}

// unchanged fails the test unless dir is as it was.
func unchanged(t testing.TB, dir string, before []string) {
	t.Helper()
	if d := cmp.Diff(before, snapshot(t, dir)); d != "" {
		t.Errorf("tree changed (-before +after):\n%s", d)
	}
}

// tempOn makes a temporary directory on a filesystem.
func tempOn(t testing.TB, on string) string {
	t.Helper()
	dir, err := os.MkdirTemp(on, "mounts-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// filesystems are the places that trees are tried on.
var filesystems = []string{"/tmp", "/dev/shm"}
