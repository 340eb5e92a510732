package sstate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/archive/treetest"
	"github.com/nsferry/nsferry/idshift/userns/usernstest"
	"github.com/nsferry/nsferry/sstate/store"
	"github.com/nsferry/nsferry/tier"
)

// tinyDisk is a tmpfs with so many pages and inodes.
func tinyDisk(t *testing.T, pages, inodes int) string {
	t.Helper()
	tier.Root(t, "mounts")
	dir := t.TempDir()
	check(t, unix.Mount("none", dir, "tmpfs", 0, fmt.Sprintf("size=%d,nr_inodes=%d,mode=0755", pages*os.Getpagesize(), inodes)))
	t.Cleanup(func() { check(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

// files are all names below dir that are no directories, locks and our own files left out.
func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	check(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == ".nsferry" {
			return fs.SkipDir
		}
		if err == nil && !d.IsDir() && filepath.Ext(path) != ".lock" {
			names = append(names, path)
		}
		return err
	}))
	return names
}

// TestFullStore saves into stores that are full at every stage: it fails as ENOSPC or succeeds, and the store is as before.
func TestFullStore(t *testing.T) {
	secret, _, _ := keyPair(t)
	e := usernstest.Ranges(t)[0]
	tree := filepath.Join(place(t, e.Env), "tree")
	usernstest.Build(t, e.Env, tree, noSockets(treetest.Random(8, 60)))
	failed, succeeded := 0, 0
	for _, c := range fullStages() {
		dir := tinyDisk(t, c[0], c[1])
		s, err := store.Open(dir, store.Options{})
		check(t, err)
		cache := &Cache{Env: e.Env, Store: s}
		before := files(t, dir)
		saved, err := cache.Save(t.Context(), key(t, "k"), tree, SaveOptions{Sign: &secret})
		switch {
		case err == nil && !saved.Present:
			succeeded++
		case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.ENOMEM):
			failed++
			// An entry that is whole may stay when only its signature had no room.
			left := slices.DeleteFunc(files(t, dir), func(n string) bool { return filepath.Base(n) == "k.tar.zst" })
			if !slices.Equal(before, left) {
				t.Errorf("%v: left: %q", c, left)
			}
			if found, err := Verify(t.Context(), usernstest.Ranges(t)[0].Lazy, s, []store.Key{key(t, "k")}, VerifyOptions{}); err != nil || found[0].Status() == 1 {
				t.Errorf("%v: %v, %v", c, found, err)
			}
		default:
			t.Errorf("%v: %+v, %v", c, saved, err)
		}
	}
	if failed < 10 || succeeded < 3 {
		t.Errorf("%d failed, %d succeeded: these are not all stages", failed, succeeded)
	}
}

// fullStages are pages and inodes that are too few in turn.
func fullStages() (all [][2]int) {
	for inodes := 1; inodes <= 8; inodes++ {
		all = append(all, [2]int{1000, inodes})
	}
	for pages := 1; pages < 40; pages += 2 {
		all = append(all, [2]int{pages, 100})
	}
	return append(all, [2]int{400, 100}, [2]int{1000, 100})
}

// TestFullTarget restores to where there is no room: an error, no miss; the entry stays, and no tree.
func TestFullTarget(t *testing.T) {
	e := usernstest.Ranges(t)[0]
	s := newSite(t, 60)
	failed := 0
	for inodes := 1; inodes < 80; inodes += 4 {
		dir := tinyDisk(t, 4000, inodes)
		_, err := s.Restore(t.Context(), s.key, filepath.Join(dir, "tree"), RestoreOptions{})
		if err == nil {
			continue
		}
		failed++
		if isMiss(err) || !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%d inodes: %v", inodes, err)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%d inodes: left: %v", inodes, left)
		}
	}
	if failed < 10 {
		t.Errorf("only %d failed", failed)
	}
	entryFile(t, s.Store, s.key)
	if found, err := Verify(t.Context(), e.Lazy, s.Store, []store.Key{s.key}, VerifyOptions{}); err != nil || found[0].Status() != 0 {
		t.Errorf("%v, %v", found, err)
	}
}
