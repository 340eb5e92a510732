package userns

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/nsferry/nsferry/idshift"
	"golang.org/x/sys/unix"
)

// role is what an inner process is for.
type role int

const (
	roleHalf    role = iota // a half: own mount namespace, dies with us
	roleInit                // pid 1 of a foreign command: own pid, ipc and uts namespaces, dies with us. Its mount namespace comes later, from inside
	roleJanitor             // cleans up after a foreign command and so outlives us, in a session of its own
)

// session is one inner process to be made.
type session struct {
	role    role
	name    string          // for messages and the process list
	mapping idshift.Mapping // the map of its user namespace, unless Env.Direct
	stdio   [3]*os.File     // nil is /dev/null; stderr's nil is our own
	files   []*os.File      // passed at controlFD+1 and up
	start   startMessage
}

// spawnError is a namespace that could not be made: which step failed, and what a tool that took the step said.
type spawnError struct {
	step   string // "clone", "uid_map", "gid_map", or a setupFailure's step
	err    error
	output string
}

func (s *spawnError) Error() string {
	msg := s.step + ": " + s.err.Error()
	if s.output != "" {
		msg += " (" + s.output + ")"
	}
	return msg
}

func (s *spawnError) Unwrap() error { return s.err }

// child is a running inner process and our end of its control socket.
type child struct {
	cmd   *exec.Cmd
	sock  *os.File
	lines *json.Decoder // of sock
	// pidfd is of a process of roleInit, or -1 where the kernel has none. Wait closes it, unless somebody has taken it.
	pidfd int
	done  chan struct{} // closed when the process has been waited for
}

// spawn starts this binary again as an inner process and sends it s.start. The caller must call wait.
func (e *Env) spawn(s session) (*child, error) {
	c, err := e.begin(s)
	if err != nil {
		return nil, err
	}
	if err := e.release(c, s); err != nil {
		c.kill()
		c.wait()
		return nil, err
	}
	return c, nil
}

// begin starts the process and writes its maps. It then waits for release. The caller must call wait.
func (e *Env) begin(s session) (*child, error) {
	c, theirs, err := e.command(s)
	if err != nil {
		return nil, err
	}
	err = c.launch()
	theirs.Close()
	if err != nil {
		c.sock.Close()
		return nil, &spawnError{step: "clone", err: err}
	}
	if !e.Direct {
		if err := e.writeMaps(c.cmd.Process.Pid, s.mapping); err != nil {
			c.kill()
			c.wait()
			return nil, err
		}
	}
	return c, nil
}

// release sends a process what it is to do. One that died meanwhile is no error; that shows when its answer is read.
func (e *Env) release(c *child, s session) error {
	s.start.UserNS, s.start.Grace, s.start.Outlives = !e.Direct, e.grace(), s.role == roleJanitor
	for _, f := range s.files {
		s.start.Files = append(s.start.Files, f.Name())
	}
	if err := c.send(s.start); err != nil && !isDeadPeer(err) {
		return err
	}
	return nil
}

// command prepares the process and its control socket, whose far end is returned too.
func (e *Env) command(s session) (*child, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "control socket")
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		theirs.Close()
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	c := &child{sock: os.NewFile(uintptr(fds[0]), "control socket"), done: make(chan struct{})}

	c.pidfd = -1
	c.lines = json.NewDecoder(c.sock)
	attr := &syscall.SysProcAttr{}
	switch s.role {
	case roleHalf:
		attr.Cloneflags, attr.Pdeathsig = unix.CLONE_NEWNS, syscall.SIGKILL
	case roleInit:
		attr.Cloneflags, attr.Pdeathsig = unix.CLONE_NEWPID|unix.CLONE_NEWIPC|unix.CLONE_NEWUTS, syscall.SIGKILL
		attr.PidFD = &c.pidfd
	case roleJanitor:
		attr.Setsid = true
	}
	if !e.Direct {
		attr.Cloneflags |= unix.CLONE_NEWUSER
		if attr.AmbientCaps, err = e.sys.allCaps(); err != nil {
			c.sock.Close()
			theirs.Close()
			return nil, nil, err
		}
	}
	c.cmd = &exec.Cmd{
		// Not os.Executable: the link works for a binary that was replaced or lies where only we may look.
		Path:        "/proc/self/exe",
		Args:        []string{innerArg0, s.name},
		Env:         innerEnv(),
		Stderr:      os.Stderr,
		ExtraFiles:  append([]*os.File{theirs}, s.files...),
		SysProcAttr: attr,
	}
	// A nil *os.File in an interface would not be nil: /dev/null is asked for by leaving the field alone.
	if s.stdio[0] != nil {
		c.cmd.Stdin = s.stdio[0]
	}
	if s.stdio[1] != nil {
		c.cmd.Stdout = s.stdio[1]
	}
	if s.stdio[2] != nil {
		c.cmd.Stderr = s.stdio[2]
	}
	return c, theirs, nil
}

// innerEnv is the whole environment of an inner process: what steers the Go runtime, and nothing of the caller's.
func innerEnv() []string {
	env := []string{"LC_ALL=C"}
	for _, name := range []string{"GODEBUG", "GOMAXPROCS", "GOMEMLIMIT", "GOGC", "GOTRACEBACK", "GOCOVERDIR"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// allCaps lists every capability that the kernel knows.
func (s System) allCaps() ([]uintptr, error) {
	last, err := strconv.Atoi(s.sysctl("kernel/cap_last_cap"))
	if err != nil {
		return nil, &EnvError{ID: "proc", What: "kernel.cap_last_cap cannot be read", Err: err, Remedy: "mount proc at /proc"}
	}
	caps := make([]uintptr, last+1)
	for i := range caps {
		caps[i] = uintptr(i)
	}
	return caps, nil
}

// launch starts the process and waits for it in a goroutine of its own. That goroutine keeps its thread: the kernel sends the
// parent-death signal when the *thread* that forked ends (prctl(2)), and the runtime may end any thread that is not locked.
func (c *child) launch() error {
	started := make(chan error, 1)
	go func() {
		defer close(c.done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.cmd.Start()
		started <- err
		if err == nil {
			// The status is in ProcessState; its meaning is the caller's.
			_ = c.cmd.Wait()
		}
	}()
	return <-started
}

// send writes one line down.
func (c *child) send(m any) error {
	line, err := marshal(m)
	if err != nil {
		return err
	}
	_, err = c.sock.Write(append(line, '\n'))
	return err
}

// cancel tells the process to stop: it reads end of file but can still answer.
func (c *child) cancel() {
	raw, err := c.sock.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_WR) })
	}
	if err != nil {
		c.kill() // the socket is gone; nothing else reaches the process
	}
}

// kill ends the process at once, and with it a pid namespace that it is the init of.
func (c *child) kill() {
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		panic("userns: internal error: kill own child: " + err.Error())
	}
}

// wait waits for the end of the process, closes the socket and returns how it ended.
func (c *child) wait() syscall.WaitStatus {
	<-c.done
	c.sock.Close()
	if c.pidfd >= 0 {
		unix.Close(c.pidfd)
		c.pidfd = -1
	}
	return c.cmd.ProcessState.Sys().(syscall.WaitStatus)
}

// afterGrace kills the process when it has not ended in time.
func (c *child) afterGrace(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		c.kill()
	case <-c.done:
	}
}
