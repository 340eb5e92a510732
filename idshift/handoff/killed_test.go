//go:build linux

package handoff

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

const wholeSize = 64 << 10 // of the file that is written for ever: all bytes equal

// writeForever replaces the file "out" in dir again and again.
func writeForever(dir, way string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	for round := byte(0); ; round++ {
		p, err := newPending(faults(ways[way]), d, "out", Options{Mode: 0o444, Overwrite: Replace}, nil)
		if err != nil {
			return err
		}
		for range 16 {
			if _, err := p.File().Write(bytes.Repeat([]byte{round}, wholeSize/16)); err != nil {
				return err
			}
		}
		if err := p.Commit(); err != nil {
			return err
		}
	}
}

// TestKilledWriter kills writers, two at a time, at random moments: what is under the name is always whole, and the next
// Pending leaves no litter.
func TestKilledWriter(t *testing.T) {
	kills := 60
	if testing.Short() {
		kills = 10
	}
	for _, way := range []string{"all", "no O_TMPFILE", "nfs"} {
		t.Run(way, func(t *testing.T) {
			dir, path := openDir(t)
			seen, litter := 0, 0
			for range kills / 2 {
				killTwo(t, path, way)
				if b, err := os.ReadFile(filepath.Join(path, "out")); err == nil {
					seen++
					if len(b) != wholeSize || len(bytes.Trim(b, string(b[:1]))) != 0 {
						t.Fatalf("a torn file of %d bytes", len(b))
					}
				} else if !os.IsNotExist(err) {
					t.Fatal(err)
				}
				entries, err := os.ReadDir(path)
				if err != nil {
					t.Fatal(err)
				}
				litter += len(entries)
				p, err := NewPending(dir, "out", Options{Overwrite: Replace})
				if err != nil {
					t.Fatal(err)
				}
				if err := p.Abort(); err != nil {
					t.Fatal(err)
				}
				if entries, err = os.ReadDir(path); err != nil || len(entries) > 1 {
					t.Fatalf("litter is left: %v, %v", entries, err)
				}
			}
			if seen == 0 {
				t.Error("no writer ever finished a file: the test shows nothing")
			}
			t.Logf("%d times a whole file, %d names before sweeping", seen, litter)
		})
	}
}

func killTwo(t *testing.T, path, way string) {
	t.Helper()
	var writers [2]*exec.Cmd
	var said [2]bytes.Buffer
	for i := range writers {
		writers[i] = exec.Command("/proc/self/exe", path, way)
		writers[i].Env = append(os.Environ(), "HANDOFF_TEST=writer")
		writers[i].Stderr = &said[i]
		if err := writers[i].Start(); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(time.Duration(5+rand.IntN(30)) * time.Millisecond)
	for i, w := range writers {
		if err := w.Process.Kill(); err != nil {
			t.Errorf("kill: %v", err)
		}
		_ = w.Wait() // killed, as it should be
		if said[i].Len() > 0 {
			t.Errorf("a writer failed: %s", said[i].String())
		}
	}
}
