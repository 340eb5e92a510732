//go:build linux

package handoff

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSeal: a sealed file has its mode and is on the disk, and Commit adds no more than the name.
func TestSeal(t *testing.T) {
	dir, path := openDir(t)
	var calls []string
	k := kernel{fault: func(op string) error { calls = append(calls, op); return nil }}
	p, err := newPending(k, dir, "a", Options{Mode: 0o640}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Abort()
	if _, err := p.File().WriteString("1"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.Seal(); err != nil {
			t.Fatal(err)
		}
	}
	if n := count(calls, "fsync"); n != 1 {
		t.Errorf("sealed with %d times fsync", n)
	}
	if st, err := p.File().Stat(); err != nil || st.Mode().Perm() != 0o640 || names(t, path) != "" {
		t.Errorf("sealed: %v, %v, directory %q", st.Mode(), err, names(t, path))
	}
	calls = nil
	if err := p.Commit(); err != nil {
		t.Fatal(err)
	}
	if count(calls, "fsync") != 0 || count(calls, "fsync directory") != 1 || names(t, path) != "a=1" {
		t.Errorf("Commit did %q, directory %q", calls, names(t, path))
	}
	if err := p.Seal(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Commit: %v", err)
	}
}

// TestWritten: the disk is told early of what Seal is going to put on it, and its answer does not matter.
func TestWritten(t *testing.T) {
	dir, path := openDir(t)
	var calls []string
	k := kernel{fault: func(op string) error {
		calls = append(calls, op)
		if op == "sync_file_range" {
			return unix.EIO
		}
		return nil
	}}
	for i, o := range []Options{{}, {NoSync: true}} {
		p, err := newPending(k, dir, string(rune('a'+i)), o, nil)
		if err != nil {
			t.Fatal(err)
		}
		p.Written()
		if err := p.Commit(); err != nil {
			t.Fatal(err)
		}
		p.Written() // too late, and no harm
	}
	if n := count(calls, "sync_file_range"); n != 1 || names(t, path) != "a= b=" {
		t.Errorf("told %d times, directory %q", n, names(t, path))
	}
}

// TestNoSync: nothing is put on the disk, except for those that want it.
func TestNoSync(t *testing.T) {
	dir, path := openDir(t)
	var calls []string
	k := kernel{fault: func(op string) error { calls = append(calls, op); return nil }}
	var all []*Pending
	for i, o := range []Options{{NoSync: true}, {NoSync: true}, {}} {
		p, err := newPending(k, dir, string(rune('a'+i)), o, nil)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if err := CommitAll(all[:2], nil); err != nil {
		t.Fatal(err)
	}
	if count(calls, "fsync") != 0 || count(calls, "fsync directory") != 0 {
		t.Errorf("without sync: %q", calls)
	}
	if err := CommitAll(all[2:], nil); err != nil {
		t.Fatal(err)
	}
	if count(calls, "fsync") != 1 || count(calls, "fsync directory") != 1 || names(t, path) != "a= b= c=" {
		t.Errorf("with sync: %q, directory %q", calls, names(t, path))
	}
}

func count(calls []string, op string) (n int) {
	for _, c := range calls {
		if c == op {
			n++
		}
	}
	return n
}
