package debs

import (
	"os"
	"path/filepath"
	"testing"
)

// TestLocalVanishes: a repository is built again while we look at it. What is gone is not there.
func TestLocalVanishes(t *testing.T) {
	repo := t.TempDir()
	gone, stays := filepath.Join(repo, "a_1_all.deb"), filepath.Join(repo, "b_1_all.deb")
	for _, path := range []string{gone, stays} {
		check(t, os.WriteFile(path, []byte("deb"), 0o644))
	}
	l, err := findLocal([]string{repo})
	check(t, err)
	check(t, os.Remove(gone))
	f, err := os.Open(stays)
	check(t, err)
	defer f.Close()
	sum, err := digest(f, make([]byte, bufSize))
	check(t, err)
	for name, want := range map[string]bool{"a": false, "b": true} {
		p := Package{name, "1", "all"}
		if has, err := l.has(p, sum); has != want || err != nil || l.maybe(p, 3) != want {
			t.Errorf("%s: %v, %v, maybe %v", name, has, err, l.maybe(p, 3))
		}
	}
}
