//go:build linux

package handoff

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nsferry/nsferry/tier"
)

// TestMain also serves the processes that tests start of this binary.
func TestMain(m *testing.M) {
	switch os.Getenv("HANDOFF_TEST") {
	case "writer":
		if err := writeForever(os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1) // it is there to be killed
	case "mount":
		if err := mountAndRun(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestOnFilesystems runs the other tests on a new filesystem of each kind. Each is mounted in a mount namespace of a child
// process, so that the kernel takes down mount and loop device with it, however it ends.
func TestOnFilesystems(t *testing.T) {
	tier.Root(t, "to mount")
	for _, fs := range []struct{ kind, mkfs, size string }{
		{"ext4", "mkfs.ext4 -q -F", "128M"},
		{"xfs", "mkfs.xfs -q -m reflink=1", "320M"},
		{"btrfs", "mkfs.btrfs -q", "128M"},
		{"tmpfs", "", ""},
		{"ramfs", "", ""},
	} {
		t.Run(fs.kind, func(t *testing.T) {
			image := fs.kind
			if fs.mkfs != "" {
				mkfs := strings.Fields(fs.mkfs)
				_, err := exec.LookPath(mkfs[0])
				tier.Have(t, err == nil, mkfs[0])
				image = filepath.Join(t.TempDir(), "image")
				run(t, "truncate", "-s", fs.size, image)
				run(t, mkfs[0], append(mkfs[1:], image)...)
			}
			cmd := exec.Command("/proc/self/exe", fs.kind, image,
				"-test.run=^Test(Pending|Commit|Transfer|Killed)", "-test.v="+fmt.Sprint(testing.Verbose()))
			cmd.Env = append(os.Environ(), "HANDOFF_TEST=mount", "TMPDIR="+t.TempDir())
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			t.Logf("%s", out)
		})
	}
}

// mountAndRun mounts image, or a filesystem without one, on TMPDIR and becomes the tests.
func mountAndRun(kind, image string, args []string) error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	mount := []string{"-t", kind, image, os.Getenv("TMPDIR")}
	if image != kind {
		mount = append(mount, "-o", "loop")
	}
	if out, err := exec.Command("mount", mount...).CombinedOutput(); err != nil {
		return fmt.Errorf("mount %v: %w: %s", mount, err, out)
	}
	if err := os.Chmod(os.Getenv("TMPDIR"), 0o755); err != nil {
		return err
	}
	if err := os.Setenv("HANDOFF_TEST", ""); err != nil {
		return err
	}
	if err := os.Setenv("HANDOFF_FS", kind); err != nil {
		return err
	}
	return syscall.Exec("/proc/self/exe", append([]string{"handoff.test"}, args...), os.Environ())
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// openDir opens a new directory and returns it and its path.
func openDir(t testing.TB) (*os.File, string) {
	t.Helper()
	path := t.TempDir()
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir, path
}

// names lists a directory, with the content of the files.
func names(t testing.TB, path string) string {
	t.Helper()
	entries, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		text := e.Name()
		switch {
		case e.Type().IsRegular():
			b, err := os.ReadFile(filepath.Join(path, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			text += "=" + string(b)
		case e.Type()&os.ModeSymlink != 0:
			target, err := os.Readlink(filepath.Join(path, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			text += "->" + target
		}
		out = append(out, text)
	}
	return strings.Join(out, " ")
}

// faults makes a kernel that answers the named operations with errors.
func faults(m map[string]error) kernel {
	return kernel{fault: func(op string) error { return m[op] }}
}

// openFDs counts this process's descriptors, without those that the Go runtime makes for itself when it likes.
func openFDs(t testing.TB) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.HasPrefix(target, "anon_inode:") {
			n++
		}
	}
	return n
}
