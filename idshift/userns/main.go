package userns

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/nsferry/nsferry/idshift/userns/mounts"
	"golang.org/x/sys/unix"
)

// Main is the first call of main() and of a test binary's TestMain. In a process that Run or Exec started it serves the
// named half, or acts as init, and never returns; in any other process it does nothing.
func Main(halves ...Registered) {
	if len(os.Args) == 0 || os.Args[0] != innerArg0 {
		return
	}
	// Signals from a terminal reach the whole process group. What they mean is decided outside, and comes as end of file.
	// They are caught and dropped, not ignored: a command would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGHUP)
	os.Exit(serve(halves))
}

// serve does an inner process's whole work and returns its exit status.
func serve(halves []Registered) int {
	up := &upLink{f: os.NewFile(controlFD, "control socket")}
	if _, err := unix.FcntlInt(controlFD, unix.F_GETFD, 0); err != nil {
		fmt.Fprintln(os.Stderr, "nsferry: this is an inner process; nsferry starts it itself")
		return ExitOwn
	}
	// Before anything can fail: a binary that we may execute but not read leaves us undumpable, and /proc/PID then does
	// not belong to the caller (proc(5)).
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
	unix.CloseOnExec(controlFD)
	dec := json.NewDecoder(up.f)
	var line json.RawMessage
	var start startMessage
	if err := dec.Decode(&line); err != nil {
		return ExitFailed // the outer process gave up, and says why itself
	}
	if err := unmarshal(line, &start); err != nil {
		_ = up.send(upMessage{Error: remote(err)})
		return ExitFailed
	}
	if err := closeStray(controlFD + 1 + len(start.Files)); err != nil {
		_ = up.send(upMessage{Error: remote(err)})
		return ExitFailed
	}
	files := make([]*os.File, len(start.Files))
	for i, name := range start.Files {
		fd := controlFD + 1 + i
		unix.CloseOnExec(fd)
		files[i] = os.NewFile(uintptr(fd), name)
	}
	return act(halves, up, dec, start, files)
}

// act becomes root and takes up the role that start gives.
func act(halves []Registered, up *upLink, dec *json.Decoder, start startMessage, files []*os.File) int {
	var spec mounts.Spec
	var more []step
	switch {
	case start.Init != nil:
		runtime.LockOSThread() // this thread changes its root; the command will be its child
		spec = start.Init.Mounts.unpack(files)
		if err := spec.Detach(); err != nil { // still the caller, and still among his mounts
			return refuse(up, ExitOwn, err)
		}
	case !start.Outlives:
		more = []step{{"mount", privateMounts}}
	}
	if fail := becomeRoot(start, more...); fail != nil {
		_ = up.send(upMessage{Setup: fail})
		return ExitFailed
	}
	switch {
	case start.Init != nil:
		return serveInit(up, dec, start, files, spec)
	case start.Outlives:
		return serveJanitor(halves, up, dec, start, files)
	}
	return serveHalf(halves, up, dec, start, files)
}

// refuse reports why a foreign command cannot be started, and returns code. A namespace that the kernel does not give is
// for the outer process to explain.
func refuse(up *upLink, code int, err error) int {
	m := upMessage{Error: remote(err)}
	m.Error.Code = code
	var call *os.SyscallError
	var errno syscall.Errno
	if errors.As(err, &call) && call.Syscall == "unshare" && errors.As(err, &errno) {
		m = upMessage{Setup: &setupFailure{Step: "unshare", Errno: errno}}
	}
	_ = up.send(m)
	return code
}

// serveHalf runs the half that start names and reports its result. A panic of the half ends the process in the runtime's
// way: the trace is on stderr, and the outer side sees a process that died.
func serveHalf(halves []Registered, up *upLink, dec *json.Decoder, start startMessage, files []*os.File) int {
	half, err := find(append(halves, probe), start.Half)
	if err != nil {
		_ = up.send(upMessage{Error: remote(err)})
		return ExitFailed
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	eof := make(chan struct{})
	go func() { // ends with the process
		var m downMessage
		for dec.Decode(&m) == nil {
		}
		close(eof)
	}()
	go func() { // ends with the process
		select {
		case <-eof:
		case <-term:
		}
		cancel()
		time.Sleep(start.Grace + time.Second)
		os.Exit(ExitFailed) // the outer process should have killed us by now
	}()
	in := &Inner{Files: files}
	if start.Progress {
		in.report = func(v any) error {
			raw, err := marshal(v)
			if err != nil {
				return err
			}
			return up.send(upMessage{Progress: raw})
		}
	}
	v, err := half.serve(ctx, in, start.Args)
	runtime.KeepAlive(files)
	return answer(up, start.Half, v, err)
}

func find(halves []Registered, name string) (Registered, error) {
	for _, h := range halves {
		if h.name() == name {
			return h, nil
		}
	}
	return nil, fmt.Errorf("half %q is not in this binary's table", name)
}

// answer sends a half's result or error.
func answer(up *upLink, name string, v any, err error) int {
	m := upMessage{}
	if err != nil {
		m.Error = remote(err)
	} else if raw, err := marshal(v); err != nil {
		m.Error = remote(fmt.Errorf("%s: result: %w", name, err))
	} else {
		m.Result = bytes.TrimSpace(raw)
	}
	if err := up.send(m); err != nil {
		return ExitFailed // nobody is there to be told
	}
	return 0
}
