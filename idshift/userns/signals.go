package userns

import (
	"context"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// forwarded lists the signals that are passed on to a command, without those that it finds ignored.
func forwarded(ignored []int) []os.Signal {
	all := []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2,
		syscall.SIGWINCH, syscall.SIGCONT, syscall.SIGTSTP}
	return slices.DeleteFunc(all, func(s os.Signal) bool { return slices.Contains(ignored, int(s.(syscall.Signal))) })
}

// relay catches this process's signals while a command runs and sends them down to init, which knows whether the command got
// them already.
type relay struct {
	signals chan os.Signal
	list    []os.Signal
}

func newRelay(ignored []int) *relay {
	r := &relay{signals: make(chan os.Signal, 64), list: forwarded(ignored)}
	signal.Notify(r.signals, r.list...)
	return r
}

func (r *relay) stop() { signal.Stop(r.signals) }

// run passes signals on until the child has ended (false) or ctx is done (true).
func (r *relay) run(ctx context.Context, c *child) bool {
	for {
		select {
		case <-c.done:
			return false
		case <-ctx.Done():
			return true
		case s := <-r.signals:
			sig := s.(syscall.Signal)
			_ = c.send(downMessage{Signal: int(sig)}) // a dead child shows as c.done
			if sig == syscall.SIGTSTP {
				r.suspend()
			}
		}
	}
}

// suspend stops this process as the signal would have without us, so that the shell sees its job stopped, and a process group
// that nobody could continue is not stopped (setpgid(2), orphaned process groups). It returns when the process is continued.
// The default action takes effect before a signal to one's own thread returns. It is set behind the runtime's
// back, because signal.Reset leaves the runtime's handler in place, which drops the signal.
func (r *relay) suspend() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const setSize = 8
	var old, byDefault [64]byte // at least struct sigaction, in which all zero is SIG_DFL without flags
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGTSTP), uintptr(unsafe.Pointer(&byDefault)),
		uintptr(unsafe.Pointer(&old)), setSize, 0, 0); errno != 0 {
		return
	}
	_ = unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGTSTP)
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGTSTP), uintptr(unsafe.Pointer(&old)), 0, setSize, 0, 0)
}

const (
	groupWait  = 100 * time.Millisecond // how long init waits to see whether a signal went to the whole group
	groupMatch = 300 * time.Millisecond // how long a signal of init's own counts for a report from outside
)

// deliver gives the command those signals that it has not got itself. Init is in the same process group as the outer process
// and the command: a signal that init sees too was sent to the group, and the command has it. The kernel does not
// tell senders apart in a way that os/signal shows. When down is closed, the command is told to end.
func deliver(pid int, own <-chan os.Signal, down <-chan int, grace time.Duration) {
	seen := map[syscall.Signal]time.Time{} // own signals that no report has matched yet
	var due []report                       // reports that no own signal has matched yet, oldest first
	tick := time.NewTimer(time.Hour)
	for {
		select {
		case s := <-own:
			sig := s.(syscall.Signal)
			if i := slices.IndexFunc(due, func(r report) bool { return r.sig == sig }); i >= 0 {
				due = slices.Delete(due, i, i+1)
			} else {
				seen[sig] = time.Now()
			}
		case n, ok := <-down:
			if !ok {
				terminate(pid, grace)
				return
			}
			sig := syscall.Signal(n)
			if t, ok := seen[sig]; ok && time.Since(t) < groupMatch {
				delete(seen, sig)
				continue
			}
			due = append(due, report{sig, time.Now().Add(groupWait)})
		case <-tick.C:
			for len(due) > 0 && time.Until(due[0].at) <= 0 { // in order: a stop must not overtake a continue
				_ = syscall.Kill(pid, due[0].sig) // a command that is gone is about to be reaped
				due = due[1:]
			}
		}
		if len(due) > 0 {
			tick.Reset(time.Until(due[0].at))
		}
	}
}

// report is a signal that came to the outer process, and when to stop waiting for the same one here.
type report struct {
	sig syscall.Signal
	at  time.Time
}

// terminate ends the command, and with init everything else.
func terminate(pid int, grace time.Duration) {
	_ = syscall.Kill(pid, syscall.SIGTERM)
	_ = syscall.Kill(pid, syscall.SIGCONT) // a stopped one could not act on it
	time.Sleep(grace)
	_ = syscall.Kill(pid, syscall.SIGKILL)
}

// holdTerminal remembers whether this process is in the foreground of its terminal, and returns a function that brings
// it back there: a shell inside takes the terminal for its jobs and cannot give it back, since our process group has no
// number in its pid namespace.
func holdTerminal() func() {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return func() {}
	}
	group := unix.Getpgrp()
	if front, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP); err != nil || front != group {
		tty.Close()
		return func() {}
	}
	return func() {
		defer tty.Close()
		if front, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP); err != nil || front == group {
			return
		}
		// In the background this stops the process, unless the signal is ignored (tcsetpgrp(3)).
		if !signal.Ignored(syscall.SIGTTOU) {
			signal.Ignore(syscall.SIGTTOU)
			defer signal.Reset(syscall.SIGTTOU)
		}
		_ = unix.IoctlSetPointerInt(int(tty.Fd()), unix.TIOCSPGRP, group) // the terminal may have hung up
	}
}
