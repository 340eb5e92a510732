package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nsferry/nsferry/tier"
)

// TestThrowawayKilled kills a run at its height the way a machine short of memory does, all processes of the caller's session at once: once as
// image builders do it today, which unpack, run and remove; once over a master.
func TestThrowawayKilled(t *testing.T) {
	tier.Have(t, haveSubids() || os.Getuid() == 0, "sub-ids")
	adoptOrphans(t)
	for mode, flags := range crashModes() {
		t.Run(mode, func(t *testing.T) {
			s := newCrashSite(t, flags)
			nsferry := "nsferry " + strings.Join(flags, " ")
			const busy = " -- sh -c 'echo 1 >/usr/mark; sleep 60'"
			old := s.killed(t, nsferry+" -q unpack reference.tar.zst old && "+nsferry+" run --rootfs old"+busy+"; "+nsferry+" rm old")
			s.ok(t, "rm", "old")
			ours := s.killed(t, nsferry+" run --rootfs reference.tar.zst"+busy)
			if old < 600 || ours != 0 {
				t.Errorf("left by unpack, run, rm: %d inodes, wanted some 650; by an ephemeral run: %d, wanted 0", old, ours)
			}
			t.Logf("left by unpack, run, rm: %d inodes; by an ephemeral run: %d", old, ours)
			for _, tree := range s.masters(t) {
				s.ok(t, "diff", tree, "reference.tar.zst")
			}
		})
	}
}

// killed runs a script until its command is at work, kills all that is in its session, and counts the inodes of trees and layers that
// are left.
func (s *crashSite) killed(t *testing.T, script string) (left int) {
	t.Helper()
	cmd := s.command("")
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", script}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	at := func() bool { // the command sleeps
		for _, pid := range descendants(cmd.Process.Pid) {
			if commandLine(pid) == "sleep 60" {
				return true
			}
		}
		return false
	}
	for deadline := time.Now().Add(time.Minute); !at(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the command has not begun")
		}
	}
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	for deadline := time.Now().Add(endsWithin); len(reap()) > 0; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still there: %v", commandLines(reap()))
		}
	}
	if _, err := os.Lstat(s.path("old")); err == nil {
		left = strings.Count(s.ok(t, "ls", "old"), "\n")
	}
	layers, err := os.ReadDir(s.path("state/nsferry/ephemeral/runs"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return left + len(layers)
}

// masters lists the trees that are kept for ephemeral runs.
func (s *crashSite) masters(t *testing.T) []string {
	t.Helper()
	trees, err := filepath.Glob(s.path("state/nsferry/ephemeral/masters/*/tree"))
	if err != nil || len(trees) != 1 {
		t.Errorf("masters: %v, %v", trees, err)
	}
	return trees
}
