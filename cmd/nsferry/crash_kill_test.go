package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// endsWithin is how long anything of a run may take to go after one of its processes was killed.
const endsWithin = 5 * time.Second

// killAtRandom does the rounds for one command.
func (s *crashSite) killAtRandom(t *testing.T, c crashCommand, moments int) {
	length := s.undisturbed(t, c)
	victims := map[string]int{}
	for i := range moments {
		if c.prepare != nil {
			c.prepare(t)
		}
		mounts := mountsBelow(t, s.dir)
		delay := time.Duration(s.random.Int64N(int64(length) * 11 / 10))
		victim := s.killOnce(t, c, delay, i%2 == 0)
		victims[victim]++
		s.nothingHeld(t, mounts)
		c.check(t, victim)
		for _, name := range s.entries(t) { // anything new is the target or cannot be mistaken for it
			if !strings.Contains(name, ".partial-") && !strings.Contains("out.tar.zst new gone "+strings.Join(s.names, " "), name) {
				t.Errorf("left: %s", name)
			}
		}
		if c.name == "unpack" {
			s.ok(t, "rm", "-f", "new")
		}
		if c.name == "pack" {
			if err := os.Remove(s.path("out.tar.zst")); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
		}
		s.again(t, c)
		if t.Failed() {
			t.Fatalf("round %d: killed %s after %v of %v", i, victim, delay, length)
		}
	}
	t.Logf("%d moments in %v; killed: %v", moments, length, victims)
}

// undisturbed runs the command twice and returns how long it took the second time.
func (s *crashSite) undisturbed(t *testing.T, c crashCommand) (length time.Duration) {
	t.Helper()
	for range 2 {
		if c.prepare != nil {
			c.prepare(t)
		}
		length = s.again(t, c)
	}
	return length
}

// again runs the command undisturbed, which takes length, and brings the directory back to its beginning.
func (s *crashSite) again(t *testing.T, c crashCommand) (length time.Duration) {
	t.Helper()
	var out bytes.Buffer
	cmd := s.command(c.stdin, c.args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	if err := cmd.Run(); err != nil {
		t.Fatalf("the next %s: %v\n%s", c.name, err, out.String())
	}
	length = time.Since(start)
	c.whole(t)
	for _, args := range c.clear {
		s.ok(t, args...)
	}
	if err := os.Remove(s.path("data/x")); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if d := cmp.Diff(s.names, s.entries(t)); d != "" {
		t.Errorf("the directory is not as it began (-before +after):\n%s", d)
	}
	return length
}

// killOnce starts the command, kills the outer process or one that descends from it after delay, and waits until nothing
// of the run is there any more. It returns who was killed.
func (s *crashSite) killOnce(t *testing.T, c crashCommand, delay time.Duration, outer bool) string {
	t.Helper()
	out, err := os.CreateTemp("", "crash")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if err := os.Remove(out.Name()); err != nil {
		t.Fatal(err)
	}
	cmd := s.command(c.stdin, c.args...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(delay)
	pid, victim := cmd.Process.Pid, "outer"
	if below := descendants(pid); !outer && len(below) > 0 {
		pid = below[s.random.IntN(len(below))]
		victim = commandLine(pid)
	}
	err = syscall.Kill(pid, syscall.SIGKILL)
	if errors.Is(err, syscall.EPERM) { // newuidmap is root's
		victim, err = "outer", cmd.Process.Kill()
	}
	if err != nil && !errors.Is(err, syscall.ESRCH) && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(endsWithin):
		t.Errorf("the outer process still runs after %v: %v", endsWithin, commandLines(descendants(os.Getpid())))
		_ = cmd.Process.Kill()
		<-ended
	}
	deadline := time.Now().Add(endsWithin)
	for len(reap()) > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("killed %s after %v; still there: %v", victim, delay, commandLines(reap()))
		}
		time.Sleep(2 * time.Millisecond)
	}
	return victim
}

// adoptOrphans makes this process the parent of everything that is left of a run (prctl(2), PR_SET_CHILD_SUBREAPER), so that
// nothing gets out of sight.
func adoptOrphans(t *testing.T) {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) })
}

// reap buries the dead among the adopted and returns the living below this process. No other child may be wanted.
func reap() []int {
	for {
		var status unix.WaitStatus
		if pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil); err == unix.EINTR {
			continue
		} else if err != nil || pid <= 0 {
			return descendants(os.Getpid())
		}
	}
}

// descendants lists all processes below pid.
func descendants(pid int) (all []int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		text, _ := os.ReadFile(task) // gone meanwhile: it has none
		for _, field := range strings.Fields(string(text)) {
			var child int
			if _, err := fmt.Sscan(field, &child); err == nil {
				all = append(append(all, child), descendants(child)...)
			}
		}
	}
	return all
}

func commandLine(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.TrimSpace(strings.ReplaceAll(string(text), "\x00", " "))
}

func commandLines(pids []int) (lines []string) {
	for _, pid := range pids {
		lines = append(lines, fmt.Sprintf("%d %s", pid, commandLine(pid)))
	}
	return lines
}

// mountsBelow lists the mounts of this namespace that have to do with dir.
func mountsBelow(t *testing.T, dir string) (lines []string) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, dir) || strings.Contains(line, "nsferry") {
			lines = append(lines, line)
		}
	}
	return lines
}

// nothingHeld demands that mounts are as before, and that no lock is left on anything in the site.
func (s *crashSite) nothingHeld(t *testing.T, before []string) {
	t.Helper()
	if d := cmp.Diff(before, mountsBelow(t, s.dir)); d != "" {
		t.Errorf("mounts (-before +after):\n%s", d)
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		t.Fatal(err)
	}
	held := map[string]string{}
	for line := range strings.Lines(string(locks)) {
		if f := strings.Fields(line); len(f) > 5 {
			held[f[len(f)-3]] = line // major:minor:inode
		}
	}
	err = filepath.WalkDir(s.dir, func(path string, d os.DirEntry, err error) error {
		var st unix.Stat_t
		if err != nil || unix.Lstat(path, &st) != nil { // closed to us
			return nil
		}
		if lock := held[fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)]; lock != "" {
			t.Errorf("%s is locked: %s", path, lock)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
