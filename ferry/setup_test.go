package ferry

import (
	"context"
	"os"
	"testing"

	"github.com/nsferry/nsferry/idshift/userns"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// place is a directory of the caller's that inner root may walk and write, emptied by nsferry at the end.
func place(t testing.TB, e *userns.Env) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "nsferry-ferry")
	check(t, err)
	check(t, os.Chmod(dir, 0o777))
	t.Cleanup(func() {
		if _, err := Remove(context.Background(), e, dir, RemoveOptions{Force: true}); err != nil {
			t.Error(err)
		}
	})
	return dir
}
