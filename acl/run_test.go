package acl_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

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
