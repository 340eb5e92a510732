package tree

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRemove(t *testing.T) {
	noLeak(t)
	const beside = "dir . @ 755\ndir beside @ 755\nfile beside/f @ 644 \"x\"\nfile kept @ 644 \"y\"\n"
	for name, c := range map[string]struct {
		tree   string
		inodes int64
	}{
		"file":          {"file t @ 000 \"\"", 1},
		"symlink":       {"symlink t @ beside", 1},
		"dangling":      {"symlink t @ nowhere", 1},
		"fifo":          {"fifo t @ 000", 1},
		"empty":         {"dir t @ 700", 1},
		"symlinks out":  {"dir t @ 755\nsymlink t/a @ ../beside\nsymlink t/b @ ..\nsymlink t/c @ /", 4},
		"hard link out": {"dir t @ 755\nhardlink t/h beside/f", 2},
		"odd names":     {"dir t @ 755\nfile \"t/\\n\" @ 644 \"\"\nfile \"t/\\xff\" @ 644 \"\"\nfile t/-rf @ 644 \"\"", 4},
	} {
		t.Run(name, func(t *testing.T) {
			dir := build(t, beside+c.tree)
			r, err := Remove(t.Context(), openTestDir(t, dir), "t", nil)
			if err != nil || r.Inodes != c.inodes {
				t.Errorf("removed %d, want %d; error %v", r.Inodes, c.inodes, err)
			}
			wantTree(t, dir, beside)
		})
	}
	t.Run("nothing", func(t *testing.T) {
		dir := build(t, beside)
		if r, err := Remove(t.Context(), openTestDir(t, dir), "t", nil); err != nil || r.Inodes != 0 {
			t.Errorf("removed %d, error %v", r.Inodes, err)
		}
	})
}

// TestRemoveLocked: modes are no obstacle to root, and an ordinary user is told of each directory that he cannot read, while
// the rest goes.
func TestRemoveLocked(t *testing.T) {
	noLeak(t)
	dir := build(t, "dir . @ 755\ndir t @ 755\ndir t/a @ 000\ndir t/b @ 755\nfile t/b/f @ 000 \"\"\ndir t/c @ 555")
	_, err := Remove(t.Context(), openTestDir(t, dir), "t", nil)
	if os.Geteuid() == 0 {
		must(t, err)
		wantTree(t, dir, "dir . @ 755")
		return
	}
	if err == nil || !errors.Is(err, unix.EACCES) || !strings.Contains(err.Error(), "t/a") {
		t.Errorf("error %v, want EACCES for t/a", err)
	}
	must(t, os.Chmod(filepath.Join(dir, "t/a"), 0o700))
	wantTree(t, dir, "dir . @ 755\ndir t @ 755\ndir t/a @ 700")
}

// TestRemoveErrors: of many failures twenty are told in full.
func TestRemoveErrors(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("user tier")
	}
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "t"), 0o700))
	for i := range 50 {
		must(t, os.Mkdir(filepath.Join(dir, "t", fmt.Sprint(i)), 0))
		must(t, os.WriteFile(filepath.Join(dir, "t", fmt.Sprint("f", i)), nil, 0))
	}
	for i := range 50 { // not empty, so that rmdir without reading does not do
		d := filepath.Join(dir, "t", fmt.Sprint(i))
		must(t, os.Chmod(d, 0o700))
		must(t, os.Mkdir(filepath.Join(d, "x"), 0o700))
		must(t, os.Chmod(d, 0))
	}
	r, err := Remove(t.Context(), openTestDir(t, dir), "t", nil)
	if err == nil || strings.Count(err.Error(), "permission denied") != maxErrors || !strings.Contains(err.Error(), "and 30 more") || r.Inodes != 50 {
		t.Errorf("removed %d, error %v", r.Inodes, err)
	}
	for i := range 50 {
		must(t, os.Chmod(filepath.Join(dir, "t", fmt.Sprint(i)), 0o700))
	}
}

func TestRemoveDeep(t *testing.T) {
	const levels = 10000
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "t"), 0o700))
	unix.Close(makeDeep(t, filepath.Join(dir, "t"), levels))
	limitFiles(t, maxLevels+20)
	noLeak(t)
	r, err := Remove(t.Context(), openTestDir(t, dir), "t", nil)
	must(t, err)
	if r.Inodes != levels+1 {
		t.Errorf("removed %d, want %d", r.Inodes, levels+1)
	}
}

func TestRemoveMany(t *testing.T) {
	noLeak(t)
	files := 20000
	if testing.Short() {
		files = 2000
	}
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "t"), 0o700))
	d := openTestDir(t, filepath.Join(dir, "t"))
	for i := range files {
		must(t, unix.Mknodat(int(d.Fd()), fmt.Sprint(i), unix.S_IFREG|0o600, 0))
	}
	r, err := Remove(t.Context(), openTestDir(t, dir), "t", nil)
	if err != nil || r.Inodes != int64(files)+1 {
		t.Errorf("removed %d, want %d; error %v", r.Inodes, files+1, err)
	}
}

// TestRemoveRights: what concerns the name itself, and only that, goes through the rights that are given.
func TestRemoveRights(t *testing.T) {
	dir := build(t, "dir . @ 755\ndir t @ 755\ndir t/a @ 755\nfile t/a/f @ 644 \"\"")
	calls := 0
	_, err := Remove(t.Context(), openTestDir(t, dir), "t", func(f func() error) error { calls++; return f() })
	if err != nil || calls != 5 { // stat of the directory, unlink, open for the workers, open for the rest, rmdir
		t.Errorf("%d calls, error %v", calls, err)
	}
	denied := errors.New("denied")
	must(t, os.Mkdir(filepath.Join(dir, "t"), 0o700))
	if _, err := Remove(t.Context(), openTestDir(t, dir), "t", func(func() error) error { return denied }); !errors.Is(err, denied) {
		t.Errorf("error %v, want that of the rights", err)
	}
}
