package acl_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// need skips the test, or fails it when REQUIRE_ALL is set, unless all programs are installed.
func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			lack(t, p+" is not installed")
		}
	}
}

// needRoot is need for uid 0.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		lack(t, "not root")
	}
}

// lack skips or fails the test for the reason.
func lack(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("REQUIRE_ALL") != "" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// run runs a program and returns its standard output.
func run(t testing.TB, dir string, argv ...string) string {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	var stderr []byte
	out, err := cmd.Output()
	if e, ok := err.(*exec.ExitError); ok {
		stderr = e.Stderr
	}
	if err != nil {
		t.Fatalf("%q: %v: %s", argv, err, stderr)
	}
	return string(out)
}

// newFile makes an empty file of mode 0640 in a directory of its own, in which other users may look.
func newFile(t testing.TB) *os.File {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Chmod(0o640); err != nil {
		t.Fatal(err)
	}
	return f
}
