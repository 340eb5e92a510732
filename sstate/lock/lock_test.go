package lock

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nsferry/nsferry/tier"
)

func take(t *testing.T, path string, o Options) *Lock {
	t.Helper()
	l, err := Take(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.file.Close() })
	return l
}

// busy tells whether flock(1) is denied the lock.
func busy(t *testing.T, path string, flags ...string) bool {
	t.Helper()
	return exec.Command("flock", append(flags, "-n", path, "true")...).Run() != nil
}

func TestTakeExcludesFlock(t *testing.T) {
	tier.Program(t, "flock")
	path := filepath.Join(t.TempDir(), "lock")
	l := take(t, path, Options{Mode: 0o664})
	if !busy(t, path) || !busy(t, path, "-s") {
		t.Error("an exclusive lock lets flock(1) in")
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o664 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	take(t, path, Options{Shared: true})
	take(t, path, Options{Shared: true})
	if !busy(t, path) || busy(t, path, "-s") {
		t.Error("a shared lock keeps readers out, or lets a writer in")
	}
}

// TestTakeWaitsAndNames: who is in the way is said, and a wait can be cancelled.
func TestTakeWaitsAndNames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	take(t, path, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	said := ""
	_, err := Take(ctx, path, Options{Shared: true, Note: func(s string) { said = s; cancel() }})
	if err == nil || !strings.Contains(err.Error(), context.Canceled.Error()) {
		t.Errorf("cancelled: %v", err)
	}
	if !strings.Contains(said, path) || !strings.Contains(said, "held by") {
		t.Errorf("said %q", said)
	}
}

// TestTakeIgnoresARemovedFile is bitbake's way: the name goes while others wait for the lock.
func TestTakeIgnoresARemovedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	old := take(t, path, Options{})
	got := make(chan *Lock, 1)
	go func() {
		l, err := Take(t.Context(), path, Options{})
		if err != nil {
			t.Error(err)
		}
		got <- l
	}()
	time.Sleep(20 * time.Millisecond)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := old.Release(); err != nil {
		t.Fatal(err)
	}
	l := <-got
	defer l.Release()
	if same, err := Names(path, l.file); err != nil || !same {
		t.Errorf("the lock is on a file without a name: %v", err)
	}
}

// TestTakeReadOnly: a lock that exists can be shared by whoever may only read it.
func TestTakeReadOnly(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "lock")
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(dir, 0o755)
	take(t, path, Options{Shared: true})
}
