//go:build linux

package mounts

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// startJanitor starts a janitor and returns when the placeholders are there.
func (w way) startJanitor(t testing.TB, base string, list []Placeholder, run ...*os.File) *exec.Cmd {
	t.Helper()
	cmd, ready := w.janitor(t, base, list, run...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready.w.Close()
	if _, err := ready.r.Read(make([]byte, 1)); err != nil {
		t.Fatalf("janitor: %v", err)
	}
	return cmd
}

type pipe struct{ r, w *os.File }

func newPipe(t testing.TB) pipe {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return pipe{r, w}
}

// janitor prepares a janitor, which in a user namespace runs as uid 0 there.
func (w way) janitor(t testing.TB, base string, list []Placeholder, run ...*os.File) (*exec.Cmd, pipe) {
	t.Helper()
	ready := newPipe(t)
	o := order{Do: "janitor", List: list, Root: 3, Ready: 4}
	cmd := exec.Command("/proc/self/exe")
	cmd.ExtraFiles = append([]*os.File{open(t, base), ready.w}, run...)
	for i := range run {
		o.Run = append(o.Run, 5+i)
	}
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = []string{orderEnv + "=" + string(text)}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if w.userns {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: int(w.uid), Size: w.size}}
		cmd.SysProcAttr.GidMappings = w.gids()
		cmd.SysProcAttr.GidMappingsEnableSetgroups = wide(t)
		cmd.SysProcAttr.Credential = &syscall.Credential{NoSetGroups: true}
	}
	cmd.Stderr = os.Stderr
	return cmd, ready
}

// TestRunEnds: placeholders vanish however a run ends, and its mounts work until then.
func TestRunEnds(t *testing.T) {
	hostTable(t)
	for _, w := range fewWays(t) {
		for _, end := range []string{"normal", "killed", "killed with others", "janitor killed"} {
			t.Run(w.name+"/"+end, func(t *testing.T) {
				root := tree(t, "/tmp", w.uid)
				before := snapshot(t, root.Name())
				list, err := Plan(full(root))
				if err != nil {
					t.Fatal(err)
				}
				alive := newPipe(t)
				janitor := w.startJanitor(t, root.Name(), list, alive.r)
				ready, hold := newPipe(t), newPipe(t)
				cmd := w.command(t, full(root), alive.w, "/bin/sh", "-c", "sleep 1000 & cat /proc/1/comm; cat; kill $!")
				cmd.Stdin, cmd.Stdout, cmd.Stderr = hold.r, ready.w, os.Stderr
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				alive.w.Close()
				ready.w.Close()
				if b := make([]byte, 3); true {
					if _, err := ready.r.Read(b); err != nil || string(b) != "sh\n" {
						t.Fatalf("inside: %q, %v", b, err)
					}
				}
				if !exists(root.Name(), "proc") {
					t.Error("no placeholder while the run lives")
				}
				switch end {
				case "normal":
					hold.w.Close()
				case "killed with others": // polite signals do not stop the janitor
					janitor.Process.Signal(unix.SIGTERM)
					janitor.Process.Signal(unix.SIGINT)
					fallthrough
				case "killed":
					cmd.Process.Kill()
				case "janitor killed":
					janitor.Process.Kill()
					janitor.Wait()
					if n, err := Sweep(root); n != 0 || err != nil {
						t.Errorf("swept %d of a living run, %v", n, err)
					}
					cmd.Process.Kill()
					cmd.Wait()
					if n, err := Sweep(root); n != len(list) || err != nil {
						t.Errorf("swept %d of %d, %v", n, len(list), err)
					}
					unchanged(t, root.Name(), before)
					return
				}
				cmd.Wait()
				if err := janitor.Wait(); err != nil {
					t.Errorf("janitor: %v", err)
				}
				unchanged(t, root.Name(), before)
			})
		}
	}
}

// TestAllKilledButJanitor kills the process that started everything, and the run, at once.
func TestAllKilledButJanitor(t *testing.T) {
	const victimEnv = "MOUNTS_TEST_VICTIM"
	w := ways(t)[0]
	if dir := os.Getenv(victimEnv); dir != "" {
		root := open(t, dir)
		list, err := Plan(full(root))
		if err != nil {
			t.Fatal(err)
		}
		alive := newPipe(t)
		w.startJanitor(t, dir, list, alive.r)
		cmd := w.command(t, full(root), alive.w, "/bin/sh", "-c", "cat /proc/1/comm; sleep 1000 & sleep 1000")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(os.Stderr, cmd.Process.Pid)
		time.Sleep(time.Hour)
	}
	hostTable(t)
	root := tree(t, "/tmp", w.uid)
	before := snapshot(t, root.Name())
	out := newPipe(t)
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), victimEnv+"="+root.Name())
	pids := newPipe(t)
	cmd.Stdout, cmd.Stderr = out.w, pids.w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.w.Close()
	pids.w.Close()
	var pid int
	var comm string
	_, err := fmt.Fscan(pids.r, &pid)
	if _, err2 := fmt.Fscan(out.r, &comm); err != nil || err2 != nil || comm != "sh" {
		t.Fatalf("victim: pid %d, %q, %v, %v", pid, comm, err, err2)
	}
	if !exists(root.Name(), "proc") {
		t.Error("no placeholder while the run lives")
	}
	cmd.Process.Kill()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Error(err)
	}
	cmd.Wait()
	// The janitor removes the placeholder and then puts the directory's time back.
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if now, err := trySnapshot(root.Name()); err == nil && slices.Equal(before, now) {
			break
		}
	}
	unchanged(t, root.Name(), before)
}

// TestJanitorKilled kills janitors at random moments: the next run's Sweep leaves the tree as it was.
func TestJanitorKilled(t *testing.T) {
	base := t.TempDir()
	grow(t, base, "etc/passwd")
	root := open(t, base)
	list, err := Plan(full(root))
	if err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, base)
	names := func(l []string) (out []string) {
		for _, s := range l {
			out = append(out, strings.Fields(s)[0])
		}
		return out
	}
	early, late := 0, 0
	for range 60 {
		alive := newPipe(t)
		cmd, ready := way{}.janitor(t, base, list, alive.r)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ready.w.Close()
		time.Sleep(time.Duration(rand.IntN(12000)) * time.Microsecond)
		cmd.Process.Kill()
		cmd.Wait()
		if n, _ := ready.r.Read(make([]byte, 1)); n == 0 {
			early++
		} else {
			late++
		}
		if _, err := Sweep(root); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(names(before), names(snapshot(t, base))); d != "" {
			t.Fatalf("left after Sweep:\n%s", d)
		}
		alive.r.Close()
		alive.w.Close()
	}
	t.Logf("%d killed before, %d after all placeholders were made", early, late)
}

// TestPidfd: the janitor takes a pidfd as well.
func TestPidfd(t *testing.T) {
	base := t.TempDir()
	before := snapshot(t, base)
	run := exec.Command("sleep", "1000")
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(run.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	pidfd := os.NewFile(uintptr(fd), "pidfd")
	defer pidfd.Close()
	janitor := way{}.startJanitor(t, base, bare, pidfd)
	run.Process.Kill()
	run.Wait()
	if err := janitor.Wait(); err != nil {
		t.Error(err)
	}
	unchanged(t, base, before)
}
