package debs

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nsferry/nsferry/tier"
)

// TestCacheElsewhere: a cache that does not exist, on another filesystem, read-only, full, or somebody else's.
func TestCacheElsewhere(t *testing.T) {
	a := deb(t, "alpha", "1", "amd64")
	big := sample{Package{"big", "1", "all"}, nil}
	big.data = buildDeb(t, big.Package, noise(3<<20, 1), "-Znone")
	e := ways(t)[0]

	w := newWorld(t, e)
	w.dl = filepath.Join(w.dir, "no", "such", "cache")
	w.lists(a)
	w.put(a.FileName(), a.data, 0o644)
	settled()
	if _, err := Verify(t.Context(), e.Lazy, w.dl, VerifyOptions{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("verify of nothing: %v", err)
	}
	w.export(ExportOptions{})
	w.ours(a)
	if _, err := Export(t.Context(), e.Lazy, w.root, filepath.Join(w.dl, a.FileName()), ExportOptions{}); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("a cache that is a file: %v", err)
	}

	tier.Root(t, "mounts")
	mount := func(options string) string {
		dir := t.TempDir()
		check(t, syscall.Mount("none", dir, "tmpfs", 0, options))
		t.Cleanup(func() { check(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
		check(t, os.Mkdir(filepath.Join(dir, "dl"), 0o755))
		return filepath.Join(dir, "dl")
	}
	w.dl = mount("size=16m,mode=755")
	w.export(ExportOptions{})
	w.ours(a)
	w.newRoot("second")
	if sum := w.imp(ImportOptions{}); sum.Brought != 1 || sum.Methods[hardLink] != 0 {
		t.Errorf("import from another filesystem: %+v", sum)
	}
	w.readable(a)

	// Read-only, lock and all.
	check(t, os.Remove(w.dl+".lock"))
	check(t, syscall.Mount("none", filepath.Dir(w.dl), "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	w.newRoot("third")
	if sum := w.imp(ImportOptions{}); sum.Brought != 1 {
		t.Errorf("import from a read-only cache: %+v", sum)
	}
	w.lists(a, big)
	w.put(big.FileName(), big.data, 0o644)
	settled()
	if _, err := Export(t.Context(), e.Lazy, w.root, w.dl, ExportOptions{}); !errors.Is(err, syscall.EROFS) {
		t.Errorf("export to a read-only cache: %v", err)
	}

	// Full: what fits is there, whole.
	w.dl = mount("size=1m,mode=755")
	_, err := Export(t.Context(), e.Lazy, w.root, w.dl, ExportOptions{})
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("export to a full cache: %v", err)
	}
	w.wholeOrAbsent([]sample{a})
	if got, err := os.ReadFile(filepath.Join(w.dl, a.FileName())); err == nil && !bytes.Equal(got, a.data) {
		t.Error("the deb that fits is not whole")
	}
}

// TestCacheOfAnother: what the caller may only read he imports from, by copies, and cannot export to.
func TestCacheOfAnother(t *testing.T) {
	tier.User(t, "root may write anywhere")
	a := deb(t, "alpha", "1", "amd64")
	e := ways(t)[0]
	w := newWorld(t, e)
	// Another user's files are those of a sub-id: nobody else is at hand.
	w.inside("sh", "-c", `mkdir "$1" && cat >"$1/$2" && chmod 755 "$1"`, "sh", w.dl, "x")
	from := filepath.Join(w.dir, "put")
	check(t, os.WriteFile(from, a.data, 0o644))
	w.inside("cp", from, filepath.Join(w.dl, a.FileName()))
	w.inside("rm", filepath.Join(w.dl, "x"))
	sum := w.imp(ImportOptions{})
	if sum.Brought != 1 || sum.Methods[hardLink] != 0 {
		t.Errorf("import: %+v", sum)
	}
	w.readable(a)
	b := deb(t, "beta", "1", "all")
	w.lists(a, b)
	w.put(b.FileName(), b.data, 0o644)
	settled()
	if _, err := Export(t.Context(), e.Lazy, w.root, w.dl, ExportOptions{}); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), b.FileName()) {
		t.Errorf("export: %v", err)
	}
}

// TestListOfNothing: a rootfs without archives has no debs, but a rootfs that is not there is an error.
func TestListOfNothing(t *testing.T) {
	e := ways(t)[0]
	dir, err := os.Open(newWorld(t, e).root)
	check(t, err)
	defer dir.Close()
	if _, err := listHalf.Run(t.Context(), e.Env, restArgs{"gone"}, nil, dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a rootfs that is gone: %v", err)
	}
	check(t, os.Mkdir(dir.Name()+".empty", 0o755))
	empty, err := os.Open(dir.Name() + ".empty")
	check(t, err)
	defer empty.Close()
	if l, err := listHalf.Run(t.Context(), e.Env, restArgs{}, nil, empty); err != nil || len(l.Files) > 0 {
		t.Errorf("a rootfs without archives: %v, %v", l, err)
	}
}
