package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal returns both ends of a pseudo-terminal (pts(4)).
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 100}); err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// TestProgress shows a line on a terminal, but not before its time.
func TestProgress(t *testing.T) {
	for _, tt := range []struct {
		name string
		work time.Duration
		want bool
	}{{"quick", 0, false}, {"long", progressDelay + 500*time.Millisecond, true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			master, slave := terminal(t)
			seen := make(chan string)
			go func() {
				var b bytes.Buffer
				buf := make([]byte, 4096)
				for !strings.Contains(b.String(), "END") {
					n, err := master.Read(buf)
					if err != nil {
						break
					}
					b.Write(buf[:n])
				}
				seen <- b.String()
			}()
			o := &Out{Stderr: slave}
			p := o.Progress("pack", 0)
			if p == nil {
				t.Fatal("no progress on a terminal")
			}
			p.Set(1<<20, 4<<20)
			time.Sleep(tt.work)
			p.Done()
			fmt.Fprint(slave, "END")
			got := <-seen
			if shown := strings.Contains(got, "pack") && strings.Contains(got, "1.0 MiB / 4.0 MiB") && strings.Contains(got, "KiB/s"); shown != tt.want {
				t.Errorf("shown: %v, want %v; the terminal got %q", shown, tt.want, got)
			}
		})
	}
}

// TestNoProgress: only a terminal gets a line, and only if the user wants one.
func TestNoProgress(t *testing.T) {
	_, slave := terminal(t)
	file, err := os.Create(t.TempDir() + "/stderr")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for name, o := range map[string]*Out{
		"file":          {Stderr: file},
		"no file":       {Stderr: &bytes.Buffer{}},
		"--quiet":       {Stderr: slave, quiet: true},
		"--json, quiet": {Stderr: slave, json: true, quiet: true},
		"--no-progress": {Stderr: slave, noProgress: true},
	} {
		p := o.Progress("pack", 1)
		if p != nil {
			t.Errorf("%s: progress", name)
		}
		p.Set(1, 1) // of nothing: does nothing
		p.Done()
	}
}

// TestProgressEvents: with --json there are events on stderr, one line each, and nothing before the first second.
func TestProgressEvents(t *testing.T) {
	var stderr bytes.Buffer
	o := &Out{Stderr: &stderr, json: true}
	p := o.Progress("deploy", 0)
	p.Set(1, 2)
	p.Done()
	if stderr.Len() > 0 {
		t.Errorf("at once: %s", stderr.String())
	}
	p = o.Progress("deploy", 0)
	p.Set(1<<20, 4<<20)
	time.Sleep(progressDelay + 500*time.Millisecond)
	p.Done()
	var e event
	if err := json.Unmarshal(stderr.Bytes(), &e); err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	if e.Event != "progress" || e.What != "deploy" || e.Done != 1<<20 || e.Total != 4<<20 || e.Rate <= 0 || e.Rate > 1<<20 || e.Remaining < 3 {
		t.Errorf("%+v", e)
	}
}
