package userns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nsferry/nsferry/idshift/userns/mounts"
	"github.com/nsferry/nsferry/tier"
)

// runnerVar makes the test binary an nsferry-like program: it holds a command line as JSON, which is run by Exec.
const runnerVar = "USERNS_TEST_RUN"

func TestMain(m *testing.M) {
	Main(whoami, echo, fails, waits, panics, dies, upper, crossing, mounting, listRest, closeDir, wire)
	if os.Args[0] == "probe" {
		os.Exit(lookAround())
	}
	if spec := os.Getenv(runnerVar); spec != "" {
		os.Exit(runner(spec))
	}
	before := openFDs()
	code := m.Run()
	if after := openFDs(); code == 0 && after != before {
		fmt.Fprintf(os.Stderr, "descriptors leaked:\nbefore:\n%s\nafter:\n%s\n", before, after)
		code = 1
	}
	os.Exit(code)
}

// runner is the outer process of tests that kill or signal it.
func runner(spec string) int {
	os.Unsetenv(runnerVar)
	var s struct {
		Argv []string
		Half bool
		Root string
	}
	err := json.Unmarshal([]byte(spec), &s)
	var e *Env
	if err == nil {
		e, err = NewEnv(testOptions())
	}
	if err == nil && s.Half {
		_, err = waits.Run(context.Background(), e, waitArgs{Stubborn: true}, func(m json.RawMessage) { fmt.Println(string(m)) })
	}
	code := 0
	if err == nil && !s.Half {
		spec := Spec{Argv: s.Argv}
		if s.Root != "" {
			spec.Mounts = mounts.Spec{Dev: true, Shm: true, Proc: true, Sys: true, ResolvConf: []byte("# resolv\n")}
			if spec.Mounts.Root, err = os.Open(s.Root); err != nil {
				fmt.Fprintln(os.Stderr, "nsferry:", err)
				return ExitOwn
			}
		}
		code, err = e.Exec(context.Background(), spec)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "nsferry:", err)
		if code == 0 {
			code = ExitCode(err)
		}
	}
	return code
}

// testOptions ask for a real namespace: from the user's own sub-ids, or as root from a range that nobody needs.
func testOptions() Options {
	if os.Getuid() == 0 {
		return Options{Mode: "unshare", Map: "0:3000000000:65536"}
	}
	return Options{Mode: "unshare"}
}

func testEnv(t testing.TB) *Env {
	t.Helper()
	e, err := NewEnv(testOptions())
	if err != nil {
		tier.Have(t, false, "no namespace for this user: "+err.Error())
	}
	e.Grace = 2 * time.Second
	return e
}

// openFDs lists what is open, without the Go runtime's own: its poller, and the cgroup's CPU limit.
func openFDs() string {
	runtime.GC()
	var b strings.Builder
	for fd := range 256 {
		to, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		if err == nil && !strings.HasPrefix(to, "anon_inode:") && !strings.HasPrefix(to, "/sys/fs/cgroup/") {
			fmt.Fprintf(&b, "%d %s\n", fd, to)
		}
	}
	return b.String()
}

// runnerCmd prepares a runner process in a process group of its own.
func runnerCmd(t testing.TB, argv ...string) *exec.Cmd {
	t.Helper()
	spec, err := json.Marshal(map[string]any{"Argv": argv})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), runnerVar+"="+string(spec))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL} // a test that times out leaves nothing
	cmd.Stderr = os.Stderr
	return cmd
}

// eventually waits up to ten seconds for what to become true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not within ten seconds: %s", what)
}

// gone tells whether no process has the marker among its arguments.
func gone(marker string) bool {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return false
	}
	for _, d := range dirs {
		line, err := os.ReadFile("/proc/" + d.Name() + "/cmdline")
		if err == nil && strings.Contains(string(line), marker) {
			return false
		}
	}
	return true
}

func isErrno(err error, errno syscall.Errno) bool { return errors.Is(err, errno) }

// threadCaps reads one capability field of every thread of this process.
func threadCaps(field string) []string {
	var all []string
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return []string{err.Error()}
	}
	for _, t := range tasks {
		text, err := os.ReadFile("/proc/self/task/" + t.Name() + "/status")
		if err != nil {
			continue // the thread has ended
		}
		for line := range strings.Lines(string(text)) {
			if v, ok := strings.CutPrefix(line, field+":"); ok {
				all = append(all, strings.TrimSpace(v))
			}
		}
	}
	return all
}

// cgoBuild tells a test binary with cgo, which only the race detector makes: it is dynamic, and credentials of all threads
// cannot be set by system call.
func cgoBuild() bool {
	_, _, errno := syscall.AllThreadsSyscall(syscall.SYS_GETUID, 0, 0, 0)
	return errno == syscall.ENOTSUP
}
