package userns

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/nsferry/nsferry/idshift/userns/mounts"
	"golang.org/x/sys/unix"
)

// graceOfInit is what init gets on top of the command's grace to report its end.
const graceOfInit = time.Second

// initMessage is what init is to do.
type initMessage struct {
	Argv     []string      `json:"argv"`
	Env      []string      `json:"env"`      // inherited and preset
	Override []string      `json:"override"` // over everything
	Keep     []int         `json:"keep"`     // numbers for the first len(Keep) files
	Ignored  []int         `json:"ignored"`  // signals that the command finds ignored
	Mounts   mountsMessage `json:"mounts"`
}

// serveInit is pid 1 of a foreign command: it mounts, starts the command, passes signals on, reaps, and reports. Its
// own end is the end of every process in the pid namespace (pid_namespaces(7)). It is called on a locked thread, which
// alone is in the new mount namespace and root.
func serveInit(up *upLink, dec *json.Decoder, start startMessage, files []*os.File, spec mounts.Spec) int {
	msg := start.Init
	for _, sig := range msg.Ignored {
		signal.Ignore(syscall.Signal(sig))
	}
	own := make(chan os.Signal, 64)
	signal.Notify(own, forwarded(msg.Ignored)...)

	// CLONE_NEWNS implies CLONE_FS: root and working directory of this thread become its own.
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return refuse(up, ExitOwn, os.NewSyscallError("unshare", err))
	}
	res, err := mounts.Setup(spec)
	if err != nil {
		return refuse(up, ExitOwn, err)
	}
	for _, note := range res.Notes {
		_ = up.send(upMessage{Note: note})
	}
	// What is mounted has served; the command, which could find it in /proc, gets at it by its mounts alone. Binds are theirs.
	mounted := slices.Concat(files[len(msg.Keep):], []*os.File{spec.Root})
	if spec.Overlay != nil {
		mounted = append(mounted, spec.Overlay.Scratch)
	}
	for _, f := range mounted {
		if f != nil && !slices.Contains(res.Hold, f) {
			f.Close()
		}
	}
	files = files[:len(msg.Keep)]
	env := mergeEnv(mergeEnv(msg.Env, res.Env), msg.Override)
	pid, code, err := startCommand(msg, env, files)
	if err != nil {
		return refuse(up, code, err)
	}
	closeAll(files) // a lock must not live on in init when the command lets it go
	down := make(chan int)
	go func() { // ends with the process
		defer close(down)
		var m downMessage
		for dec.Decode(&m) == nil {
			down <- m.Signal
		}
	}()
	go deliver(pid, own, down, start.Grace) // ends with the process

	status := reap(pid)
	runtime.KeepAlive(res.Hold) // the locks
	if err := up.send(upMessage{Exit: &exitMessage{Status: status}}); err != nil {
		return ExitOwn
	}
	return 0
}

// startCommand looks the command up and starts it. The error comes with the exit status that it means.
func startCommand(msg *initMessage, env []string, files []*os.File) (pid, code int, err error) {
	fds := []uintptr{0, 1, 2}
	for i, n := range msg.Keep {
		for len(fds) <= n {
			fds = append(fds, ^uintptr(0)) // closed
		}
		fds[n] = files[i].Fd()
	}
	attr := &syscall.ProcAttr{Env: env, Files: fds}
	err = syscall.ENOENT
	for _, path := range candidates(msg.Argv[0], envValue(env, "PATH")) {
		var tried error
		pid, tried = syscall.ForkExec(path, msg.Argv, attr)
		if errors.Is(tried, syscall.ENOEXEC) { // a script without "#!", as execvp(3) has it
			pid, tried = syscall.ForkExec("/bin/sh", slices.Concat([]string{"/bin/sh", path}, msg.Argv[1:]), attr)
		}
		if tried == nil {
			runtime.KeepAlive(files)
			return pid, 0, nil
		}
		if err != syscall.EACCES || tried != syscall.ENOENT { // as execvp(3): a forbidden one is worth more than none
			err = tried
		}
		if tried != syscall.EACCES && tried != syscall.ENOENT && tried != syscall.ENOTDIR {
			break
		}
	}
	if err == syscall.ENOENT || err == syscall.ENOTDIR {
		return 0, ExitNotFound, fmt.Errorf("%s: command not found", msg.Argv[0])
	}
	return 0, ExitNotExec, fmt.Errorf("%s: cannot be executed: %w", msg.Argv[0], err)
}

// candidates lists the files that name may mean. Those that plainly do not exist are left out; each try costs a fork.
func candidates(name, path string) []string {
	if strings.Contains(name, "/") {
		return []string{name}
	}
	if path == "" {
		path = rootPath
	}
	var found []string
	for _, dir := range filepath.SplitList(path) {
		if dir == "" {
			dir = "." // an empty element is the working directory (environ(7))
		}
		file := dir + "/" + name
		if st, err := os.Stat(file); err == nil && !st.IsDir() {
			found = append(found, file)
		}
	}
	return found
}

// reap waits for children, ours and adopted, until the command has ended, and returns its status as a shell would.
func reap(pid int) int {
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			panic("userns: internal error: init has lost its command: " + err.Error())
		case got == pid && ws.Signaled():
			return exitSignal + int(ws.Signal())
		case got == pid && ws.Exited():
			return ws.ExitStatus()
		}
	}
}
