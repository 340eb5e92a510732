package sstate

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/nsferry/nsferry/sstate/minisign"
	"github.com/nsferry/nsferry/sstate/store"
)

// TestSaveOfTheSame saves a tree again in which nothing has changed: the entry is the base's file, which serves under both names, signed
// or not, outlives the base, and is found out when it is damaged.
func TestSaveOfTheSame(t *testing.T) {
	s := newSite(t, 50)
	secret, public, _ := keyPair(t)
	source := filepath.Join(s.dir, "source")
	inode := func(k store.Key) os.FileInfo {
		t.Helper()
		st, err := os.Stat(entryFile(t, s.Store, k))
		check(t, err)
		return st
	}
	save := func(name string, linked bool, o SaveOptions) store.Key {
		t.Helper()
		k := key(t, name)
		if o.Base == "" {
			o.Base = s.key.String()
		}
		saved, err := s.Save(t.Context(), k, source, o)
		if err != nil || saved.Present || saved.Linked != linked || saved.Signed != (o.Sign != nil) || saved.Stored != int64(len(s.whole)) {
			t.Fatalf("%s: %+v, %+v, %v", name, saved, saved.Reuse, err)
		}
		if got, err := os.ReadFile(entryFile(t, s.Store, k)); err != nil || !bytes.Equal(got, s.whole) {
			t.Errorf("%s: another file, %v", name, err)
		}
		return k
	}
	restored := 0
	restore := func(k store.Key, keys ...minisign.PublicKey) (dir string, err error) {
		restored++
		dir = filepath.Join(s.dir, fmt.Sprintf("restored%d", restored))
		_, err = s.Restore(t.Context(), k, dir, RestoreOptions{Verify: keys})
		return dir, err
	}
	restores := func(k store.Key, keys ...minisign.PublicKey) {
		t.Helper()
		_, err := restore(k, keys...)
		check(t, err)
	}
	misses := func(words string, k store.Key, keys ...minisign.PublicKey) {
		t.Helper()
		dir, err := restore(k, keys...)
		missed(t, err, words, dir)
	}
	again := save("again", true, SaveOptions{})
	if !os.SameFile(inode(again), inode(s.key)) {
		t.Error("it is another file than the base")
	}
	save("on a file", false, SaveOptions{Base: entryFile(t, s.Store, s.key)})
	save("without a base", false, SaveOptions{Base: BaseNone})
	save("signed", false, SaveOptions{Sign: &secret}) // the base is not
	check(t, s.Sign(t.Context(), s.key, secret))
	signed := save("signed-2", true, SaveOptions{Sign: &secret})
	restores(signed, public)
	misses("not signed", again, public)

	check(t, os.Chmod(entryFile(t, s.Store, s.key), 0o600))
	save("of another mode", false, SaveOptions{})
	check(t, os.Chmod(entryFile(t, s.Store, s.key), inode(key(t, "of another mode")).Mode()))

	check(t, os.Remove(entryFile(t, s.Store, s.key)))
	restores(again)
	s.key = again
	check(t, os.WriteFile(entryFile(t, s.Store, again), flip(s.whole, len(s.whole)/2, 0), 0o644))
	save("after damage", false, SaveOptions{})
	misses("sum", again)
	misses("sum", signed)
}
