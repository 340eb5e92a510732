package tree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// visits walks dir and returns the paths that it came by.
func visits(t testing.TB, dir string, visit func(*Entry) error) (paths []string, err error) {
	t.Helper()
	err = Walk(t.Context(), openTestDir(t, dir), func(e *Entry) error {
		paths = append(paths, e.Path)
		if visit == nil {
			return nil
		}
		return visit(e)
	})
	return paths, err
}

func TestWalkOrder(t *testing.T) {
	noLeak(t)
	dir := build(t, `
dir . @ 755
dir a @ 755
file a/z @ 644 ""
dir a/b @ 755
symlink a/b/up @ ../..
file a.b @ 644 ""
file a-b @ 644 ""
file "a\xff" @ 644 ""
symlink l @ a
fifo "new\nline" @ 644
file "~" @ 644 ""`)
	got, err := visits(t, dir, nil)
	must(t, err)
	want := []string{".", "a", "a/b", "a/b/up", "a/z", "a-b", "a.b", "a\xff", "l", "new\nline", "~"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	got, err = visits(t, dir, func(e *Entry) error {
		if e.Path == "a/b" {
			return ErrSkipDir
		}
		return nil
	})
	must(t, err)
	if want := slices.Delete(want, 3, 4); !slices.Equal(got, want) {
		t.Errorf("with ErrSkipDir: got  %q\nwant %q", got, want)
	}
	if got, err := visits(t, dir, func(*Entry) error { return ErrSkipDir }); err != nil || len(got) != 1 {
		t.Errorf("ErrSkipDir of the root: %q, %v", got, err)
	}
	stop := errors.New("stop")
	if _, err := visits(t, dir, func(e *Entry) error {
		if e.Path == "a/z" {
			return stop
		}
		return nil
	}); !errors.Is(err, stop) {
		t.Errorf("error %v, want the visit's", err)
	}
}

func TestWalkCancelled(t *testing.T) {
	noLeak(t)
	dir := openTestDir(t, build(t, "dir . @ 755\ndir a @ 755\ndir a/b @ 755\ndir a/b/c @ 755"))
	ctx, cancel := context.WithCancel(t.Context())
	err := Walk(ctx, dir, func(e *Entry) error {
		if e.Path == "a" {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// TestWalkChanged: names that vanish, directories that become symlinks, and directories that are moved while
// somebody is deep in them end the walk with an error; it never leaves the tree.
func TestWalkChanged(t *testing.T) {
	for name, c := range map[string]struct {
		at     string
		change func(dir string) error
		want   error
	}{
		"file vanishes":       {"a", func(d string) error { return os.Remove(d + "/f") }, unix.ENOENT},
		"directory vanishes":  {"a", func(d string) error { return os.Remove(d + "/a") }, unix.ENOENT},
		"becomes a symlink":   {"a", func(d string) error { return errors.Join(os.Remove(d+"/a"), os.Symlink("/etc", d+"/a")) }, unix.ENOTDIR},
		"another one instead": {"a", func(d string) error { return errors.Join(os.Remove(d+"/f"), os.Mkdir(d+"/f", 0o755)) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			noLeak(t)
			dir := build(t, "dir . @ 755\ndir a @ 755\nfile f @ 644 \"\"")
			got, err := visits(t, dir, func(e *Entry) error {
				if e.Path != c.at {
					return nil
				}
				return c.change(dir)
			})
			if !errors.Is(err, c.want) && !(c.want == unix.ENOTDIR && errors.Is(err, unix.ELOOP)) {
				t.Errorf("visited %q, error %v, want %v", got, err, c.want)
			}
		})
	}
	t.Run("moved away while deep", func(t *testing.T) {
		noLeak(t)
		outer := t.TempDir()
		dir := filepath.Join(outer, "tree")
		must(t, os.Mkdir(dir, 0o700))
		unix.Close(makeDeep(t, dir, 2*maxLevels))
		got, err := visits(t, dir, func(e *Entry) error {
			if len(e.Path) == 4*maxLevels-1 { // the last one
				return os.Rename(filepath.Join(dir, "d/d/d"), filepath.Join(outer, "moved"))
			}
			return nil
		})
		if !errors.Is(err, ErrChanged) {
			t.Errorf("%d visits, error %v, want ErrChanged", len(got), err)
		}
	})
}

func TestWalkDeep(t *testing.T) {
	const levels = 10000
	dir := t.TempDir()
	unix.Close(makeDeep(t, dir, levels))
	t.Cleanup(func() { removeDeep(t, dir) })
	limitFiles(t, maxLevels+20)
	noLeak(t)
	n := 0
	must(t, Walk(t.Context(), openTestDir(t, dir), func(e *Entry) error {
		if want := max(1, 2*n-1); len(e.Path) != want {
			t.Fatalf("visit %d has a path of %d bytes, want %d", n, len(e.Path), want)
		}
		n++
		return nil
	}))
	if n != levels+1 {
		t.Errorf("%d visits, want %d", n, levels+1)
	}
}

// TestWalkMounts: a mount point is told by its mount, not by its device.
func TestWalkMounts(t *testing.T) {
	rootTier(t)
	dir := build(t, "dir . @ 755\ndir bound @ 755\ndir fresh @ 755\nfile file @ 644 \"\"\ndir src @ 755\nfile src/f @ 644 \"\"")
	inMounts(t, func() error {
		return errors.Join(
			unix.Mount(dir+"/src", dir+"/bound", "", unix.MS_BIND, ""), // of the same device
			unix.Mount("tmpfs", dir+"/fresh", "tmpfs", 0, ""),
			unix.Mount(dir+"/src/f", dir+"/file", "", unix.MS_BIND, ""))
	}, func() error {
		d, err := os.Open(dir)
		if err != nil {
			return err
		}
		defer d.Close()
		var got []string
		err = Walk(context.Background(), d, func(e *Entry) error {
			got = append(got, fmt.Sprint(e.Path, " ", e.Mount))
			return nil
		})
		if want := ". false,bound true,bound/f true,file true,fresh true,src false,src/f false"; strings.Join(got, ",") != want {
			err = errors.Join(err, fmt.Errorf("got  %s\nwant %s", strings.Join(got, ","), want))
		}
		_, rerr := Remove(context.Background(), d, "bound", nil)
		_, serr := Remove(context.Background(), d, "src", nil)
		_, ferr := Remove(context.Background(), d, "file", nil)
		if !errors.Is(rerr, ErrMounted) {
			err = errors.Join(err, fmt.Errorf("remove of a mount point: %w", rerr))
		}
		if !errors.Is(ferr, unix.EBUSY) {
			err = errors.Join(err, fmt.Errorf("remove of a mounted file: %w", ferr))
		}
		if serr != nil {
			err = errors.Join(err, fmt.Errorf("remove beside mounts: %w", serr))
		}
		return err
	})
}

// TestRemoveCrossesNoMount: what is mounted deep in a tree stays whole, all around it goes, and the error names it.
func TestRemoveCrossesNoMount(t *testing.T) {
	rootTier(t)
	dir := build(t, "dir . @ 755\ndir kept @ 755\nfile kept/precious @ 644 \"x\"\ndir t @ 755\ndir t/a @ 755\ndir t/a/mnt @ 755\nfile t/a/f @ 644 \"\"\ndir t/b @ 755")
	inMounts(t, func() error {
		return unix.Mount(dir+"/kept", dir+"/t/a/mnt", "", unix.MS_BIND, "")
	}, func() error {
		d, err := os.Open(dir)
		if err != nil {
			return err
		}
		defer d.Close()
		r, err := Remove(context.Background(), d, "t", nil)
		if !errors.Is(err, ErrMounted) || !strings.Contains(fmt.Sprint(err), "t/a/mnt") || r.Inodes != 2 {
			return fmt.Errorf("removed %d inodes, error %w; want 2 and one that names t/a/mnt", r.Inodes, err)
		}
		return nil
	})
	wantTree(t, dir, "dir . @ 755\ndir kept @ 755\nfile kept/precious @ 644 \"x\"\ndir t @ 755\ndir t/a @ 755\ndir t/a/mnt @ 755")
}

// inMounts runs f on a thread with a mount namespace of its own, which ends with it.
func inMounts(t *testing.T, mount, f func() error) {
	t.Helper()
	if err := onThread(unix.CLONE_NEWNS|unix.CLONE_FS, func() error {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		if err := mount(); err != nil {
			return fmt.Errorf("mount: %w", err)
		}
		return f()
	}); err != nil {
		t.Error(err)
	}
}

// TestEachAgrees: both parallel walks come by what Walk does, at any number of workers, and EachHandle's handle is the inode
// of the entry, also when the names are moved about meanwhile.
func TestEachAgrees(t *testing.T) {
	noLeak(t)
	lines := "dir . @ 755\nsymlink l @ d0\nfifo p @ 644\n"
	for d := range 12 {
		lines += fmt.Sprintf("dir d%d @ 755\ndir d%d/e @ 700\n", d, d)
		for f := range 8 {
			lines += fmt.Sprintf("file d%d/e/f%d @ 644 \"x\"\n", d, f)
		}
	}
	dir := build(t, lines)
	want, err := visits(t, dir, nil)
	must(t, err)
	slices.Sort(want)
	for _, workers := range []int{1, 2, 7} {
		var mu sync.Mutex
		var each, handles []string
		must(t, Each(t.Context(), openTestDir(t, dir), workers, func(e *Entry) error {
			mu.Lock()
			defer mu.Unlock()
			each = append(each, e.Path)
			return nil
		}))
		must(t, EachHandle(t.Context(), openTestDir(t, dir), workers, func(e *Entry, h *Handle) error {
			if e.Path != "." { // the name is another inode's when the visitor comes to act
				must(t, unix.Renameat(e.Dir, e.Base, e.Dir, e.Base+".real"))
				must(t, unix.Mkdirat(e.Dir, e.Base, 0o700))
			}
			must(t, h.Refresh())
			same := e.Stat.Ino == h.Stat.Ino && e.Type() == h.Type() && e.Path == h.Path
			if e.Path != "." {
				must(t, unix.Unlinkat(e.Dir, e.Base, unix.AT_REMOVEDIR))
				must(t, unix.Renameat(e.Dir, e.Base+".real", e.Dir, e.Base))
			}
			mu.Lock()
			defer mu.Unlock()
			if !same {
				t.Errorf("%s: the handle is of another inode", e.Path)
			}
			handles = append(handles, e.Path)
			return nil
		}))
		slices.Sort(each)
		slices.Sort(handles)
		if !slices.Equal(each, want) || !slices.Equal(handles, want) {
			t.Errorf("%d workers: Walk %d, Each %d, EachHandle %d names", workers, len(want), len(each), len(handles))
		}
	}
}
