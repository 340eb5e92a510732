package userns

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/nsferry/nsferry/idshift/userns/mounts"
)

// Exit codes that a class of errors maps to. An error anywhere in a chain tells its own by a method ExitCode() int.
const (
	ExitFailed      = 1   // the work failed
	ExitUsage       = 2   // the command line asks for something impossible
	ExitEnvironment = 4   // the machine lacks a prerequisite
	ExitOwn         = 125 // Exec: nsferry itself failed
	ExitNotExec     = 126 // Exec: the command was found but could not be executed
	ExitNotFound    = 127 // Exec: the command was not found
	exitSignal      = 128 // Exec: plus the number of the signal that ended the command
)

// ExitCode is the exit status that err asks for: 0 for nil, what the first error in the chain with a method
// ExitCode() int says, and ExitFailed otherwise.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	var c interface{ ExitCode() int }
	if errors.As(err, &c) {
		return c.ExitCode()
	}
	return ExitFailed
}

// EnvError is a prerequisite that this machine, user or container lacks.
type EnvError struct {
	ID     string // stable name of the finding, e.g. "newuidmap.missing"
	What   string // what was found, lower case, one line
	Remedy string // what to do about it, as text to show; may hold a command line
	Err    error  // the failure that led to the diagnosis, or nil
}

// Error gives the finding, the failure behind it and the remedy.
func (e *EnvError) Error() string {
	s := e.headline()
	if e.Remedy != "" {
		s += "\n  remedy: " + e.Remedy
	}
	return s
}

// headline is the message without the remedy.
func (e *EnvError) headline() string {
	if e.Err != nil {
		return e.What + ": " + e.Err.Error()
	}
	return e.What
}

// Unwrap returns the failure behind the finding.
func (e *EnvError) Unwrap() error { return e.Err }

// ExitCode returns ExitEnvironment.
func (e *EnvError) ExitCode() int { return ExitEnvironment }

// RemoteError is an error that a half returned on the other side of the border. The message is whole; of the chain only
// what callers branch on has crossed: the exit code, one errno, and whether it was a cancellation or an overlay that cannot be.
type RemoteError struct {
	Message   string        `json:"message"`
	Code      int           `json:"code"`
	Errno     syscall.Errno `json:"errno,omitempty"`
	Canceled  bool          `json:"canceled,omitempty"`
	NoOverlay bool          `json:"noOverlay,omitempty"`
}

// Error returns the message as the half worded it.
func (e *RemoteError) Error() string { return e.Message }

// ExitCode returns the exit code that the half's error asked for.
func (e *RemoteError) ExitCode() int { return e.Code }

// Is reports whether the half's error chain held target, for errno values, context.Canceled and mounts.ErrNoOverlay.
func (e *RemoteError) Is(target error) bool {
	switch target {
	case context.Canceled:
		return e.Canceled
	case mounts.ErrNoOverlay:
		return e.NoOverlay
	}
	return e.Errno != 0 && (target == e.Errno || e.Errno.Is(target))
}

// As gives the errno to errors.As(err, *syscall.Errno).
func (e *RemoteError) As(target any) bool {
	if p, ok := target.(*syscall.Errno); ok && e.Errno != 0 {
		*p = e.Errno
		return true
	}
	return false
}

// remote renders err for the way up.
func remote(err error) *RemoteError {
	r := &RemoteError{Message: err.Error(), Code: ExitCode(err), Canceled: errors.Is(err, context.Canceled), NoOverlay: errors.Is(err, mounts.ErrNoOverlay)}
	errors.As(err, &r.Errno)
	return r
}

// DiedError says that an inner process ended without reporting a result.
type DiedError struct {
	Name   string // what ran, for people
	Status syscall.WaitStatus
}

// Error names the signal or exit status that ended the process.
func (e *DiedError) Error() string {
	switch {
	case e.Status.Signaled() && e.Status.Signal() == syscall.SIGKILL:
		return fmt.Sprintf("%s: inner process was killed by signal 9 (SIGKILL; out of memory, or killed by hand)", e.Name)
	case e.Status.Signaled():
		s := e.Status.Signal()
		return fmt.Sprintf("%s: inner process was ended by signal %d (%s)", e.Name, int(s), s)
	default:
		return fmt.Sprintf("%s: inner process ended with exit status %d and no result", e.Name, e.Status.ExitStatus())
	}
}

// UsageError is a mistake in what was asked for, not in the machine.
type UsageError struct{ What string }

// Error returns the mistake.
func (e *UsageError) Error() string { return e.What }

// ExitCode returns ExitUsage.
func (e *UsageError) ExitCode() int { return ExitUsage }
