package sstate

import (
	"github.com/nsferry/nsferry/idshift/userns/usernstest"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nsferry/nsferry/archive/treetest"
	"github.com/nsferry/nsferry/ferry"
)

// TestReferenced knows the entries of trees that are there, whatever their names, and forgets those of trees that are gone or
// others now.
func TestReferenced(t *testing.T) {
	e := usernstest.Ranges(t)[0]
	c := &Cache{Env: e.Env, Store: newStore(t), References: filepath.Join(t.TempDir(), "trees")}
	work := place(t, e.Env)
	usernstest.Build(t, e.Env, filepath.Join(work, "tree"), noSockets(treetest.Random(9, 10)))
	expect := func(want ...string) {
		t.Helper()
		got, err := c.Referenced()
		check(t, err)
		set := map[string]bool{}
		for _, k := range want {
			set[k] = true
		}
		if d := cmp.Diff(set, got); d != "" {
			t.Error(d)
		}
	}
	restore := func(k, dir string) {
		t.Helper()
		_, err := c.Restore(t.Context(), key(t, k), filepath.Join(work, dir), RestoreOptions{})
		check(t, err)
	}
	remove := func(dir string) {
		t.Helper()
		_, err := ferry.Remove(t.Context(), e.Env, filepath.Join(work, dir), ferry.RemoveOptions{})
		check(t, err)
	}
	expect()
	for _, k := range []string{"a", "b", "k\xff"} {
		_, err := c.Save(t.Context(), key(t, k), filepath.Join(work, "tree"), SaveOptions{})
		check(t, err)
	}
	expect("k\xff")
	restore("a", "one")
	restore("a", "new\nline")
	restore("b", "two")
	expect("k\xff", "a", "b")
	remove("one")
	expect("k\xff", "a", "b")
	remove("new\nline")
	expect("k\xff", "b")
	check(t, os.Mkdir(filepath.Join(work, "other"), 0o755)) // while both are there they are two inodes
	remove("two")
	check(t, os.Rename(filepath.Join(work, "other"), filepath.Join(work, "two")))
	expect("k\xff")
	check(t, os.WriteFile(filepath.Join(c.References, "x.json"), []byte("no JSON"), 0o600))
	remove("tree")
	remove("two")
	expect()
}
