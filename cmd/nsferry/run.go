package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/nsferry/nsferry/deploy"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/idshift/userns/mounts"
)

type runCmd struct {
	Rootfs     string   `placeholder:"DIR|ARCHIVE|KEY" help:"Make this tree the root directory, with private /dev, /dev/pts, /dev/shm, /proc and /sys. An archive, or an entry of the store, is unpacked once and implies --ephemeral."`
	Ephemeral  bool     `help:"Leave the tree as it is, and throw away what the command changes."`
	Upper      string   `default:"disk" placeholder:"WHERE" help:"Where changes are kept meanwhile: in the state directory (disk), in memory (tmpfs, tmpfs:SIZE), or in a copy of the whole tree there (clone), on which directories of the tree can be renamed. Default: ${default}."`
	Commit     string   `placeholder:"FILE" xor:"commit" help:"When the command has exited with 0, pack the changed tree into FILE, which appears when it is whole."`
	CommitKey  string   `placeholder:"KEY" xor:"commit" help:"The same, into the store."`
	Force      bool     `short:"f" help:"Replace FILE of --commit, or DEST of --output, if it exists."`
	Bind       []string `sep:"none" placeholder:"SRC[:DEST][:ro]" help:"Show SRC as DEST inside (default: the same path), with what is mounted below it. May be repeated."`
	Chdir      string   `placeholder:"DIR" help:"Working directory inside."`
	Apt        bool     `help:"Let apt work as inner root, and let no package start services."`
	ResolvConf string   `placeholder:"FILE" default:"/etc/resolv.conf" help:"What to show as /etc/resolv.conf in a rootfs; \"none\" leaves its own."`
	Env        []string `sep:"none" placeholder:"NAME=VALUE" help:"Set a variable for the command. May be repeated."`
	CleanEnv   bool     `help:"Inherit nothing of the environment."`
	KeepFd     []int    `placeholder:"N" help:"Pass this open descriptor on, under its number. May be repeated."`
	Output     []string `sep:"none" placeholder:"FD:DEST" help:"Let the command write to descriptor FD what becomes the file DEST, whole, if it exits with 0. May be repeated."`
	storeFlag
	Command []string `arg:"" optional:"" passthrough:"" help:"The command and its arguments; none is a shell, which reads what to do from standard input."`
}

// ownError is a failure before the command ran, with the status that run gives for it.
type ownError struct {
	error
	status int
}

func (e ownError) ExitCode() int { return e.status }
func (e ownError) Unwrap() error { return e.error }

// notRun gives an error of preparing the command the status that tells it from the command's own, unless it has one.
func notRun(err error) error {
	if userns.ExitCode(err) == userns.ExitFailed {
		return ownError{err, userns.ExitOwn}
	}
	return err
}

// Run runs a command inside and exits with its status.
func (c *runCmd) Run(ctx context.Context, e *userns.Env, g *Globals, out *Out) (err error) {
	t, err := c.throwaway(ctx, e, g, out)
	if err != nil {
		return notRun(err)
	}
	defer func() { err = errors.Join(err, t.close()) }()
	spec, err := c.mounts(t)
	defer func() { err = errors.Join(err, closeSpec(spec)) }()
	if err != nil {
		return notRun(err)
	}
	command := c.Command
	if len(command) > 0 && command[0] == "--" {
		command = command[1:]
	}
	if len(command) == 0 {
		command = []string{"/bin/sh"}
	}
	outputs, passed, err := c.outputs()
	if err != nil {
		return notRun(err)
	}
	defer func() { err = errors.Join(err, outputs.Abort()) }() // no effect once committed
	run := userns.Spec{
		Argv: command, Env: c.Env, CleanEnv: c.CleanEnv, KeepFDs: c.KeepFd, Files: passed, Mounts: spec,
		Note: func(text string) { out.Warn(Warning{What: "× " + text, Count: 1}) },
	}
	var status int
	if t != nil {
		status, err = t.run(ctx, e, run, out)
	} else { // a signal is the command's business: Exec passes it on
		status, err = e.Exec(context.WithoutCancel(ctx), run)
	}
	if err != nil {
		return ownError{fmt.Errorf("run: %w", err), status}
	}
	if status != 0 {
		return exitStatus(status)
	}
	if err := outputs.Commit(); err != nil {
		return notRun(err)
	}
	return nil
}

// outputs begins the files of --output, and numbers them for the command.
func (c *runCmd) outputs() (w *deploy.Written, passed []userns.Passed, err error) {
	var paths []string
	for _, text := range c.Output {
		number, path, _ := strings.Cut(text, ":")
		fd, err := strconv.Atoi(number)
		if err != nil || path == "" {
			return nil, nil, &userns.UsageError{What: fmt.Sprintf("--output %s is not FD:DEST", text)}
		}
		paths, passed = append(paths, path), append(passed, userns.Passed{FD: fd})
	}
	if w, err = deploy.NewWritten(paths, c.Force); err != nil {
		return nil, nil, err
	}
	for i, f := range w.Writers() {
		passed[i].File = f
	}
	return w, passed, nil
}

// mounts opens everything that the command shall see. The files are the caller's also after an error.
func (c *runCmd) mounts(t *throwaway) (s mounts.Spec, err error) {
	s = mounts.Spec{Proc: true, Chdir: c.Chdir, Apt: c.Apt}
	if c.Rootfs != "" {
		s.Dev, s.Shm, s.Sys = true, true, true
		if t == nil || t.archive == nil {
			if s.Root, err = openRootfs(c.Rootfs); err != nil {
				return s, err
			}
		}
		if s.ResolvConf, err = c.resolvConf(); err != nil {
			return s, err
		}
	} else if c.Apt {
		return s, &userns.UsageError{What: "--apt needs --rootfs"}
	}
	for _, text := range c.Bind {
		source, target, ro := parseBind(text)
		b, err := mounts.OpenBind(source, target, ro)
		if err != nil {
			return s, fmt.Errorf("--bind %s: %w", text, err)
		}
		s.Binds = append(s.Binds, b)
	}
	return s, nil
}

func openRootfs(path string) (*os.File, error) {
	root, rest, err := userns.OpenTree(path)
	if err == nil && rest != "" {
		root.Close()
		return nil, fmt.Errorf("%s: you may not search the directories above it", path)
	}
	return root, err
}

// resolvConf returns what is to be seen as /etc/resolv.conf, nil to leave it.
func (c *runCmd) resolvConf() ([]byte, error) {
	if c.ResolvConf == "none" {
		return nil, nil
	}
	text, err := os.ReadFile(c.ResolvConf)
	if errors.Is(err, os.ErrNotExist) && c.ResolvConf == "/etc/resolv.conf" {
		return nil, nil // a machine without a network has none to share
	}
	return text, err
}

// parseBind splits SRC[:DEST][:ro].
func parseBind(text string) (source, target string, readOnly bool) {
	if rest, ok := strings.CutSuffix(text, ":ro"); ok {
		text, readOnly = rest, true
	}
	source, target, _ = strings.Cut(text, ":")
	if target == "" {
		target = source
	}
	return source, target, readOnly
}

func closeSpec(s mounts.Spec) error {
	var errs []error
	if s.Root != nil {
		errs = append(errs, s.Root.Close())
	}
	for _, b := range s.Binds {
		errs = append(errs, b.Close())
	}
	return errors.Join(errs...)
}
