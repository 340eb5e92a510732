//go:build linux

package mounts

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// snapshot lists every name below dir with type, mode, size, mtime and mark.
func snapshot(t testing.TB, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		marked := "no mark"
		if _, err := unix.Lgetxattr(p, MarkXattr, nil); err == nil {
			marked = "marked"
		}
		rel, err := filepath.Rel(dir, p)
		list = append(list, fmt.Sprint(rel, " ", fi.Mode(), " ", fi.ModTime().UnixNano(), " ", marked))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// unchanged fails the test unless dir is as it was.
func unchanged(t testing.TB, dir string, before []string) {
	t.Helper()
	if d := cmp.Diff(before, snapshot(t, dir)); d != "" {
		t.Errorf("tree changed (-before +after):\n%s", d)
	}
}

// fdCount counts the open files of the test process.
func fdCount(t testing.TB) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

func exists(dir, name string) bool {
	_, err := os.Lstat(filepath.Join(dir, name))
	return err == nil
}

var bare = []Placeholder{
	{"proc", true}, {"sys", true}, {"dev", true}, {"etc", true}, {"etc/resolv.conf", false},
	{"usr", true}, {"usr/sbin", true}, {"usr/sbin/policy-rc.d", false},
}

func TestPlan(t *testing.T) {
	src := t.TempDir()
	grow(t, src, "dir/sub/", "file")
	dir, file := openBind(t, src+"/dir", "", false), openBind(t, src+"/file", "", false)
	to := func(b Bind, target string) Bind { b.Target = target; return b }
	for _, c := range []struct {
		name  string
		tree  []string
		binds []Bind
		want  []Placeholder // beyond the presets'
		fails string
	}{
		{name: "none", tree: rootNames},
		{name: "all", want: bare},
		{name: "dangling resolv.conf is a target", tree: []string{"dev/", "proc/", "sys/", "usr/sbin/policy-rc.d", "etc/resolv.conf -> /run/x"}},
		{name: "etc elsewhere", tree: []string{"dev/", "proc/", "sys/", "usr/sbin/policy-rc.d", "etc -> /e", "e/"}, want: []Placeholder{{"e/resolv.conf", false}}},
		{name: "bind", tree: rootNames, binds: []Bind{to(dir, "/a/b"), to(file, "a/f"), to(dir, "tmp")},
			want: []Placeholder{{"a", true}, {"a/b", true}, {"a/f", false}}},
		{name: "bind on dangling link", tree: append(rootNames, "l -> ../x/y"), binds: []Bind{to(file, "/l")}, want: []Placeholder{{"x", true}, {"x/y", false}}},
		{name: "bind in bind", tree: rootNames, binds: []Bind{to(dir, "tmp"), to(dir, "/tmp/sub")}},
		{name: "bind in bind by link", tree: append(rootNames, "l -> tmp/sub"), binds: []Bind{to(dir, "tmp"), to(dir, "/l")}},
		{name: "bind in dev", tree: rootNames, binds: []Bind{to(dir, "dev/x/y"), to(file, "/dev/shm/z")}},
		{name: "bind missing in bind", tree: rootNames, binds: []Bind{to(dir, "tmp"), to(dir, "/tmp/no")}, fails: "create it in " + src + "/dir"},
		{name: "bind below file", tree: rootNames, binds: []Bind{to(file, "etc/resolv.conf/x")}, fails: "not a directory"},
		{name: "file on directory", tree: rootNames, binds: []Bind{to(file, "tmp")}, fails: "is a directory"},
		{name: "directory on file", tree: append(rootNames, "f"), binds: []Bind{to(dir, "f")}, fails: "not a directory"},
		{name: "root", tree: rootNames, binds: []Bind{to(dir, "/..")}, fails: "cover the root"},
		{name: "dots behind nothing", tree: rootNames, binds: []Bind{to(dir, "/no/../tmp")}, fails: "no such file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := t.TempDir()
			grow(t, base, c.tree...)
			s := full(open(t, base))
			s.Binds = c.binds
			before, fds := snapshot(t, base), fdCount(t)
			got, err := Plan(s)
			if n := fdCount(t); n != fds {
				t.Errorf("%d files open, had %d", n, fds)
			}
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Errorf("got %v, %v; want %q", got, err, c.fails)
				}
				return
			}
			if d := cmp.Diff(c.want, got); err != nil || d != "" {
				t.Errorf("%v, -want +got:\n%s", err, d)
			}
			unchanged(t, base, before)
		})
	}
}

func TestMakeLeavesNoTrace(t *testing.T) {
	for _, on := range filesystems {
		t.Run(filepath.Base(on), func(t *testing.T) {
			base := tempOn(t, on)
			grow(t, base, "etc/passwd", "usr/")
			root := open(t, base)
			list, err := Plan(full(root))
			if err != nil {
				t.Fatal(err)
			}
			before, fds := snapshot(t, base), fdCount(t)
			m, err := Make(root, list)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range list {
				at := filepath.Join(base, p.Path)
				fi, err := os.Lstat(at)
				if err != nil || fi.IsDir() != p.Dir {
					t.Errorf("%s: %v, %v", p.Path, fi, err)
				}
				if ok, err := IsPlaceholder(open(t, at)); !ok || err != nil {
					t.Errorf("%s is no placeholder: %v", p.Path, err)
				}
			}
			if n, err := Sweep(root); n != 0 || err != nil {
				t.Errorf("swept %d of a living run, %v", n, err)
			}
			if err := m.Remove(); err != nil {
				t.Error(err)
			}
			unchanged(t, base, before)
			if n := fdCount(t) - len(list); n != fds { // those of IsPlaceholder stay until the end
				t.Errorf("%d files open, had %d", n, fds)
			}
		})
	}
}

// tempOn makes a temporary directory on a filesystem.
func tempOn(t testing.TB, on string) string {
	t.Helper()
	dir, err := os.MkdirTemp(on, "mounts-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestSharedPlaceholders(t *testing.T) {
	base := t.TempDir()
	root := open(t, base)
	before := snapshot(t, base)
	a, err := Make(root, bare)
	if err != nil {
		t.Fatal(err)
	}
	list, err := Plan(full(root))
	if d := cmp.Diff(bare, list); err != nil || d != "" {
		t.Fatalf("a second run does not see them: %v\n%s", err, d)
	}
	b, err := Make(root, list)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Remove(); err != nil {
		t.Error(err)
	}
	for _, p := range bare {
		if !exists(base, p.Path) {
			t.Errorf("%s is gone while a run uses it", p.Path)
		}
	}
	if err := b.Remove(); err != nil {
		t.Error(err)
	}
	unchanged(t, base, before)
}

// TestConcurrentRuns: while a run holds placeholders they exist, and the last one removes them.
func TestConcurrentRuns(t *testing.T) {
	base := t.TempDir()
	root := open(t, base)
	before := snapshot(t, base)[1:] // the root's time may lose a race against itself, see keepMtime
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				m, err := Make(root, bare)
				if err != nil {
					t.Error(err)
					return
				}
				for _, p := range bare {
					if !exists(base, p.Path) {
						t.Errorf("%s is gone while a run uses it", p.Path)
					}
				}
				if err := m.Remove(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if d := cmp.Diff(before, snapshot(t, base)[1:]); d != "" {
		t.Error(d)
	}
}

func TestFilledPlaceholdersStay(t *testing.T) {
	base := t.TempDir()
	root := open(t, base)
	m, err := Make(root, bare)
	if err != nil {
		t.Fatal(err)
	}
	grow(t, base, "etc/hosts")
	if err := os.WriteFile(base+"/usr/sbin/policy-rc.d", []byte("x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(base + "/sys"); err != nil {
		t.Fatal(err)
	}
	grow(t, base, "sys/")
	if err := m.Remove(); err != nil {
		t.Error(err)
	}
	var got []string
	for _, l := range snapshot(t, base)[1:] {
		f := strings.Fields(l)
		got = append(got, f[0]+" "+strings.Join(f[3:], " "))
	}
	want := []string{"etc no mark", "etc/hosts no mark", "sys no mark", "usr no mark", "usr/sbin no mark", "usr/sbin/policy-rc.d marked"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if ok, err := IsPlaceholder(open(t, base+"/usr/sbin/policy-rc.d")); ok || err != nil {
		t.Errorf("a file with content is a placeholder, %v", err)
	}
}

func TestMakeFailsWhole(t *testing.T) {
	base := t.TempDir()
	grow(t, base, "file", "evil -> /tmp")
	root := open(t, base)
	before, fds := snapshot(t, base), fdCount(t)
	for _, p := range []string{"file/x", "evil/x", "no/x"} {
		m, err := Make(root, append(slices.Clone(bare), Placeholder{p, true}))
		if err == nil {
			t.Errorf("%s: made", p)
			m.Remove()
		}
	}
	unchanged(t, base, before)
	if n := fdCount(t); n != fds {
		t.Errorf("%d files open, had %d", n, fds)
	}
}

// TestSweep plants leftovers and things that only look like some.
func TestSweep(t *testing.T) {
	base := t.TempDir()
	grow(t, base, "keep/proc/", "etc/passwd", "l -> /", "usr/")
	before := snapshot(t, base)
	root := open(t, base)
	list := append(slices.Clone(bare), Placeholder{"bind", true}, Placeholder{"bind/deep", true}, Placeholder{"bind/deep/f", false})
	list = slices.DeleteFunc(list, func(p Placeholder) bool { return p.Path == "etc" || p.Path == "usr" })
	m, err := Make(root, list)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range m.held { // what the kernel does for a dead janitor
		h.file.Close()
	}
	err = keepMtime(m.root, func() error {
		return errors.Join(os.Mkdir(base+"/"+tempPrefix+"A", 0o700), os.WriteFile(base+"/"+tempPrefix+"B", nil, 0o600))
	})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := Sweep(root, "/bind/deep/f", "/l/l/no", "/etc/passwd/x"); n != len(list)+2 || err != nil {
		t.Errorf("swept %d, %v; want %d", n, err, len(list)+2)
	}
	unchanged(t, base, before)
	grow(t, base, "proc/", "dev/", tempPrefix+"C")
	before = snapshot(t, base)
	if n, err := Sweep(root); n != 0 || err != nil {
		t.Errorf("swept %d ordinary directories, %v", n, err)
	}
	unchanged(t, base, before)
}

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
		for _, end := range []string{"normal", "killed", "killed with others"} {
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
	for end := time.Now().Add(10 * time.Second); exists(root.Name(), "proc") && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
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
