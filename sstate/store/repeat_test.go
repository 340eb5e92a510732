//go:build linux

package store

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/nsferry/nsferry/tier"

	"golang.org/x/sys/unix"
)

// TestRepeat saves an entry that is like another one.
func TestRepeat(t *testing.T) {
	s := open(t)
	first := key(t, "first")
	put(t, s, first, "same")
	var was unix.Stat_t
	check(t, unix.Stat(s.path(first.Path()), &was))
	repeat := func(name string) (Key, *Pending) {
		t.Helper()
		k := key(t, name)
		o, err := s.Get(t.Context(), first)
		check(t, err)
		defer o.Close()
		p, err := s.Put(t.Context(), k)
		check(t, err)
		p.Repeat(o.File)
		if p.Linked() {
			t.Error("linked before Commit")
		}
		check(t, p.Commit())
		check(t, p.Abort())
		return k, p
	}
	linked := func(k Key) bool {
		var st unix.Stat_t
		check(t, unix.Stat(s.path(k.Path()), &st))
		if st.Mode&0o7777 != s.fileMode() {
			t.Errorf("%s has mode %#o", k, st.Mode)
		}
		return st.Ino == was.Ino
	}
	k, p := repeat("linked")
	holds(t, s, k, "same")
	if !p.Linked() || !p.Published() || !linked(k) {
		t.Error("the entry is no other name of the first")
	}
	check(t, os.Remove(s.path(first.Path())))
	holds(t, s, k, "same")
	first = k

	check(t, os.Chmod(s.path(first.Path()), 0o600))
	k, p = repeat("of another mode")
	holds(t, s, k, "same")
	if p.Linked() || !p.Published() || linked(k) {
		t.Error("an entry of mode 0600 is linked")
	}
	check(t, os.Chmod(s.path(first.Path()), os.FileMode(s.fileMode())))
	if os.Getuid() == 0 {
		check(t, os.Chown(s.path(first.Path()), 12345, -1))
		if k, p = repeat("of another owner"); p.Linked() || linked(k) {
			t.Error("another user's entry is linked")
		}
		holds(t, s, k, "same")
		check(t, os.Chown(s.path(first.Path()), 0, -1))
	}

	// Another program comes first.
	o, err := s.Get(t.Context(), first)
	check(t, err)
	defer o.Close()
	k = key(t, "taken")
	p, err = s.Put(t.Context(), k)
	check(t, err)
	p.Repeat(o.File)
	check(t, os.WriteFile(s.path(k.Path()), content("other"), 0o644))
	check(t, p.Commit())
	if p.Published() || p.Linked() {
		t.Error("it says to be the entry, and is not")
	}
	holds(t, s, k, "other")
}

// TestRepeatWithoutLinks repeats an entry that can have no more names: on ext4 a file has at most 65,000.
func TestRepeatWithoutLinks(t *testing.T) {
	tier.Root(t, "to mount ext4")
	tier.Program(t, "mkfs.ext4")
	image, disk := filepath.Join(t.TempDir(), "image"), t.TempDir()
	check(t, os.WriteFile(image, nil, 0o600))
	check(t, os.Truncate(image, 32<<20))
	for _, argv := range [][]string{{"mkfs.ext4", "-q", image}, {"mount", "-o", "loop", image, disk}} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", argv, err, out)
		}
	}
	defer func() { check(t, unix.Unmount(disk, 0)) }()
	s, err := Open(filepath.Join(disk, "store"), Options{Create: true})
	check(t, err)
	first, k := key(t, "first"), key(t, "again")
	put(t, s, first, "same")
	more := filepath.Join(disk, "more")
	check(t, os.Mkdir(more, 0o755))
	for i := range 64999 {
		check(t, os.Link(s.path(first.Path()), filepath.Join(more, strconv.Itoa(i))))
	}
	o, err := s.Get(t.Context(), first)
	check(t, err)
	defer o.Close()
	p, err := s.Put(t.Context(), k)
	check(t, err)
	defer func() { check(t, p.Abort()) }()
	p.Repeat(o.File)
	check(t, p.Commit())
	if p.Linked() || !p.Published() {
		t.Error("linked once more than ext4 allows")
	}
	holds(t, s, k, "same")
}
