package tree

import (
	"context"
	"errors"
	"fmt"
	"github.com/nsferry/nsferry/tier"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// ownerVar makes the test binary tell of each inode in a directory what OwnerIsMapped says.
const ownerVar = "TREE_TEST_OWNERS"

func TestMain(m *testing.M) {
	if dir := os.Getenv(ownerVar); dir != "" {
		if err := tellOwners(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	tier.PrivateMounts()
	os.Exit(m.Run())
}

func tellOwners(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return Walk(context.Background(), d, func(e *Entry) error {
		if e.Path != "." {
			fmt.Printf("%s %d:%d %v\n", e.Path, e.Stat.Uid, e.Stat.Gid, e.OwnerIsMapped())
			return ErrSkipDir
		}
		return nil
	})
}

// TestOwnerIsMapped: in a namespace a real nobody is told from an id that has no place, for all types and all modes that
// make a difference.
func TestOwnerIsMapped(t *testing.T) {
	rootTier(t)
	const first, count = 3000000000, 65536
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755))
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	must(t, os.Chown(dir, first, first))
	var want []string
	for _, typ := range []uint32{unix.S_IFREG, unix.S_IFDIR, unix.S_IFIFO, unix.S_IFLNK, unix.S_IFSOCK} {
		for _, mode := range []uint32{0, 0o600, 0o644, 0o755, 0o4755, 0o666, 0o777, 0o1777, 0o002, 0o004} {
			for name, ids := range map[string][2]int{
				"nobody": {first + 65534, first + 65534}, "foreign": {7, 7}, "foreign-group": {first + 65534, 7}, "foreign-user": {7, first + 65534},
			} {
				if typ != unix.S_IFREG && typ != unix.S_IFDIR && typ != unix.S_IFLNK && mode&0o006 == 0o006 {
					continue // nothing tells these apart; the caller takes them as foreign, which is an error and no loss
				}
				if name == "foreign-group" && mode&0o006 == 0o006 && typ != unix.S_IFLNK {
					continue // only the user's place can be found out (OwnerIsMapped)
				}
				base := fmt.Sprintf("%o-%03o-%s", typ>>12, mode, name)
				path := filepath.Join(dir, base)
				switch typ {
				case unix.S_IFDIR:
					must(t, os.Mkdir(path, 0o700))
				case unix.S_IFLNK:
					must(t, os.Symlink("nowhere", path))
				default:
					must(t, unix.Mknod(path, typ|0o600, 0))
				}
				must(t, os.Lchown(path, ids[0], ids[1]))
				if typ != unix.S_IFLNK {
					must(t, unix.Chmod(path, mode))
				}
				want = append(want, fmt.Sprintf("%s 65534:65534 %v", base, name == "nobody"))
			}
		}
	}
	exe := filepath.Join(dir, "..", "test-binary") // inner root may not read where the tests were built
	copyFile(t, "/proc/self/exe", exe)
	cmd := exec.Command(exe)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), ownerVar+"="+dir)
	m := []syscall.SysProcIDMap{{ContainerID: 0, HostID: first, Size: count}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: m, GidMappings: m, Credential: &syscall.Credential{}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		got[strings.TrimSpace(line)] = true
	}
	for _, w := range want {
		if !got[w] {
			t.Errorf("want %s", w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d lines, want %d", len(got), len(want))
	}
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	must(t, err)
	must(t, os.WriteFile(to, b, 0o755))
	must(t, os.Chmod(to, 0o755))
}

// onThread runs f on a thread of its own that has left its parent's namespaces or file system state.
func onThread(flags int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(flags); err != nil {
			done <- errors.Join(errors.New("unshare"), err)
			return
		}
		done <- f()
	}()
	return <-done
}
