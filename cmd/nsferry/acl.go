package main

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/acl/facl"
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
)

// aclCmd passes command lines on as they are: their order means something, and they are read as getopt_long(3) reads them.
type aclCmd struct {
	Get aclGetCmd `cmd:"" passthrough:"" help:"Show ACLs: getfacl's options and output."`
	Set aclSetCmd `cmd:"" passthrough:"" help:"Change ACLs: setfacl's options."`
}

type aclGetCmd struct {
	Args []string `arg:"" optional:"" help:"Options and files as for getfacl; --help lists them."`
}

// Help is the part of the manual that the grammar cannot hold.
func (aclGetCmd) Help() string { return facl.GetHelp() }

// Run shows ACLs.
func (c *aclGetCmd) Run(ctx context.Context, env envFunc, out *Out) error {
	return runACL(ctx, ferry.GetACL, "acl get", c.Args, env, out)
}

type aclSetCmd struct {
	Args []string `arg:"" optional:"" help:"Options and files as for setfacl; --help lists them."`
}

// Help is the part of the manual that the grammar cannot hold.
func (aclSetCmd) Help() string { return facl.SetHelp() }

// Run changes ACLs.
func (c *aclSetCmd) Run(ctx context.Context, env envFunc, out *Out) error {
	return runACL(ctx, ferry.SetACL, "acl set", c.Args, env, out)
}

// runACL gives a command its streams and its exit status.
func runACL(ctx context.Context, command func(context.Context, []string, ferry.FACL) (int, error), name string, args []string, env envFunc, out *Out) error {
	_, err := unix.IoctlGetTermios(1, unix.TCGETS)
	o := ferry.FACL{Env: func() (*userns.Env, error) { return env() }, IO: facl.IO{
		Program: "nsferry", Command: "nsferry " + name, Stdin: os.Stdin, Stdout: out.TakeStdout(), Stderr: out.Stderr, Terminal: err == nil}}
	status, err := command(ctx, args, o)
	if err == nil && status != exitDone {
		err = exitStatus(status)
	}
	return err
}
