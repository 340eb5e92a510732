package sstate

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/treetest"
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns/usernstest"
	"github.com/nsferry/nsferry/sstate/store"
)

// TestRoundTrips saves the tree of everything that is easily lost in each mode, model and range, and restores it in each: all
// listings are equal inside, and every save is the same file, byte for byte.
func TestRoundTrips(t *testing.T) {
	all := usernstest.Ranges(t)
	original := filepath.Join(place(t, all[0].Env), "tree")
	usernstest.Build(t, all[0].Env, original, noSockets(treetest.Oddities()))
	s := newStore(t)
	save := func(e usernstest.Way, k store.Key, dir string) []byte {
		t.Helper()
		saved, err := (&Cache{Env: e.Env, Store: s}).Save(t.Context(), k, dir, SaveOptions{})
		if err != nil || saved.Present {
			t.Fatalf("%s: %+v, %v", e.Name, saved, err)
		}
		b, err := os.ReadFile(entryFile(t, s, k))
		check(t, err)
		return b
	}
	want := save(all[0], key(t, "first"), original)

	// Holes too short to keep are data in a copy; the first copy is what all are compared with.
	work := place(t, all[0].Env)
	first := filepath.Join(work, "first")
	restore := func(e usernstest.Way, k store.Key, dir string) {
		t.Helper()
		if _, err := (&Cache{Env: e.Env, Store: s}).Restore(t.Context(), k, dir, RestoreOptions{}); err != nil {
			t.Fatalf("%s: %v", e.Name, err)
		}
	}
	restore(all[0], key(t, "first"), first)
	if d := treetest.Diff(noSockets(treetest.Oddities()), usernstest.Dump(t, all[0].Env, original)); d != "" {
		t.Fatal(d)
	}
	wantDump, wantTools := usernstest.Dump(t, all[0].Env, first), tools(t, all[0], first)
	if d := cmp.Diff(tools(t, all[0], original), wantTools); d != "" {
		t.Errorf("the first copy:\n%s", d)
	}
	for _, e := range all {
		t.Run(e.Name, func(t *testing.T) {
			dir := filepath.Join(place(t, e.Env), "tree")
			restore(e, key(t, "first"), dir)
			if !bytes.Equal(save(e, key(t, "from "+e.Name), dir), want) {
				t.Error("saved from here it is another file")
			}
			if e.Arithmetic() { // programs would see the ids outside
				return
			}
			if d := treetest.Diff(wantDump, usernstest.Dump(t, e.Env, dir)); d != "" {
				t.Errorf("- first, + here:\n%s", d)
			}
			if d := cmp.Diff(wantTools, tools(t, e, dir)); d != "" {
				t.Errorf("- first, + here:\n%s", d)
			}
			// A tree is compared with the entry.
			found, err := Verify(t.Context(), e.Lazy, s, []store.Key{key(t, "first")}, VerifyOptions{Tree: dir})
			if err != nil || found[0].Status() != 0 {
				t.Errorf("%v, %v", found, err)
			}
		})
	}
}

// TestPresentStays neither reads nor writes anything for an entry that is there.
func TestPresentStays(t *testing.T) {
	e := usernstest.Ranges(t)[0]
	s := newStore(t)
	c := &Cache{Env: e.Env, Store: s}
	dir := filepath.Join(place(t, e.Env), "tree")
	usernstest.Build(t, e.Env, dir, noSockets(treetest.Random(3, 20)))
	_, err := c.Save(t.Context(), key(t, "k"), dir, SaveOptions{})
	check(t, err)
	before, err := os.ReadFile(entryFile(t, s, key(t, "k")))
	check(t, err)
	saved, err := c.Save(t.Context(), key(t, "k"), filepath.Join(dir, "missing"), SaveOptions{})
	if err != nil || !saved.Present {
		t.Errorf("%+v, %v", saved, err)
	}
	after, err := os.ReadFile(entryFile(t, s, key(t, "k")))
	check(t, err)
	if !bytes.Equal(before, after) {
		t.Error("the entry is another one")
	}
}

// TestForeignEntries restores what another program has put into the store.
func TestForeignEntries(t *testing.T) {
	e := usernstest.Ranges(t)[0]
	s := newStore(t)
	c := &Cache{Env: e.Env, Store: s}
	work := place(t, e.Env)
	usernstest.Build(t, e.Env, filepath.Join(work, "tree"), noSockets(treetest.Random(4, 30)))
	_, err := c.Save(t.Context(), key(t, "ours"), filepath.Join(work, "tree"), SaveOptions{})
	check(t, err)
	file := entryFile(t, s, key(t, "ours"))
	_, err = ferry.Pack(t.Context(), e.Env, filepath.Join(work, "tree"), file+".gz", ferry.PackOptions{Format: archive.Gzip})
	check(t, err)
	check(t, os.Rename(file+".gz", file)) // a name says nothing
	_, err = c.Restore(t.Context(), key(t, "ours"), filepath.Join(work, "copy"), RestoreOptions{})
	check(t, err)
	if d := treetest.Diff(usernstest.Dump(t, e.Env, filepath.Join(work, "tree")), usernstest.Dump(t, e.Env, filepath.Join(work, "copy"))); d != "" {
		t.Error(d)
	}
}

// TestRestoreLeavesTargets refuses a target that is not empty, and ids that the range lacks, with store and target as before.
func TestRestoreLeavesTargets(t *testing.T) {
	all := usernstest.Ranges(t)
	e := all[0]
	s := newStore(t)
	c := &Cache{Env: e.Env, Store: s}
	work := place(t, e.Env)
	usernstest.Build(t, e.Env, filepath.Join(work, "tree"), noSockets(treetest.Oddities()))
	_, err := c.Save(t.Context(), key(t, "k"), filepath.Join(work, "tree"), SaveOptions{})
	check(t, err)
	before := usernstest.Dump(t, e.Env, filepath.Join(work, "tree"))
	if _, err = c.Restore(t.Context(), key(t, "k"), filepath.Join(work, "tree"), RestoreOptions{}); err == nil || isMiss(err) {
		t.Errorf("restored over a tree: %v", err)
	}
	if d := treetest.Diff(before, usernstest.Dump(t, e.Env, filepath.Join(work, "tree"))); d != "" {
		t.Error(d)
	}
	small := c.small(t)
	if _, err = small.Restore(t.Context(), key(t, "k"), filepath.Join(work, "small"), RestoreOptions{}); err == nil || isMiss(err) {
		t.Errorf("restored into a range that lacks ids: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(work, "*small*")); left != nil {
		t.Errorf("left: %q", left)
	}
	entryFile(t, s, key(t, "k"))
	if all, err := s.List(); err != nil || len(all) != 1 || all[0].Odd != "" {
		t.Errorf("%v, %v", all, err)
	}
}
