package userns

import (
	"bufio"
	"bytes"
	"context"
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

	"github.com/nsferry/nsferry/tier"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// output runs a command inside and returns its stdout and status.
func output(t testing.TB, e *Env, s Spec) (string, int, error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	read := make(chan string)
	go func() {
		b, _ := io.ReadAll(r)
		read <- string(b)
	}()
	s.Stdout = w
	code, err := e.Exec(t.Context(), s)
	w.Close()
	return <-read, code, err
}

func sh(script string) Spec { return Spec{Argv: []string{"sh", "-c", script}} }

func TestExitStatus(t *testing.T) {
	e := testEnv(t)
	dir := t.TempDir()
	makeReachable(t, dir)
	write := func(name, text string, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, tt := range []struct {
		name string
		argv []string
		want int
		err  string
	}{
		{"true", []string{"true"}, 0, ""},
		{"false", []string{"false"}, 1, ""},
		{"255", []string{"sh", "-c", "exit 255"}, 255, ""},
		{"125 of the command", []string{"sh", "-c", "exit 125"}, 125, ""},
		{"TERM", []string{"sh", "-c", "kill -TERM $$"}, 128 + 15, ""},
		{"KILL", []string{"sh", "-c", "kill -KILL $$"}, 128 + 9, ""},
		{"SEGV", []string{"sh", "-c", "kill -SEGV $$"}, 128 + 11, ""},
		{"real-time signal", []string{"sh", "-c", "kill -40 $$"}, 128 + 40, ""},
		{"absent", []string{"no-such-command-x"}, 127, "no-such-command-x: command not found"},
		{"absent path", []string{"/no/such"}, 127, "/no/such: command not found"},
		{"through a file", []string{"/dev/null/x"}, 127, "/dev/null/x: command not found"},
		{"not executable", []string{write("plain", "exit 0\n", 0o644)}, 126, "permission denied"},
		{"directory", []string{"/"}, 126, "permission denied"},
		{"bad interpreter", []string{write("badint", "#!/no/such\n", 0o755)}, 127, "not found"},
		{"garbage binary", []string{write("garbage", "\x7fELF garbage", 0o755)}, 2, ""}, // as execvp: sh reads it
		{"script without #!", []string{write("noint", "exit $1\n", 0o755), "7"}, 7, ""},
		{"nothing", nil, ExitUsage, "no command"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer null.Close()
			got, err := e.Exec(t.Context(), Spec{Argv: tt.argv, Stderr: null})
			if tt.name == "garbage binary" && (got == 127 || got == 126) && err == nil {
				got = 2 // which status sh has for garbage is the shell's business
			}
			if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %d, %v; want %d, %q", got, err, tt.want, tt.err)
			}
		})
	}
}

func TestForbiddenCommandOnPathIsNotTheLast(t *testing.T) {
	e := testEnv(t)
	dir := t.TempDir()
	makeReachable(t, dir)
	for name, mode := range map[string]os.FileMode{"a/tool": 0o644, "b/tool": 0o755, "a/only": 0o644} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte("#!/bin/sh\necho $0\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	path := "PATH=" + filepath.Join(dir, "a") + ":" + filepath.Join(dir, "b") + ":" + os.Getenv("PATH")
	out, code, err := output(t, e, Spec{Argv: []string{"tool"}, Env: []string{path}})
	if out != filepath.Join(dir, "b/tool")+"\n" || code != 0 || err != nil {
		t.Errorf("tool: %q, %d, %v", out, code, err)
	}
	if _, code, err := output(t, e, Spec{Argv: []string{"only"}, Env: []string{path}}); code != ExitNotExec {
		t.Errorf("only: %d, %v", code, err)
	}
}

func TestCommandIsRootInThePlainMap(t *testing.T) {
	e := testEnv(t)
	out, code, err := output(t, e, sh(`id -u; id -g; id -G; cat /proc/self/uid_map | xargs; sed -n 's/Cap\(Inh\|Amb\):\t//p' /proc/self/status`))
	want := "0\n0\n0\n" + mapText(e.Plain.UID.Extents()) + "\n0000000000000000\n0000000000000000\n"
	if code != 0 || err != nil || cmp.Diff(want, out) != "" {
		t.Errorf("%d, %v (-want +got):\n%s", code, err, cmp.Diff(want, out))
	}
}

func TestStdinIsPassedAsItIs(t *testing.T) {
	e := testEnv(t)
	in := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(in, []byte("echo got it\nexit 6\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(in)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out, code, err := output(t, e, Spec{Argv: []string{"sh", "-s"}, Stdin: f})
	if out != "got it\n" || code != 6 || err != nil {
		t.Errorf("%q, %d, %v", out, code, err)
	}
	// What the command has not read is the caller's: nothing of ours reads ahead.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fmt.Fprint(w, "first\nsecond\n")
	w.Close()
	if _, _, err := output(t, e, Spec{Argv: []string{"sh", "-c", "read a"}, Stdin: r}); err != nil {
		t.Fatal(err)
	}
	if rest, _ := io.ReadAll(r); string(rest) != "second\n" {
		t.Errorf("left in the pipe: %q", rest)
	}
}

func TestDescriptors(t *testing.T) {
	e := testEnv(t)
	f, err := os.CreateTemp(t.TempDir(), "kept")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const kept, stray = 47, 48
	for _, fd := range []int{kept, stray} {
		if err := unix.Dup3(int(f.Fd()), fd, 0); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
	}
	s := sh(`for n in $(ls /proc/self/fd); do [ $n -gt 2 ] && echo $n; done; [ $(ulimit -n) = "$SOFT" ] && echo limit; bash -c 'echo in >&47'`)
	s.KeepFDs = []int{kept}
	s.Env = []string{"SOFT=" + callerNofile(t)}
	out, code, err := output(t, e, s)
	if code != 0 || err != nil {
		t.Fatal(code, err)
	}
	if want := "3\n47\nlimit\n"; out != want { // 3 is of ls itself
		t.Errorf("descriptors: %q, want %q", out, want)
	}
	if text, _ := os.ReadFile(f.Name()); string(text) != "in\n" {
		t.Errorf("written through the kept one: %q", text)
	}
	for _, bad := range []int{0, 1, 99, int(f.Fd())} {
		if code, err := e.Exec(t.Context(), Spec{Argv: []string{"true"}, KeepFDs: []int{bad}}); code != ExitUsage || ExitCode(err) != ExitUsage {
			t.Errorf("keep %d: %d, %v", bad, code, err)
		}
	}
}

// callerNofile is the soft limit that this process was started with, which the Go runtime has raised since: a child of
// os/exec gets it back.
func callerNofile(t *testing.T) string {
	out, err := exec.Command("sh", "-c", "ulimit -n").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// TestLockIsLetGo: a lock that the command closes must not live on in init or in the outer process's duplicates.
func TestLockIsLetGo(t *testing.T) {
	if _, err := exec.LookPath("flock"); err != nil {
		tier.Have(t, false, "flock: "+err.Error())
	}
	testEnv(t)
	lock := filepath.Join(t.TempDir(), "lock")
	f, err := os.Create(lock)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	// The runner has the lock only as stray descriptor 3 and keeps it for itself; the command has none.
	cmd := runnerCmd(t, "sh", "-c", "echo up; sleep 300 <&- # lock-marker")
	cmd.ExtraFiles = []*os.File{f}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	g, err := os.Open(lock)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	eventually(t, "lock is free", func() bool { return unix.Flock(int(g.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil })
}

func TestOrphansAreReapedAndEnd(t *testing.T) {
	e := testEnv(t)
	// Fifty children are orphaned, end, and must not stay as zombies of init.
	out, code, err := output(t, e, sh(`for i in $(seq 50); do (sh -c 'sleep 0.01' & ) ; done; sleep 0.3
		n=0; for s in /proc/[0-9]*/stat; do read -r pid comm state ppid rest <$s || continue; [ "$ppid" = `+"$(awk '/PPid/ {print $2}' /proc/$$/status)"+` ] && [ "$state" = Z ] && n=$((n+1)); done 2>/dev/null; echo $n`))
	if out != "0\n" || code != 0 || err != nil {
		t.Errorf("zombies: %q, %d, %v", out, code, err)
	}
	marker := fmt.Sprintf("3%d.0625", os.Getpid())
	if _, code, err := output(t, e, sh("(trap '' TERM HUP; setsid sleep "+marker+" >/dev/null 2>&1 &) ; exit 3")); code != 3 || err != nil {
		t.Fatal(code, err)
	}
	if !gone(marker) {
		t.Error("a daemon outlived the command")
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("TMPDIR", "/caller/tmp")
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/1")
	t.Setenv("CALLER", "x=y")
	env := func(s Spec) map[string]string {
		m := map[string]string{}
		for _, kv := range mergeEnv(s.environment(), s.Env) {
			name, v, _ := strings.Cut(kv, "=")
			if _, twice := m[name]; twice {
				t.Errorf("%s is there twice", name)
			}
			m[name] = v
		}
		return m
	}
	plain := env(Spec{Env: []string{"CALLER=2", "CALLER=3", "NEW="}})
	if plain["CALLER"] != "3" || plain["TMPDIR"] != "/caller/tmp" || plain["PATH"] != os.Getenv("PATH") {
		t.Errorf("without a rootfs: %v", plain)
	}
	if v, ok := plain["NEW"]; !ok || v != "" {
		t.Error("an empty value is lost")
	}
	root, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	s := Spec{}
	s.Mounts.Root = root
	in := env(s)
	for name, want := range map[string]string{"PATH": rootPath, "HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/sh", "CALLER": "x=y"} {
		if in[name] != want {
			t.Errorf("in a rootfs %s=%q, want %q", name, in[name], want)
		}
	}
	for _, name := range []string{"TMPDIR", "XDG_RUNTIME_DIR"} {
		if _, ok := in[name]; ok {
			t.Errorf("in a rootfs %s is still set", name)
		}
	}
	s.CleanEnv = true
	if clean := env(s); len(clean) != 5 {
		t.Errorf("clean environment in a rootfs: %v", clean)
	}
	if clean := env(Spec{CleanEnv: true}); len(clean) != 0 {
		t.Errorf("clean environment: %v", clean)
	}
}

func TestCancelledCommandEnds(t *testing.T) {
	e := testEnv(t)
	for name, tt := range map[string]struct {
		script string
		want   int
	}{
		"cleans up": {"trap 'exit 9' TERM; echo up; while :; do sleep 0.01; done", 9},
		"stubborn":  {"trap '' TERM; echo up; while :; do sleep 0.01; done", 128 + 9},
	} {
		t.Run(name, func(t *testing.T) {
			e := *e
			e.Grace = 200 * time.Millisecond
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				_, _ = bufio.NewReader(r).ReadString('\n')
				cancel()
			}()
			s := sh(tt.script)
			s.Stdout = w
			code, err := e.Exec(ctx, s)
			w.Close()
			if code != tt.want || err != nil {
				t.Errorf("got %d, %v; want %d", code, err, tt.want)
			}
		})
	}
}

// TestKillLeavesNothing kills outer, init or command at several moments: no process may be left.
func TestKillLeavesNothing(t *testing.T) {
	testEnv(t)
	for i := range 12 {
		marker := fmt.Sprintf("3%d.%d5", os.Getpid(), i)
		cmd := runnerCmd(t, "sh", "-c", "(setsid sleep "+marker+" &); sleep "+marker)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i) * 2 * time.Millisecond)
		victim := cmd.Process.Pid
		if i%2 == 1 { // its child: init, or newuidmap before that
			if kids, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", victim)); len(kids) > 0 {
				_, _ = fmt.Sscan(string(kids), &victim)
			}
		}
		if err := syscall.Kill(victim, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			if !errors.Is(err, syscall.EPERM) { // newuidmap is root's
				t.Fatal(err)
			}
			_ = cmd.Process.Kill()
		}
		var out bytes.Buffer
		if i%2 == 1 {
			time.AfterFunc(300*time.Millisecond, func() { _ = cmd.Process.Kill() })
		}
		_ = cmd.Wait()
		eventually(t, fmt.Sprintf("round %d: nothing left %s", i, out.String()), func() bool { return gone(marker) })
	}
}
