package userns

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nsferry/nsferry/tier"

	"golang.org/x/sys/unix"
)

// counter prints a line for each signal it gets, until TERM.
const counter = `for s in HUP INT QUIT USR1 USR2 WINCH CONT; do trap "echo $s" $s; done; trap 'echo TERM; exit 5' TERM; echo up
while :; do sleep 0.02; done`

// startCounter runs counter inside and returns the runner and its output, past the first line.
func startCounter(t *testing.T) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	testEnv(t)
	cmd := runnerCmd(t, "bash", "-c", counter)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	r := bufio.NewReader(out)
	if line, err := r.ReadString('\n'); line != "up\n" {
		t.Fatalf("%q, %v", line, err)
	}
	return cmd, r
}

func TestSignalsArriveOnce(t *testing.T) {
	for name, sign := range map[string]int{"to the outer process alone": 1, "to its process group": -1} {
		t.Run(name, func(t *testing.T) {
			cmd, out := startCounter(t)
			want := ""
			for _, s := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGTERM} {
				if err := syscall.Kill(sign*cmd.Process.Pid, s); err != nil {
					t.Fatal(err)
				}
				want += strings.TrimPrefix(unix.SignalName(s), "SIG") + "\n"
				time.Sleep(200 * time.Millisecond)
			}
			got, _ := io.ReadAll(out)
			_ = cmd.Wait()
			if string(got) != want || cmd.ProcessState.ExitCode() != 5 {
				t.Errorf("the command got %q and the status is %d; want %q and 5", got, cmd.ProcessState.ExitCode(), want)
			}
		})
	}
}

// state is the letter of a process's state (proc(5)).
func state(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return rest[:1]
}

func TestStopAndContinue(t *testing.T) {
	cmd, out := startCounter(t)
	for range 3 {
		if err := cmd.Process.Signal(syscall.SIGTSTP); err != nil {
			t.Fatal(err)
		}
		eventually(t, "outer process has stopped", func() bool { return state(cmd.Process.Pid) == "T" })
		if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		if line, err := out.ReadString('\n'); line != "CONT\n" {
			t.Fatalf("the command got %q, %v", line, err)
		}
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if rest, _ := io.ReadAll(out); string(rest) != "TERM\n" {
		t.Errorf("at last the command got %q", rest)
	}
	_ = cmd.Wait()
}

// TestIgnoredSignalsStayIgnored: nohup and a background job's signals reach through two execs and two Go runtimes.
func TestIgnoredSignalsStayIgnored(t *testing.T) {
	testEnv(t)
	for _, tt := range []struct {
		trap string
		want uint64
	}{
		{"", 0},
		{"trap '' HUP;", 1 << (syscall.SIGHUP - 1)},
		{"trap '' INT QUIT;", 1<<(syscall.SIGINT-1) | 1<<(syscall.SIGQUIT-1)},
		{"trap '' TSTP;", 1 << (syscall.SIGTSTP - 1)},
	} {
		run := runnerCmd(t, "sed", "-n", `s/SigIgn:\t//p`, "/proc/self/status")
		cmd := exec.Command("sh", "-c", tt.trap+` exec "$1"`, "sh", testBinary(t))
		cmd.Env, cmd.Stderr = run.Env, os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		ignored, err := strconv.ParseUint(strings.TrimSpace(string(out)), 16, 64)
		// Real-time signals, and the two below them that C libraries use, may be ignored by whoever started the tests.
		if ignored &= 1<<31 - 1; err != nil || ignored != tt.want {
			t.Errorf("%q: the command ignores %#x, %v; want %#x", tt.trap, ignored, err, tt.want)
		}
	}
}

func testBinary(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

// terminal is the master side of a new pseudo terminal, and the slave.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	m, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		tier.Have(t, false, "pseudo terminal: "+err.Error())
	}
	fd := int(m.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	s, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m, s
}

// TestTerminal has a conversation: Ctrl-C arrives once, an interactive shell inside has job control, and afterwards the
// caller's shell can read from the terminal again.
func TestTerminal(t *testing.T) {
	testEnv(t)
	master, slave := terminal(t)
	inner := runnerCmd(t, "bash", "--norc", "--noediting", "-i")
	trap := runnerCmd(t, "bash", "-c", `trap 'echo "<INT>"' INT; echo "<up>"; for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.05; done; echo "<done>"`)
	script := "trap : INT; A=$1; B=$2; exe=$3; export " + runnerVar + "\n" + runnerVar + `=$A "$exe"; echo "<status $?>"; ` +
		runnerVar + `=$B "$exe"; echo "<status $?>"; read -r x; echo "<read $x>"`
	cmd := exec.Command("sh", "-c", script, "sh", last(trap.Env), last(inner.Env), testBinary(t))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.Env = append(os.Environ(), "PS1=inside> ")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	talk := &conversation{t: t, tty: master, in: make(chan string, 1000)}
	go talk.listen()
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()

	talk.expect("<up>")
	talk.say("\x03")
	talk.expect("<INT>")
	talk.expect("<done>")
	if n := strings.Count(talk.text, "<INT>"); n != 1 {
		t.Errorf("Ctrl-C arrived %d times", n)
	}
	talk.expect("<status 0>")

	talk.expect("inside> ")
	talk.say("sleep 111.5\n")
	time.Sleep(300 * time.Millisecond)
	talk.say("\x1a")
	talk.expect("Stopped")
	talk.expect("inside> ")
	talk.say("fg\n")
	time.Sleep(300 * time.Millisecond)
	talk.say("\x03")
	talk.expect("inside> ")
	talk.say("exit 7\n")
	talk.expect("<status 7>")
	talk.say("word\n")
	talk.expect("<read word>")
}

// last is the value of the last variable.
func last(env []string) string {
	_, v, _ := strings.Cut(env[len(env)-1], "=")
	return v
}

// conversation is expect(1) in small.
type conversation struct {
	t    *testing.T
	tty  *os.File
	in   chan string
	text string // all that has been read
	from int    // what has been expected already
}

func (c *conversation) listen() {
	defer close(c.in)
	buf := make([]byte, 4096)
	for {
		n, err := c.tty.Read(buf)
		c.in <- string(buf[:n])
		if err != nil {
			return
		}
	}
}

func (c *conversation) say(s string) {
	if _, err := c.tty.WriteString(s); err != nil {
		c.t.Fatal(err)
	}
}

// expect waits for s behind what was expected before.
func (c *conversation) expect(s string) {
	c.t.Helper()
	limit := time.After(10 * time.Second)
	for {
		if i := strings.Index(c.text[c.from:], s); i >= 0 {
			c.from += i + len(s)
			return
		}
		select {
		case more, ok := <-c.in:
			if !ok {
				c.t.Fatalf("terminal closed before %q:\n%s", s, c.text)
			}
			c.text += more
		case <-limit:
			c.t.Fatalf("no %q:\n%s", s, c.text)
		}
	}
}
