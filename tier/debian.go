package tier

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Debian returns the tarball of a Debian tree that mmdebstrap makes with args, with the devices in it. The runner names a directory in
// which both of its passes and all packages find it, so that a tree is bootstrapped once; root bootstraps as the runner's unprivileged
// user, for whom mmdebstrap enters a namespace by itself.
func Debian(t testing.TB, name string, args ...string) string {
	t.Helper()
	Program(t, "mmdebstrap")
	dir := os.Getenv("NSFERRY_TEST_DEBIAN")
	user := os.Getenv("NSFERRY_TEST_USER")
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
	here, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	if err := syscall.Flock(int(here.Fd()), syscall.LOCK_EX); err != nil { // packages are tested at the same time
		t.Fatal(err)
	}
	tarball := filepath.Join(dir, name+".tar")
	if _, err := os.Stat(tarball); err == nil {
		return tarball
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
		t.Fatal(fmt.Errorf("%q: %w\n%s", argv, err, out))
	}
	if err := os.Rename(fresh, tarball); err != nil {
		t.Fatal(err)
	}
	return tarball
}
