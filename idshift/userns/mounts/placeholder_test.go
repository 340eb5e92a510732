//go:build linux

package mounts

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fdCount counts the open files of the test process.
func fdCount(t testing.TB) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

func exists(dir, name string) bool {
	_, err := os.Lstat(filepath.Join(dir, name))
	return err == nil
}

var bare = []Placeholder{
	{"proc", true}, {"sys", true}, {"dev", true}, {"etc", true}, {"etc/resolv.conf", false},
	{"usr", true}, {"usr/sbin", true}, {"usr/sbin/policy-rc.d", false},
}

func TestMakeLeavesNoTrace(t *testing.T) {
	for _, on := range filesystems {
		t.Run(filepath.Base(on), func(t *testing.T) {
			base := tempOn(t, on)
			grow(t, base, "etc/passwd", "usr/")
			root := open(t, base)
			list, err := Plan(full(root))
			if err != nil {
				t.Fatal(err)
			}
			before, fds := snapshot(t, base), fdCount(t)
			m, err := Make(root, list)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range list {
				at := filepath.Join(base, p.Path)
				fi, err := os.Lstat(at)
				if err != nil || fi.IsDir() != p.Dir {
					t.Errorf("%s: %v, %v", p.Path, fi, err)
				}
				if ok, err := IsPlaceholder(open(t, at)); !ok || err != nil {
					t.Errorf("%s is no placeholder: %v", p.Path, err)
				}
			}
			if n, err := Sweep(root); n != 0 || err != nil {
				t.Errorf("swept %d of a living run, %v", n, err)
			}
			if err := m.Remove(); err != nil {
				t.Error(err)
			}
			unchanged(t, base, before)
			if n := fdCount(t) - len(list); n != fds { // those of IsPlaceholder stay until the end
				t.Errorf("%d files open, had %d", n, fds)
			}
		})
	}
}

func TestSharedPlaceholders(t *testing.T) {
	base := t.TempDir()
	root := open(t, base)
	before := snapshot(t, base)
	a, err := Make(root, bare)
	if err != nil {
		t.Fatal(err)
	}
	list, err := Plan(full(root))
	if d := cmp.Diff(bare, list); err != nil || d != "" {
		t.Fatalf("a second run does not see them: %v\n%s", err, d)
	}
	b, err := Make(root, list)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Remove(); err != nil {
		t.Error(err)
	}
	for _, p := range bare {
		if !exists(base, p.Path) {
			t.Errorf("%s is gone while a run uses it", p.Path)
		}
	}
	if err := b.Remove(); err != nil {
		t.Error(err)
	}
	unchanged(t, base, before)
}

// TestConcurrentRuns: while a run holds placeholders they exist, and the last one removes them.
func TestConcurrentRuns(t *testing.T) {
	base := t.TempDir()
	root := open(t, base)
	before := snapshot(t, base)[1:] // the root's time may lose a race against itself, see keepMtime
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				m, err := Make(root, bare)
				if err != nil {
					t.Error(err)
					return
				}
				for _, p := range bare {
					if !exists(base, p.Path) {
						t.Errorf("%s is gone while a run uses it", p.Path)
					}
				}
				if err := m.Remove(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if d := cmp.Diff(before, snapshot(t, base)[1:]); d != "" {
		t.Error(d)
	}
}

func TestFilledPlaceholdersStay(t *testing.T) {
	base := t.TempDir()
	root := open(t, base)
	m, err := Make(root, bare)
	if err != nil {
		t.Fatal(err)
	}
	grow(t, base, "etc/hosts")
	if err := os.WriteFile(base+"/usr/sbin/policy-rc.d", []byte("x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(base + "/sys"); err != nil {
		t.Fatal(err)
	}
	grow(t, base, "sys/")
	if err := m.Remove(); err != nil {
		t.Error(err)
	}
	var got []string
	for _, l := range snapshot(t, base)[1:] {
		f := strings.Fields(l)
		got = append(got, f[0]+" "+strings.Join(f[3:], " "))
	}
	want := []string{"etc no mark", "etc/hosts no mark", "sys no mark", "usr no mark", "usr/sbin no mark", "usr/sbin/policy-rc.d marked"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if ok, err := IsPlaceholder(open(t, base+"/usr/sbin/policy-rc.d")); ok || err != nil {
		t.Errorf("a file with content is a placeholder, %v", err)
	}
}

func TestMakeFailsWhole(t *testing.T) {
	base := t.TempDir()
	grow(t, base, "file", "evil -> /tmp")
	root := open(t, base)
	before, fds := snapshot(t, base), fdCount(t)
	for _, p := range []string{"file/x", "evil/x", "no/x"} {
		m, err := Make(root, append(slices.Clone(bare), Placeholder{p, true}))
		if err == nil {
			t.Errorf("%s: made", p)
			m.Remove()
		}
	}
	unchanged(t, base, before)
	if n := fdCount(t); n != fds {
		t.Errorf("%d files open, had %d", n, fds)
	}
}

// TestSweep plants leftovers and things that only look like some.
func TestSweep(t *testing.T) {
	base := t.TempDir()
	grow(t, base, "keep/proc/", "etc/passwd", "l -> /", "usr/")
	before := snapshot(t, base)
	root := open(t, base)
	list := append(slices.Clone(bare), Placeholder{"bind", true}, Placeholder{"bind/deep", true}, Placeholder{"bind/deep/f", false})
	list = slices.DeleteFunc(list, func(p Placeholder) bool { return p.Path == "etc" || p.Path == "usr" })
	m, err := Make(root, list)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range m.held { // what the kernel does for a dead janitor
		h.file.Close()
	}
	err = keepMtime(m.root, func() error {
		return errors.Join(os.Mkdir(base+"/"+tempPrefix+"A", 0o700), os.WriteFile(base+"/"+tempPrefix+"B", nil, 0o600))
	})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := Sweep(root, "/bind/deep/f", "/l/l/no", "/etc/passwd/x"); n != len(list)+2 || err != nil {
		t.Errorf("swept %d, %v; want %d", n, err, len(list)+2)
	}
	unchanged(t, base, before)
	grow(t, base, "proc/", "dev/", tempPrefix+"C")
	before = snapshot(t, base)
	if n, err := Sweep(root); n != 0 || err != nil {
		t.Errorf("swept %d ordinary directories, %v", n, err)
	}
	unchanged(t, base, before)
}
