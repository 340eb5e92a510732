package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestInterrupt sends what ends a program, to the outer process alone as kill(1) does and to the whole group as a
// terminal does, while the command waits for its input or for the reader of its output: it ends soon, with status 130, and
// leaves nothing.
func TestInterrupt(t *testing.T) {
	if !haveSubids() && os.Getuid() != 0 {
		scriptT{t}.Skip("needs sub-ids")
	}
	adoptOrphans(t)
	for mode, flags := range crashModes() {
		t.Run(mode, func(t *testing.T) {
			s := newCrashSite(t, flags)
			half := s.packed[:len(s.packed)/2]
			source, err := os.ReadFile(s.path("source.tar"))
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range []struct {
				line  string
				input []byte // what comes of the input before it stalls; nil: nothing does
			}{
				{"unpack - new", source[:len(source)/2]},
				{"unpack - new", half},
				{"unpack - new", nil},
				{"pack tree -o -", nil},
				{"pack --format tar tree -o -", nil},
				{"ls -", half},
				{"ls -", nil},
				{"diff - tree", source[:len(source)/2]},
				{"diff tree -", nil},
				{"verify -", half},
				{"cat source.tar bin/busybox", nil},
			} {
				for sig, group := range map[syscall.Signal]bool{syscall.SIGINT: true, syscall.SIGTERM: false, syscall.SIGHUP: true} {
					name := fmt.Sprintf("%s (%d bytes) %v", strings.ReplaceAll(c.line, "/", "_"), len(c.input), sig)
					if group {
						name += " to the group"
					}
					t.Run(name, func(t *testing.T) { s.interrupt(t, c.line, c.input, sig, group) })
				}
			}
		})
	}
}

// interrupt runs one command with an input that stalls and an output that nobody reads, and sends it sig.
func (s *crashSite) interrupt(t *testing.T, line string, input []byte, sig syscall.Signal, group bool) {
	stdin, feed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer feed.Close()
	unread, stdout, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer unread.Close()
	var stderr bytes.Buffer
	cmd := s.command("", strings.Fields(line)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	stdout.Close()
	fed := make(chan struct{})
	go func() { // blocks as long as nobody reads
		_, _ = io.Copy(feed, bytes.NewReader(input))
		close(fed)
	}()
	awaitStall(t, cmd.Process.Pid)
	to := cmd.Process.Pid
	if group {
		to = -to
	}
	start := time.Now()
	if err := syscall.Kill(to, sig); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
	case <-time.After(endsWithin):
		t.Errorf("still runs %v after the signal: %v", endsWithin, commandLines(descendants(os.Getpid())))
		_ = cmd.Process.Kill()
		<-ended
	}
	var exit *exec.ExitError
	if took := time.Since(start); took > time.Second {
		t.Errorf("took %v to end", took)
	}
	if !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted {
		t.Errorf("%v, want exit status %d\n%s", err, exitInterrupted, stderr.String())
	}
	if n := strings.Count(stderr.String(), "nsferry: "); n > 1 {
		t.Errorf("%d messages:\n%s", n, stderr.String())
	}
	s.nothingHeld(t, mountsBelow(t, s.dir))
	if left := reap(); len(left) > 0 {
		t.Errorf("left running: %v", commandLines(left))
	}
	if d := cmp.Diff(s.names, s.entries(t)); d != "" {
		t.Errorf("the directory is not as it began (-before +after):\n%s", d)
		s.ok(t, "rm", "-f", "new")
	}
	feed.Close()
	unread.Close()
	<-fed
}

// awaitStall waits until the process and all below it do nothing for a while: since they have not ended, they wait for
// input, or for somebody to read their output.
func awaitStall(t *testing.T, pid int) {
	t.Helper()
	used := func() (total int, ready bool) {
		for _, p := range append(descendants(pid), pid) {
			threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", p))
			for _, thread := range threads {
				text, _ := os.ReadFile(thread + "/schedstat")
				var on int // nanoseconds on a processor
				_, _ = fmt.Sscan(string(text), &on)
				total += on
				text, _ = os.ReadFile(thread + "/stat")
				_, state, _ := strings.Cut(string(text), ") ")
				ready = ready || !strings.HasPrefix(state, "S")
			}
		}
		return total, ready
	}
	// Looks are counted, not time: on a busy machine this process stands still as well.
	last, quiet := -1, 0
	for end := time.Now().Add(endsWithin); quiet < 20; time.Sleep(4 * time.Millisecond) {
		now, ready := used()
		if quiet++; now != last || ready {
			last, quiet = now, 0
		}
		if time.Now().After(end) {
			t.Fatal("the command neither ends nor stalls")
		}
	}
}
