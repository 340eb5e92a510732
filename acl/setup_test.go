package acl_test

import (
	"os"
	"path/filepath"
	"testing"
)

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
