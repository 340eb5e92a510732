package userns

import (
	"context"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"syscall"
	"time"

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

// suspend stops this process as the signal would have without us, so that the shell sees its job stopped. It returns
// when the process is continued. A terminal stop signal for one's own thread takes effect before tgkill(2) returns.
func (r *relay) suspend() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	signal.Reset(syscall.SIGTSTP)
	_ = unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGTSTP)
	signal.Notify(r.signals, syscall.SIGTSTP)
}

const (
	groupWait  = 25 * time.Millisecond  // how long init waits to see whether a signal went to the whole group
	groupMatch = 250 * time.Millisecond // how long a signal of init's own counts for a report from outside
)

// deliver gives the command those signals that it has not got itself. Init is in the same process group as the outer process
// and the command: a signal that init sees too was sent to the group, and the command has it. The kernel does not
// tell senders apart in a way that os/signal shows. When down is closed, the command is told to end.
func deliver(pid int, own <-chan os.Signal, down <-chan int, grace time.Duration) {
	seen := map[syscall.Signal]time.Time{} // own signals that no report has matched yet
	due := map[syscall.Signal]time.Time{}  // reports that no own signal has matched yet
	tick := time.NewTimer(time.Hour)
	for {
		select {
		case s := <-own:
			sig := s.(syscall.Signal)
			if _, ok := due[sig]; ok {
				delete(due, sig)
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
			} else if _, ok := due[sig]; !ok {
				due[sig] = time.Now().Add(groupWait)
				tick.Reset(groupWait)
			}
		case <-tick.C:
			for sig, t := range due {
				if wait := time.Until(t); wait > 0 {
					tick.Reset(wait)
					continue
				}
				delete(due, sig)
				_ = syscall.Kill(pid, sig) // a command that is gone is about to be reaped
			}
		}
	}
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
