package userns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/nsferry/nsferry/idshift/userns/mounts"
	"golang.org/x/sys/unix"
)

// Spec is a foreign command and the world it runs in. The zero value of everything but Argv is useful.
type Spec struct {
	Argv     []string               // command and arguments; a name without "/" is looked up inside, on the command's PATH
	Env      []string               // NAME=VALUE, over what is inherited or preset
	CleanEnv bool                   // inherit nothing of the caller's environment
	KeepFDs  []int                  // descriptors that this process inherited and the command gets at the same numbers
	Files    []Passed               // open files of this process's own that the command gets
	Stdin    *os.File               // nil: this process's own; the same for the next two
	Stdout   *os.File               //
	Stderr   *os.File               //
	Mounts   mounts.Spec            // rootfs, presets, binds, working directory; the zero value keeps the caller's root. Files stay the caller's
	Keeper   *Keeper                // prepares what the mounts need and cleans up; in place of the janitor of placeholders. May be nil
	After    func(status int) error // called when the command has ended and before the keeper cleans up; may be nil
	Note     func(string)           // told what had to be done in a lesser way, before the command starts; may be nil
}

// Passed is an open file for a foreign command, and its number there. The file stays the caller's.
type Passed struct {
	FD   int
	File *os.File
}

// exitMessage is how a foreign command ended.
type exitMessage struct {
	Status int `json:"status"` // as a shell would give it: 128 and the signal's number for a signal
}

// Exec runs a foreign command as uid 0 in e's plain map, in new pid, mount, ipc and uts namespaces whose init reaps for it, and
// returns its exit status. An error means that the command was not run, and status is what to exit with: 127 not found, 126
// not executable, ExitOwn or ExitEnvironment otherwise. Nothing of the command is left when Exec returns, or is killed.
//
// The command stays in the caller's session and process group, so that job control works. Signals that reach this process
// alone are passed on; those that a terminal or kill(2) sends to the whole group reach the command directly, once. Ctx must
// therefore not be one that signals cancel. When it is done, the command gets SIGTERM, and SIGKILL after e.Grace.
func (e *Env) Exec(ctx context.Context, s Spec) (status int, err error) {
	if len(s.Argv) == 0 {
		return ExitUsage, &UsageError{"no command"}
	}
	if err := ctx.Err(); err != nil {
		return ExitOwn, err
	}
	plan := session{role: roleInit, name: "init", mapping: e.Plain, stdio: [3]*os.File{or(s.Stdin, os.Stdin), or(s.Stdout, os.Stdout), or(s.Stderr, os.Stderr)}}
	msg := &initMessage{Argv: s.Argv, Env: s.environment(), Override: s.Env, Keep: slices.Clone(s.KeepFDs), Ignored: e.sys.ignoredSignals()}
	kept, err := dupKept(s.KeepFDs)
	defer func() { closeAll(kept) }()
	if err != nil {
		return ExitUsage, err
	}
	for _, p := range s.Files {
		dup, err := p.dup(msg.Keep)
		if err != nil {
			return ExitUsage, err
		}
		kept, msg.Keep = append(kept, dup), append(msg.Keep, p.FD)
	}
	plan.files = kept
	msg.Mounts, plan.files = packMounts(s.Mounts, plan.files)
	plan.start.Init = msg

	defer holdTerminal()()
	relay := newRelay(msg.Ignored)
	defer relay.stop()
	c, err := e.begin(plan)
	if err != nil {
		err = e.blame(err)
		return execStatus(err), err
	}
	janitor, err := e.tidy(s, c)
	if err == nil {
		err = e.release(c, plan)
	}
	if err != nil {
		c.kill()
		c.wait()
		if janitor != nil {
			err = errors.Join(err, janitor.leave(upMessage{}))
		}
		err = e.blame(err)
		return execStatus(err), err
	}
	closeAll(kept)
	status, err = e.follow(ctx, c, relay, s.Note)
	if err == nil && s.After != nil {
		if err = s.After(status); err != nil {
			status = ExitOwn
		}
	}
	if janitor != nil {
		janitor.cancel() // end of file: nothing more comes from here
		if left := janitor.leave(upMessage{}); left != nil && err == nil {
			return ExitOwn, fmt.Errorf("run: cleaning up after status %d: %w", status, left)
		}
	}
	return status, err
}

// follow serves a started init until it has ended.
func (e *Env) follow(ctx context.Context, c *child, relay *relay, note func(string)) (int, error) {
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		if relay.run(ctx, c) {
			c.cancel()
			c.afterGrace(e.grace() + graceOfInit)
		}
	}()
	answer, readErr := c.listen(func(m upMessage) {
		if note != nil && m.Note != "" {
			note(m.Note)
		}
	})
	if readErr != nil {
		c.kill()
	}
	<-c.done
	<-watched
	status := c.wait()
	switch {
	case readErr != nil:
		return ExitOwn, fmt.Errorf("control socket: %w", readErr)
	case answer.Setup != nil:
		err := e.blame(&spawnError{step: answer.Setup.Step, err: answer.Setup.Errno})
		return execStatus(err), err
	case answer.Error != nil:
		return answer.Error.Code, answer.Error
	case answer.Exit == nil:
		return ExitOwn, &DiedError{Name: "run", Status: status}
	}
	return answer.Exit.Status, nil
}

// execStatus is the exit status for an error before the command: that of an environment error, or ExitOwn.
func execStatus(err error) int {
	var e *EnvError
	if errors.As(err, &e) {
		return ExitEnvironment
	}
	return ExitOwn
}

// dupKept duplicates the descriptors that the command is to have. One that is close-on-exec is not the caller's but ours.
func dupKept(fds []int) ([]*os.File, error) {
	var kept []*os.File
	for _, fd := range fds {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if fd < 3 || err != nil || flags&unix.FD_CLOEXEC != 0 {
			return kept, &UsageError{fmt.Sprintf("descriptor %d to keep is not open, or one of 0 to 2, which are kept anyway", fd)}
		}
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return kept, os.NewSyscallError("fcntl", err)
		}
		kept = append(kept, os.NewFile(uintptr(dup), fmt.Sprintf("descriptor %d", fd)))
	}
	return kept, nil
}

// dup duplicates the file, whose number must be free.
func (p Passed) dup(taken []int) (*os.File, error) {
	if p.FD < 3 || p.FD > 1023 || slices.Contains(taken, p.FD) {
		return nil, &UsageError{fmt.Sprintf("descriptor %d cannot be passed: it is not one of 3 to 1023, or passed already", p.FD)}
	}
	dup, err := unix.FcntlInt(p.File.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(dup), p.File.Name()), nil
}

func or(f, other *os.File) *os.File {
	if f != nil {
		return f
	}
	return other
}

// closeAll closes files that were only passed on; closing one twice does no harm.
func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
