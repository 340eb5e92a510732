//go:build linux

package handoff

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nsferry/nsferry/tier"

	"golang.org/x/sys/unix"
)

func TestCommitAllTogether(t *testing.T) {
	eachWay(t, func(t *testing.T, begin func(*os.File, string, string, Options) *Pending) {
		dir, path := openDir(t)
		if err := os.Symlink("v0", filepath.Join(path, "latest")); err != nil {
			t.Fatal(err)
		}
		all := []*Pending{begin(dir, "a", "1", Options{}), begin(dir, "b", "2", Options{}), begin(dir, "c", "3", Options{})}
		if err := CommitAll(all, &Symlink{Dir: dir, Name: "latest", Target: "a"}); err != nil {
			t.Fatal(err)
		}
		if got := names(t, path); got != "a=1 b=2 c=3 latest->a" {
			t.Errorf("directory holds %s", got)
		}
	})
}

// TestCommitAllTakesBack lets the last of three fail: the first two must not stay, replaced files excepted.
func TestCommitAllTakesBack(t *testing.T) {
	eachWay(t, func(t *testing.T, begin func(*os.File, string, string, Options) *Pending) {
		dir, path := openDir(t)
		if err := os.WriteFile(filepath.Join(path, "b"), []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		all := []*Pending{begin(dir, "a", "1", Options{}), begin(dir, "b", "2", Options{Overwrite: Replace}), begin(dir, "c", "3", Options{})}
		if err := os.WriteFile(filepath.Join(path, "c"), []byte("other"), 0o600); err != nil {
			t.Fatal(err)
		}
		err := CommitAll(all, &Symlink{Dir: dir, Name: "latest", Target: "a"})
		if !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "b has been replaced already") {
			t.Errorf("got %v", err)
		}
		if got := names(t, path); got != "b=2 c=other" {
			t.Errorf("directory holds %s", got)
		}
	})
}

// TestCommitAllSyncsFirst lets the fsync of the last fail: no name may have appeared, not even in the place of an old one.
func TestCommitAllSyncsFirst(t *testing.T) {
	dir, path := openDir(t)
	plant(t, path, "file")
	good, err := NewPending(dir, "out", Options{Overwrite: Replace})
	if err != nil {
		t.Fatal(err)
	}
	bad, err := newPending(faults(map[string]error{"fsync": unix.EIO}), dir, "b", Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := CommitAll([]*Pending{good, bad}, nil); !errors.Is(err, unix.EIO) {
		t.Errorf("got %v", err)
	}
	if got := names(t, path); got != "out=old" {
		t.Errorf("directory holds %s", got)
	}
}

func TestCommitSymlink(t *testing.T) {
	dir, path := openDir(t)
	plant(t, path, "file")
	p, err := NewPending(dir, "a", Options{})
	if err != nil {
		t.Fatal(err)
	}
	err = CommitAll([]*Pending{p}, &Symlink{Dir: dir, Name: "out", Target: "a"})
	if !errors.Is(err, ErrExists) {
		t.Errorf("a link took the place of a file: %v", err)
	}
	if got := names(t, path); got != "out=old" {
		t.Errorf("directory holds %s", got)
	}
	// Litter of a killed CommitAll.
	if err := os.Symlink("dead", filepath.Join(path, ".l.partial-ffffffff")); err != nil {
		t.Fatal(err)
	}
	if err := CommitAll(nil, &Symlink{Dir: dir, Name: "l", Target: "out"}); err != nil {
		t.Fatal(err)
	}
	if got := names(t, path); got != "l->out out=old" {
		t.Errorf("directory holds %s", got)
	}
}

// TestCommitRace lets writers and symlink setters of one name meet.
func TestCommitRace(t *testing.T) {
	for _, c := range []struct {
		policy Overwrite
		winner func(published, failed int) bool
	}{
		{Exclusive, func(published, failed int) bool { return published == 1 && failed == 15 }},
		{First, func(published, failed int) bool { return published == 1 && failed == 0 }},
		{Replace, func(published, failed int) bool { return published == 16 && failed == 0 }},
	} {
		for _, way := range []string{"all", "no O_TMPFILE", "nfs"} {
			t.Run(fmt.Sprint(way, c.policy), func(t *testing.T) {
				dir, path := openDir(t)
				var wg sync.WaitGroup
				errs, all := make([]error, 16), make([]*Pending, 16)
				for i := range all {
					p, err := newPending(faults(ways[way]), dir, "out", Options{Overwrite: c.policy}, nil)
					if err != nil {
						t.Fatal(err)
					}
					all[i] = p
				}
				for i := range all {
					wg.Go(func() {
						errs[i] = CommitAll(all[i:i+1], &Symlink{Dir: dir, Name: "latest", Target: fmt.Sprint(i)})
					})
				}
				wg.Wait()
				published, failed := 0, 0
				for i, p := range all {
					if p.Published() {
						published++
					}
					if errs[i] != nil {
						failed++
						if !errors.Is(errs[i], ErrExists) {
							t.Error(errs[i])
						}
					}
				}
				if !c.winner(published, failed) {
					t.Errorf("%d published, %d failed", published, failed)
				}
				if entries, err := os.ReadDir(path); err != nil || len(entries) != 2 {
					t.Errorf("%v %v", entries, err)
				}
			})
		}
	}
}

// TestPendingLitter plants what a dead writer, a living one, and others leave, and wants only the first removed.
func TestPendingLitter(t *testing.T) {
	dir, path := openDir(t)
	for _, name := range []string{".out.partial-00000000", ".out.partial-0000000f", ".out.partial-notours", ".other.partial-00000000", "out.partial-00000000"} {
		if err := os.WriteFile(filepath.Join(path, name), nil, 0o444); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(path, ".out.partial-00000001"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(path, ".out.partial-00000002"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("keep", filepath.Join(path, ".out.partial-00000003")); err != nil {
		t.Fatal(err)
	}
	living, err := newPending(faults(ways["nfs"]), dir, "out", Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer living.Abort()
	p, err := NewPending(dir, "out", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Abort(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	want := []string{".other.partial-00000000", ".out.partial-00000000", ".out.partial-00000001", ".out.partial-00000002",
		".out.partial-00000003", ".out.partial-notours", "out.partial-00000000"}
	if !slices.Equal(got, want) {
		t.Errorf("left are %q, want %q", got, want)
	}
	if _, err := living.File().WriteString("alive"); err != nil {
		t.Fatal(err)
	}
	if err := living.Commit(); err != nil {
		t.Errorf("the living writer: %v", err)
	}
}

func TestPendingSlotsRunOut(t *testing.T) {
	dir, path := openDir(t)
	for range slots {
		p, err := newPending(faults(ways["nfs"]), dir, "out", Options{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Abort()
	}
	if _, err := newPending(faults(ways["nfs"]), dir, "out", Options{}, nil); !errors.Is(err, unix.EBUSY) {
		t.Errorf("one more than there are slots: %v", err)
	}
	if entries, err := os.ReadDir(path); err != nil || len(entries) != slots {
		t.Errorf("%d names, %v", len(entries), err)
	}
}

// TestPendingUnprivileged writes as an ordinary user into directories that allow less and less.
func TestPendingUnprivileged(t *testing.T) {
	tier.Root(t, "to become another user")
	for _, c := range []struct {
		mode uint32
		want error
	}{{0o700, nil}, {0o300, nil}, {0o500, unix.EACCES}, {0o100, unix.EACCES}} {
		t.Run(fmt.Sprintf("%o", c.mode), func(t *testing.T) {
			dir, path := openDir(t)
			if err := errors.Join(os.Chown(path, 1234, 1234), syscall.Chmod(path, c.mode)); err != nil {
				t.Fatal(err)
			}
			var err error
			asUser(t, 1234, func() {
				var p *Pending
				if p, err = NewPending(dir, "out", Options{Mode: 0o640}); err == nil {
					err = p.Commit()
				}
			})
			if !errors.Is(err, c.want) || c.want == nil && err != nil {
				t.Errorf("got %v, want %v", err, c.want)
			}
			st, serr := os.Stat(filepath.Join(path, "out"))
			if (serr == nil) != (c.want == nil) || serr == nil && st.Sys().(*syscall.Stat_t).Uid != 1234 {
				t.Errorf("afterwards: %v, %v", st, serr)
			}
		})
	}
}

func TestPendingReadOnlyFilesystem(t *testing.T) {
	tier.Root(t, "to mount")
	inMounts(t, func(path string) {
		if err := syscall.Mount("tmpfs", path, "tmpfs", syscall.MS_RDONLY, ""); err != nil {
			t.Error(err)
			return
		}
		dir, err := os.Open(path)
		if err != nil {
			t.Error(err)
			return
		}
		defer dir.Close()
		if _, err := NewPending(dir, "out", Options{}); !errors.Is(err, unix.EROFS) {
			t.Errorf("got %v", err)
		}
	})
}

func TestPendingFullDisk(t *testing.T) {
	tier.Root(t, "to mount")
	inMounts(t, func(path string) {
		if err := syscall.Mount("tmpfs", path, "tmpfs", 0, "size=1m"); err != nil {
			t.Error(err)
			return
		}
		dir, err := os.Open(path)
		if err != nil {
			t.Error(err)
			return
		}
		defer dir.Close()
		for _, way := range []string{"all", "nfs"} {
			p, err := newPending(faults(ways[way]), dir, "out", Options{}, nil)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := p.File().Write(make([]byte, 2<<20)); !errors.Is(err, unix.ENOSPC) {
				t.Errorf("%s: got %v", way, err)
			}
			if err := p.Abort(); err != nil {
				t.Error(err)
			}
			if got := names(t, path); got != "" {
				t.Errorf("%s: directory holds %s", way, got)
			}
		}
		fullTransfer(t, dir)
	})
}

// TestPendingWithoutProc hides /proc in earnest.
func TestPendingWithoutProc(t *testing.T) {
	tier.Root(t, "to mount")
	inMounts(t, func(path string) {
		dir, err := os.Open(path)
		if err != nil {
			t.Error(err)
			return
		}
		defer dir.Close()
		if err := syscall.Mount("tmpfs", "/proc", "tmpfs", 0, ""); err != nil {
			t.Error(err)
			return
		}
		p, err := NewPending(dir, "out", Options{})
		if err != nil {
			t.Error(err)
			return
		}
		if err := p.Commit(); err != nil {
			t.Error(err)
		}
		if got := names(t, path); got != "out=" {
			t.Errorf("directory holds %s", got)
		}
	})
	dir, path := openDir(t)
	k := faults(map[string]error{"linkat": unix.ENOENT, "linkat without /proc": unix.ENOENT})
	p, err := newPending(k, dir, "out", Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(); err == nil || !strings.Contains(err.Error(), "/proc is mounted") {
		t.Errorf("no way to name it: %v", err)
	}
	if got := names(t, path); got != "" {
		t.Errorf("directory holds %s", got)
	}
}

func TestCommitModTime(t *testing.T) {
	eachWay(t, func(t *testing.T, begin func(*os.File, string, string, Options) *Pending) {
		dir, path := openDir(t)
		for _, want := range []time.Time{time.Unix(1700000000, 123456789), time.Unix(-5, 0)} {
			if err := begin(dir, "out", "x", Options{ModTime: want, Overwrite: Replace}).Commit(); err != nil {
				t.Fatal(err)
			}
			st, err := os.Stat(filepath.Join(path, "out"))
			if err != nil || !st.ModTime().Equal(want) && (os.Getenv("HANDOFF_FS") == "" || want.Unix() > 0) {
				t.Errorf("%v, %v", st.ModTime(), err)
			}
		}
	})
}
