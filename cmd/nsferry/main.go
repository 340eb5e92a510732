// Command nsferry moves rootfs artifacts across a user-namespace border without root. This package holds the grammar and
// the exit codes and nothing else: every command maps its flags to one call of a library package and reports the result.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/nsferry/nsferry/audit"
	"github.com/nsferry/nsferry/deploy"
	"github.com/nsferry/nsferry/ephemeral"
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/grant"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/ownership"
	"github.com/nsferry/nsferry/sstate/debs"
)

// Exit codes that the grammar itself gives. The others come with their errors: 1 failed, 3 miss (not in the store), 4
// environment (no user namespace, no sub-ids); run adds 125 to 127 and 128+n, and whatever its command returned.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

func main() {
	userns.Main(halves()...)
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// halves is the table of what may run on the other side of the border.
func halves() []userns.Registered {
	return slices.Concat(ferry.Halves(), ephemeral.Halves(), deploy.Halves(), ownership.Halves(), grant.Halves(), audit.Halves(), debs.Halves())
}

// exitStatus is the status of a command that was run for the user, who gets it unchanged and without a word.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// exitCode is the table of exit codes; interrupted says that a signal has cancelled the work. What it does not name
// carries its code itself: the exit codes of idshift/userns, which halves also use, are the same.
func exitCode(err error, interrupted bool) int {
	var status exitStatus
	var parse *kong.ParseError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &status):
		return int(status)
	case interrupted:
		return exitInterrupted
	case errors.As(err, &parse):
		return exitUsage
	}
	return userns.ExitCode(err)
}

// run is main without the process: it parses args, runs one command, reports and returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "help" { // as with git and go
		args = append(slices.Clone(args[1:]), "--help")
	}
	out := &Out{Stdout: stdout, Stderr: stderr, json: asksJSON(args)}
	left := -1 // what --help or --version want to exit with
	parser, g, err := newParser(args, out, func(code int) { left = code })
	if err != nil {
		return out.finish("", err, exitCode(err, false))
	}
	k, err := parser.Parse(args)
	if left >= 0 {
		return left
	}
	if err == nil {
		err = g.check()
	}
	if err != nil {
		return out.finish("", err, exitUsage)
	}
	out.configure(*g)

	ctx, stop := untilSignal()
	defer stop()
	go func() { // the second signal is no longer ours: it kills
		<-ctx.Done()
		stop()
	}()
	k.BindTo(ctx, (*context.Context)(nil))
	err = k.Run(g, out)
	return out.finish(strings.Join(commandNames(k.Selected()), " "), err, exitCode(err, ctx.Err() != nil))
}

// untilSignal returns a context that the signals of a user who wants an end cancel. A signal that whoever started us has
// had ignored (nohup, a background job of a shell) stays ignored.
func untilSignal() (context.Context, context.CancelFunc) {
	ends := []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP}
	ends = slices.DeleteFunc(ends, signal.Ignored)
	if len(ends) == 0 { // NotifyContext would take that for all signals
		return context.WithCancel(context.Background())
	}
	return signal.NotifyContext(context.Background(), ends...)
}

// asksJSON finds --json in a command line that may turn out to be wrong.
func asksJSON(args []string) bool {
	if i := slices.Index(args, "--"); i >= 0 {
		args = args[:i]
	}
	return slices.Contains(args, "--json")
}

// version is the module version or, for a build from a clone, the commit that the linker was told.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v, dirty := info.Main.Version, ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && v == "(devel)":
			v = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = ", modified"
		}
	}
	return "nsferry " + v + dirty + " (" + info.GoVersion + ")"
}
