//go:build linux

package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/tier"
)

// TestPutGet saves and finds, and the first writer wins.
func TestPutGet(t *testing.T) {
	s := open(t)
	k := key(t, "k")
	misses(t, s, k, "no such entry")
	put(t, s, k, "one")
	holds(t, s, k, "one")
	if err := tryPut(t.Context(), s, k, "two"); !errors.Is(err, ErrPresent) {
		t.Errorf("a second writer: %v", err)
	}
	holds(t, s, k, "one")
	p, err := s.Put(t.Context(), key(t, "aborted"))
	check(t, err)
	check(t, p.Abort())
	check(t, p.Abort())
	misses(t, s, key(t, "aborted"), "no such entry")
}

// TestFirstWriterWins lets many write the same key at once.
func TestFirstWriterWins(t *testing.T) {
	s := open(t)
	k := key(t, "k")
	var wg sync.WaitGroup
	won := make(chan string, 32)
	for i := range 32 {
		wg.Go(func() {
			word := fmt.Sprint(i)
			err := tryPut(t.Context(), s, k, word)
			if err == nil {
				won <- word
			} else if !errors.Is(err, ErrPresent) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	close(won)
	winner := <-won
	holds(t, s, k, winner)
	if _, more := <-won; more {
		t.Error("two writers think that they were the first")
	}
}

// TestForeignWriterWins has a program that knows no locks of ours put an entry there while we write.
func TestForeignWriterWins(t *testing.T) {
	s := open(t)
	k := key(t, "k")
	p, err := s.Put(t.Context(), k)
	check(t, err)
	defer func() { check(t, p.Abort()) }()
	_, err = p.File().Write(content("ours"))
	check(t, err)
	check(t, os.WriteFile(s.path(k.Path()), content("theirs"), 0o644))
	check(t, p.Commit())
	if p.Published() {
		t.Error("two writers think that they were the first")
	}
	holds(t, s, k, "theirs")
}

// TestOddEntries makes everything odd a miss with a reason, out of the way of the next save.
func TestOddEntries(t *testing.T) {
	for name, c := range map[string]struct {
		make   func(path string) error
		reason string
		stays  bool
	}{
		"empty":     {func(p string) error { return os.WriteFile(p, nil, 0o644) }, "empty", false},
		"text":      {func(p string) error { return os.WriteFile(p, []byte("404 not found"), 0o644) }, "no archive", false},
		"torn":      {func(p string) error { return os.WriteFile(p, content("torn")[:40], 0o644) }, "truncated", false},
		"directory": {func(p string) error { return os.Mkdir(p, 0o755) }, "no regular file", false},
		"fifo":      {func(p string) error { return syscall.Mkfifo(p, 0o644) }, "no regular file", false},
		"dangling":  {func(p string) error { return os.Symlink("/nowhere/at all", p) }, "/nowhere/at all", true},
		"loop":      {func(p string) error { return os.Symlink(p, p) }, "cannot be opened", true},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			k := key(t, "k")
			check(t, s.makeDirs(k.dir()))
			check(t, c.make(s.path(k.Path())))
			check(t, os.WriteFile(s.path(k.Path())+".siginfo", []byte("x"), 0o644))
			_, err := s.Peek(t.Context(), k)
			if !errors.Is(err, ErrMiss) || len(quarantined(t, s)) > 0 {
				t.Errorf("a look: %v; moved: %q", err, quarantined(t, s))
			}
			misses(t, s, k, c.reason)
			if c.stays {
				if len(quarantined(t, s)) != 0 {
					t.Errorf("moved: %q", quarantined(t, s))
				}
				if name == "loop" { // in the way, and not for us to judge
					if err := tryPut(t.Context(), s, k, "new"); err == nil || !strings.Contains(err.Error(), s.path(k.Path())) {
						t.Errorf("saved over it: %v", err)
					}
					return
				}
			} else {
				if got := quarantined(t, s); !slices.Equal(got, []string{"k.tar.zst", "k.tar.zst.siginfo"}) {
					t.Errorf("in quarantine: %q", got)
				}
				misses(t, s, k, "no such entry")
			}
			put(t, s, k, "new")
			holds(t, s, k, "new")
		})
	}
}

// TestMirrorLinks follows symbolic links as bitbake's mirrors make them.
func TestMirrorLinks(t *testing.T) {
	s, mirror := open(t), open(t)
	k := key(t, "k")
	put(t, mirror, k, "theirs")
	check(t, s.makeDirs(k.dir()))
	check(t, os.Symlink(mirror.path(k.Path()), s.path(k.Path())))
	holds(t, s, k, "theirs")
	if err := tryPut(t.Context(), s, k, "ours"); !errors.Is(err, ErrPresent) {
		t.Error(err)
	}
}

// TestUnreadable makes entries and stores that the caller may not read, or not write, misses or usable.
func TestUnreadable(t *testing.T) {
	tier.User(t, "root may read everything")
	s := open(t)
	k := key(t, "k")
	put(t, s, k, "one")
	check(t, os.Chmod(s.path(k.Path()), 0))
	misses(t, s, k, "permission denied")
	check(t, os.Chmod(s.path(k.Path()), 0o400))

	// A store that is read-only for the caller: usable, nothing noted, nothing moved.
	age(t, s, k, 48*time.Hour)
	bad := key(t, "bad")
	check(t, s.makeDirs(bad.dir()))
	check(t, os.WriteFile(s.path(bad.Path()), nil, 0o644))
	dirs := []string{s.dir, filepath.Dir(s.path(k.Path())), filepath.Dir(s.path(bad.Path()))}
	for _, d := range dirs {
		check(t, os.Chmod(d, 0o500))
	}
	t.Cleanup(func() {
		for _, d := range dirs {
			check(t, os.Chmod(d, 0o700))
		}
	})
	holds(t, s, k, "one")
	misses(t, s, bad, "empty")
	if err := tryPut(t.Context(), s, key(t, "new"), "x"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("saved into a read-only store: %v", err)
	}
}

// TestUseIsNoted sets the time of the last use, at most once an hour.
func TestUseIsNoted(t *testing.T) {
	s := open(t)
	k := key(t, "k")
	put(t, s, k, "one")
	mtime := func() time.Time {
		st, err := os.Stat(s.path(k.Path()))
		check(t, err)
		return st.ModTime()
	}
	age(t, s, k, 30*time.Minute)
	before := mtime()
	holds(t, s, k, "one")
	if !mtime().Equal(before) {
		t.Error("a use within the hour was noted")
	}
	age(t, s, k, 61*time.Minute)
	holds(t, s, k, "one")
	if time.Since(mtime()) > time.Minute {
		t.Error("a use was not noted")
	}
}

// TestSharedStore gives the group what it needs in a store that it shares, whatever the umask, and nothing elsewhere.
func TestSharedStore(t *testing.T) {
	for _, c := range []struct {
		store          os.FileMode
		umask          int
		file, dir, own os.FileMode
	}{
		{0o775 | os.ModeSetgid, 0o077, 0o664, 0o775 | os.ModeSetgid, 0o775 | os.ModeSetgid},
		{0o770, 0o022, 0o664, 0o775, 0o775},
		{0o755, 0o022, 0o644, 0o755, 0o755},
		{0o700, 0o077, 0o600, 0o700, 0o700},
	} {
		dir := t.TempDir()
		check(t, os.Chmod(dir, c.store))
		s, err := Open(dir, Options{})
		check(t, err)
		k := key(t, "k")
		old := syscall.Umask(c.umask) // tests of this package do not run in parallel
		err = tryPut(t.Context(), s, k, "one")
		unlock, lerr := s.lockNames()
		syscall.Umask(old)
		check(t, errors.Join(err, lerr))
		unlock()
		for path, want := range map[string]os.FileMode{
			k.Path(): c.file, k.Path() + ".lock": c.file, k.dir(): c.dir, filepath.Dir(k.dir()): c.dir,
			privateDir: c.own, versionFile: c.file, removeLock: c.file,
		} {
			st, err := os.Stat(s.path(path))
			check(t, err)
			if got := st.Mode() & (os.ModePerm | os.ModeSetgid); got != want {
				t.Errorf("store %v, umask %03o: %s is %v, want %v", c.store, c.umask, path, got, want)
			}
		}
	}
}

// TestOpenRefuses says what is wrong with a store.
func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(filepath.Join(dir, "missing"), Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a store that is missing: %v", err)
	}
	check(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o644))
	if _, err := Open(filepath.Join(dir, "file"), Options{}); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("a file: %v", err)
	}
	check(t, os.MkdirAll(filepath.Join(dir, privateDir), 0o755))
	check(t, os.WriteFile(filepath.Join(dir, versionFile), []byte("nsferry-store-2\n"), 0o644))
	if _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), "nsferry-store-2") {
		t.Errorf("a later version: %v", err)
	}
}

// TestRamfs saves where the filesystem has neither attributes nor limits.
func TestRamfs(t *testing.T) {
	tier.Root(t, "mounts")
	dir := t.TempDir()
	check(t, unix.Mount("none", dir, "ramfs", 0, "mode=0755"))
	defer func() { check(t, unix.Unmount(dir, 0)) }()
	s, err := Open(dir, Options{})
	check(t, err)
	k := key(t, "k")
	put(t, s, k, "one")
	holds(t, s, k, "one")
	_, err = s.GC(GCOptions{MaxSize: 1})
	check(t, err)
	misses(t, s, k, "no such entry")
}

// TestQuarantineTakesWhatWasSeen does not move an entry that has taken the place of the odd one meanwhile.
func TestQuarantineTakesWhatWasSeen(t *testing.T) {
	s := open(t)
	k := key(t, "k")
	put(t, s, k, "one")
	o, err := s.Get(t.Context(), k)
	check(t, err)
	defer o.Close()
	check(t, os.Remove(s.path(k.Path())))
	put(t, s, k, "two")
	var miss *MissError
	if err := o.Quarantine("damaged"); !errors.As(err, &miss) || miss.Moved != "" {
		t.Errorf("%v", err)
	}
	holds(t, s, k, "two")
}

// TestCancelledPut leaves nothing and waits no longer.
func TestCancelledPut(t *testing.T) {
	s := open(t)
	k := key(t, "k")
	p, err := s.Put(t.Context(), k)
	check(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := tryPut(ctx, s, k, "two"); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("%v", err)
	}
	check(t, p.Abort())
	put(t, s, k, "two")
	if got, _ := get(t, s, k); !bytes.Equal(got, content("two")) {
		t.Error("another content")
	}
}
