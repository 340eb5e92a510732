package tier

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Debian returns the tarball of a Debian tree that mmdebstrap makes with args; name tells trees apart. The runner names a directory in
// which both of its passes and all packages find it; root bootstraps as the runner's unprivileged user, for whom mmdebstrap
// enters a namespace by itself.
func Debian(t testing.TB, name string, args ...string) string {
	t.Helper()
	Program(t, "mmdebstrap")
	dir, user := os.Getenv("NSFERRY_TEST_DEBIAN"), os.Getenv("NSFERRY_TEST_USER")
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "nsferry-debian"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		user = ""
	}
	unlock := lock(t, dir)
	defer unlock()
	tarball := filepath.Join(dir, name+".tar")
	_, err := os.Stat(tarball)
	if err == nil {
		return tarball
	}
	if !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	fresh := filepath.Join(dir, name+".new.tar") // mmdebstrap goes by the suffix
	argv := append([]string{"mmdebstrap", "--quiet"}, args...)
	argv = append(argv, "bookworm", fresh)
	if os.Geteuid() == 0 && user != "" {
		argv = append([]string{"setpriv", "--reuid=" + user, "--regid=" + user, "--init-groups", "env", "-i", "TMPDIR=" + dir,
			"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin", "HOME=" + dir, "USER=" + user}, argv...)
	}
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", argv, err, out)
	}
	if err := os.Rename(fresh, tarball); err != nil {
		t.Fatal(err)
	}
	return tarball
}

// lock keeps other processes out of the directory until it is unlocked.
func lock(t testing.TB, dir string) (unlock func()) {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for err = syscall.EINTR; errors.Is(err, syscall.EINTR); {
		err = syscall.Flock(int(d.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() { d.Close() }
}
