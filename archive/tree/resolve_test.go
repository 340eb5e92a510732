package tree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// resolveTree is what the cases of TestResolve walk in; "secret" beside it must never be reached.
const resolveTree = `
dir .             @ 755
dir a             @ 755
dir a/b           @ 755
dir a/b/c         @ 755
dir "a/ \n"       @ 755
dir secret        @ 755
file f            @ 644 "x"
fifo p            @ 644
symlink abs       @ /a/b
symlink rel       @ a/b
symlink trail     @ a/b/
symlink slashes   @ ///a//b/
symlink up        @ ..
symlink upup      @ ../../../a
symlink out       @ /../../secret
symlink outrel    @ ../../secret
symlink root      @ /
symlink dot       @ .
symlink self      @ self
symlink loop      @ pool
symlink pool      @ loop
symlink dangling  @ nowhere
symlink tofile    @ f
symlink through   @ f/../a
symlink gone      @ nowhere/../a
symlink a/up      @ ..
symlink a/b/back  @ ../../a/./b//c/..
symlink a/b/abs   @ /rel/back
symlink a/b/far   @ ../../../../../../rel
symlink magic     @ /proc/self/root
symlink self-cwd  @ /proc/self/cwd
`

// resolveCases maps paths to the directory below the root where they lead, or the errno.
var resolveCases = []struct {
	path string
	want any
}{
	{".", "."}, {"", "."}, {"/", "."}, {"//", "."}, {"./././", "."}, {"..", "."}, {"../..", "."}, {"/../../..", "."},
	{"a", "a"}, {"/a", "a"}, {"a/", "a"}, {"a/.", "a"}, {"a//b", "a/b"}, {"a/b/c", "a/b/c"}, {"a/ \n", "a/ \n"},
	{"a/..", "."}, {"a/b/..", "a"}, {"a/../a/b", "a/b"}, {"a/../../../a", "a"}, {"../../etc", unix.ENOENT},
	{"abs", "a/b"}, {"abs/c", "a/b/c"}, {"rel", "a/b"}, {"rel/c", "a/b/c"}, {"trail/c", "a/b/c"}, {"slashes", "a/b"},
	{"up", "."}, {"up/a", "a"}, {"upup", "a"}, {"upup/b", "a/b"}, {"out", "secret"}, {"outrel", "secret"},
	{"root", "."}, {"root/a", "a"}, {"root/..", "."}, {"dot", "."}, {"dot/dot/dot/a", "a"}, {"abs/..", "a"}, {"rel/../..", "."},
	{"self", unix.ELOOP}, {"loop", unix.ELOOP}, {"loop/a", unix.ELOOP}, {"dangling", unix.ENOENT}, {"dangling/a", unix.ENOENT},
	{"f", unix.ENOTDIR}, {"f/a", unix.ENOTDIR}, {"f/..", unix.ENOTDIR}, {"tofile", unix.ENOTDIR}, {"tofile/a", unix.ENOTDIR},
	{"p", unix.ENOTDIR}, {"p/a", unix.ENOTDIR}, {"through", unix.ENOTDIR}, {"gone", unix.ENOENT},
	{"a/up", "."}, {"a/up/a/up/a", "a"}, {"a/b/back", "a/b"}, {"a/b/back/c", "a/b/c"}, {"a/b/abs", "a/b"}, {"a/b/far/c", "a/b/c"},
	{"magic", unix.ENOENT}, {"magic/etc", unix.ENOENT}, {"self-cwd", unix.ENOENT}, {"missing", unix.ENOENT}, {"missing/..", unix.ENOENT},
	{strings.Repeat("dot/", 40) + "a", "a"}, {strings.Repeat("dot/", 41) + "a", unix.ELOOP},
	{strings.Repeat("a/../", 300) + "a", "a"}, {strings.Repeat("n", 256), unix.ENAMETOOLONG},
	{strings.Repeat("a/../", 2000) + "a", "a"}, // longer than PATH_MAX
}

func TestResolve(t *testing.T) {
	noLeak(t)
	fixture := func(t *testing.T) string {
		outer := build(t, resolveTree)
		dir := filepath.Join(outer, "secret")
		nested := build(t, resolveTree)
		must(t, os.Rename(nested, filepath.Join(dir, "root")))
		return filepath.Join(dir, "root")
	}
	bothRoots(t, fixture, func(t *testing.T, r *Root) {
		for _, c := range resolveCases {
			t.Run(short(c.path), func(t *testing.T) {
				fd, err := r.OpenDir(c.path)
				checkResolved(t, r, fd, err, c.want)
				if os.Geteuid() == 0 && len(c.path) < unix.PathMax {
					fd, err := openChrooted(t, r.Fd(), c.path)
					checkResolved(t, r, fd, err, c.want)
				}
			})
		}
	})
}

func short(path string) string {
	if len(path) > 20 {
		path = fmt.Sprintf("%s+%d", path[:20], len(path)-20)
	}
	return fmt.Sprintf("%q", path)
}

// checkResolved takes fd over.
func checkResolved(t *testing.T, r *Root, fd int, err error, want any) {
	t.Helper()
	if errno, fails := want.(unix.Errno); fails {
		if !errors.Is(err, errno) {
			t.Errorf("error %v, want %v", err, errno)
		}
		if err == nil {
			unix.Close(fd)
		}
		return
	}
	if err != nil {
		t.Errorf("error %v, want %s", err, want)
		return
	}
	defer unix.Close(fd)
	var got, dir unix.Stat_t
	must(t, unix.Fstat(fd, &got))
	must(t, unix.Fstatat(r.Fd(), want.(string), &dir, unix.AT_SYMLINK_NOFOLLOW))
	if got.Ino != dir.Ino || got.Dev != dir.Dev {
		at, _ := os.Readlink(procFd(fd))
		t.Errorf("leads to %s, want %s", at, want)
	}
}

// openChrooted is the oracle: a thread with a root directory of its own opens the path as any program would.
func openChrooted(t *testing.T, root int, path string) (fd int, err error) {
	t.Helper()
	fd = -1
	err = onThread(unix.CLONE_FS, func() (err error) {
		if err := errors.Join(unix.Fchdir(root), unix.Chroot(".")); err != nil {
			t.Error(err)
			return err
		}
		if path == "" {
			path = "." // an empty path is an error to the kernel, and the root to an archive
		}
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
}

func TestOpenParent(t *testing.T) {
	noLeak(t)
	fixture := func(t *testing.T) string { return build(t, resolveTree) }
	bothRoots(t, fixture, func(t *testing.T, r *Root) {
		for _, c := range []struct {
			path, base string
			dir        any
		}{
			{"a", "a", "."}, {"/a/", "a", "."}, {"rel/new", "new", "a/b"}, {"abs/c", "c", "a/b"}, {"self", "self", "."},
			{"..", ".", "."}, {"a/..", ".", "."}, {"rel/..", ".", "a"}, {"../../x", "x", "."}, {".", ".", "."},
			{"f/x", "x", unix.ENOTDIR}, {"self/x", "x", unix.ELOOP}, {"dangling/x", "x", unix.ENOENT},
		} {
			t.Run(c.path, func(t *testing.T) {
				fd, base, err := r.OpenParent(c.path)
				if err == nil && base != c.base {
					t.Errorf("base %q, want %q", base, c.base)
				}
				checkResolved(t, r, fd, err, c.dir)
			})
		}
	})
}

// TestOpenDoesNotFollow: the last component is never a symlink, whatever it leads to, and never outside.
func TestOpenDoesNotFollow(t *testing.T) {
	bothRoots(t, func(t *testing.T) string { return build(t, resolveTree) }, func(t *testing.T, r *Root) {
		for _, path := range []string{"tofile", "out", "a/up", "rel/back", "self"} {
			if fd, err := r.Open(path, unix.O_RDONLY); !errors.Is(err, unix.ELOOP) {
				t.Errorf("%s: fd %d, error %v, want ELOOP", path, fd, err)
			}
		}
		fd, err := r.Open("..", unix.O_RDONLY)
		checkResolved(t, r, fd, err, ".")
		fd, err = r.Open("abs/../../f", unix.O_RDONLY)
		if err != nil {
			t.Errorf("a file behind a symlink: %v", err)
		}
		unix.Close(fd)
	})
}

// TestResolveDeep: 10,000 levels, with few descriptors, and with symlinks at the bottom.
func TestResolveDeep(t *testing.T) {
	const levels = 10000
	dir := t.TempDir()
	bottom := makeDeep(t, dir, levels)
	must(t, unix.Symlinkat("../..", bottom, "up2"))
	must(t, unix.Symlinkat("/d/d", bottom, "abs"))
	unix.Close(bottom)
	t.Cleanup(func() { removeDeep(t, dir) })
	limitFiles(t, 100)
	noLeak(t)
	bothRoots(t, func(*testing.T) string { return dir }, func(t *testing.T, r *Root) {
		deep := strings.Repeat("d/", levels)
		for path, want := range map[string]string{"": "", "up2": "../..", "abs": "/d/d"} {
			fd, err := r.OpenDir(deep + path)
			must(t, err)
			st, err := fstat(fd)
			unix.Close(fd)
			must(t, err)
			full := deep + want
			if strings.HasPrefix(want, "/") {
				full = want
			}
			at, err := r.OpenDir(full)
			must(t, err)
			if !isInode(at, inode{st.Dev, st.Ino}) {
				t.Errorf("%q leads elsewhere", path)
			}
			unix.Close(at)
		}
	})
}

// makeDeep makes levels directories named d, one in the other, and returns the last one's fd.
func makeDeep(t testing.TB, dir string, levels int) int {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	for range levels {
		must(t, unix.Mkdirat(fd, "d", 0o700))
		next, err := unix.Openat(fd, "d", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(t, err)
		unix.Close(fd)
		fd = next
	}
	return fd
}

// removeDeep empties dir: os.RemoveAll of the testing package is not made for such depths under a low limit of files.
func removeDeep(t testing.TB, dir string) {
	t.Helper()
	d, err := os.Open(dir)
	must(t, err)
	defer d.Close()
	names, err := d.Readdirnames(-1)
	must(t, err)
	for _, name := range names {
		if _, err := Remove(context.Background(), d, name, nil); err != nil {
			t.Error(err)
		}
	}
}
