//go:build linux

package store

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nsferry/nsferry/sstate/lock"
	"github.com/nsferry/nsferry/tier"
)

// flock starts a program that holds the lock of path until the returned function is called.
func flock(t *testing.T, argv ...string) (pid int, release func()) {
	t.Helper()
	tier.Program(t, argv[0])
	cmd := exec.Command(argv[0], argv[1:]...)
	in, err := cmd.StdinPipe()
	check(t, err)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	_, err = bufio.NewReader(out).ReadString('\n')
	check(t, err)
	return cmd.Process.Pid, func() {
		in.Close()
		check(t, cmd.Wait())
	}
}

// TestWaitsForFlock waits for flock(1), and says for whom.
func TestWaitsForFlock(t *testing.T) {
	s := open(t)
	var said atomic.Value
	s.opts.Note = func(text string) { said.Store(text) }
	k := key(t, "k")
	check(t, s.makeDirs(k.dir()))
	_, release := flock(t, "flock", s.path(k.Path())+".lock", "sh", "-c", "echo locked; read x; :")
	done := make(chan error)
	go func() { done <- tryPut(t.Context(), s, k, "one") }()
	select {
	case err := <-done:
		t.Fatalf("did not wait: %v", err)
	case <-time.After(1500 * time.Millisecond):
	}
	text, _ := said.Load().(string)
	if !strings.Contains(text, ".lock") || !strings.Contains(text, "process ") || !strings.Contains(text, "(flock)") && !strings.Contains(text, "(sh)") {
		t.Errorf("said %q", text)
	}
	release()
	check(t, <-done)
	holds(t, s, k, "one")
}

// bitbakeLock is what bitbake's bb.utils.lockfile and unlockfile do: it looks again after it got the lock, and removes the
// file before it lets go.
const bitbakeLock = `
import fcntl, os, sys
name = sys.argv[1]
while True:
    f = open(name, "a+")
    fcntl.flock(f.fileno(), fcntl.LOCK_EX)
    if os.path.exists(name) and os.fstat(f.fileno()).st_ino == os.stat(name).st_ino:
        break
    f.close()
print("locked", flush=True)
sys.stdin.read()
os.unlink(name)
fcntl.flock(f.fileno(), fcntl.LOCK_UN)
f.close()
`

// TestWaitsForBitbake looks again when the lock it got is of a file that was removed.
func TestWaitsForBitbake(t *testing.T) {
	s := open(t)
	k := key(t, "k")
	check(t, s.makeDirs(k.dir()))
	path := s.path(k.Path()) + ".lock"
	_, release := flock(t, "python3", "-c", bitbakeLock, path)
	done := make(chan error)
	var p *Pending
	go func() {
		var err error
		p, err = s.Put(t.Context(), k)
		done <- err
	}()
	time.Sleep(50 * time.Millisecond)
	release()
	check(t, <-done)
	same, err := lock.Names(path, p.Lock())
	check(t, err)
	if !same {
		t.Error("the lock is on a file that is gone")
	}
	// Whoever comes now has to wait.
	tier.Program(t, "flock")
	if err := exec.Command("flock", "-n", path, "true").Run(); err == nil {
		t.Error("flock(1) got the lock as well")
	}
	check(t, p.Abort())
	check(t, exec.Command("flock", "-n", path, "true").Run())
}

// TestLockIsInherited keeps the lock of a writer as long as a process has its file.
func TestLockIsInherited(t *testing.T) {
	s := open(t)
	k := key(t, "k")
	p, err := s.Put(t.Context(), k)
	check(t, err)
	cmd := exec.Command("sh", "-c", "read x; :")
	in, err := cmd.StdinPipe()
	check(t, err)
	cmd.ExtraFiles = []*os.File{p.Lock()}
	check(t, cmd.Start())
	check(t, p.Abort()) // as if this process were gone
	again, err := os.Open(s.path(k.Path()) + ".lock")
	check(t, err)
	defer again.Close()
	if err := lock.Try(again, lock.Options{}); !errors.Is(err, lock.ErrBusy) {
		t.Error("the lock is free while the writer's child works")
	}
	in.Close()
	check(t, cmd.Wait())
	check(t, lock.Try(again, lock.Options{}))
}
