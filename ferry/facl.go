package ferry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/nsferry/nsferry/acl/facl"
	"github.com/nsferry/nsferry/idshift"
	"github.com/nsferry/nsferry/idshift/userns"
)

// FACL is what SetACL and GetACL take beside the command line.
type FACL struct {
	facl.IO
	// Env decides about namespaces. It is asked only where the caller lacks a right, or for --inside.
	Env func() (*userns.Env, error)
}

// SetACL is setfacl(1) with args, GetACL getfacl(1); both return its exit status. They work as the caller; only for what he
// has no right to, and his sub-ids have, they enter a namespace.
func SetACL(ctx context.Context, args []string, o FACL) (int, error) {
	return o.run(ctx, facl.Set, args)
}

// GetACL is getfacl(1), see SetACL.
func GetACL(ctx context.Context, args []string, o FACL) (int, error) {
	return o.run(ctx, facl.Get, args)
}

func (o FACL) run(ctx context.Context, command func([]string, facl.IO) int, args []string) (int, error) {
	accounts, err := idshift.LoadAccounts(idshift.Sources{})
	if err != nil {
		return 0, err
	}
	o.Names = accounts
	inside := false
	o.Inside = func() (facl.IDs, error) {
		e, err := o.Env()
		if err != nil {
			return nil, err
		}
		inside = true
		if e.Direct && !e.Arithmetic() {
			return aclIDs{idshift.Identity(), idshift.Identity()}, nil
		}
		return aclIDs{idshift.Identity(), e.Plain}, nil
	}
	var failed error
	o.Denied = func(at *os.File, name string, j facl.Job) (int, bool) {
		if failed != nil || ctx.Err() != nil || os.Geteuid() == 0 {
			return 0, false
		}
		e, err := o.Env()
		if err != nil || e.Direct {
			return 0, false // the caller has no sub-ids: what he was denied stays denied
		}
		if !j.Restorable(func(group bool, id uint32) (uint32, bool) { return e.Handoff.Of(kindOf(group)).ToInside(id) }) {
			return 0, false
		}
		status, err := o.enter(ctx, e, at, name, j, inside)
		var env *userns.EnvError
		if errors.As(err, &env) || ctx.Err() != nil {
			failed = fmt.Errorf("%s: %w", j.Path, err)
		}
		return status, err == nil // inner root may be denied the same
	}
	return command(args, o.IO), failed
}

// enter does a job in the handoff map.
func (o FACL) enter(ctx context.Context, e *userns.Env, at *os.File, name string, j facl.Job, inside bool) (int, error) {
	rest := ""
	if at == nil {
		parent, r, n, err := OpenParent(name)
		if err != nil {
			return 0, err
		}
		defer parent.Close()
		at, rest, name = parent, r, n
	}
	a := faclArgs{Job: j, Rest: rest, Name: name, As: e.CallerFSIDs(), Process: e.Handoff, Text: idshift.Identity(), Program: o.Program, Terminal: o.Terminal}
	if inside {
		a.Text = e.Plain
	}
	r, err := faclHalf.Run(ctx, e, a, nil, at)
	if err != nil {
		return 0, err
	}
	if _, err := o.Stdout.Write(r.Stdout); err != nil {
		return 0, err
	}
	if _, err := o.Stderr.Write(r.Stderr); err != nil {
		return 0, err
	}
	return r.Status, nil
}

// aclIDs translates by way of the outside ids: those of a process, which are the inside ids of one mapping, and those of
// texts, the inside ids of another.
type aclIDs struct{ process, text idshift.Mapping }

func kindOf(group bool) idshift.Kind {
	if group {
		return idshift.GID
	}
	return idshift.UID
}

// ToText implements facl.IDs.
func (i aclIDs) ToText(group bool, id uint32) (uint32, bool) {
	out, ok := i.process.Of(kindOf(group)).ToOutside(id)
	if !ok {
		return 0, false
	}
	return i.text.Of(kindOf(group)).ToInside(out)
}

// ToProcess implements facl.IDs.
func (i aclIDs) ToProcess(group bool, id uint32) (uint32, bool) {
	out, ok := i.text.Of(kindOf(group)).ToOutside(id)
	if !ok {
		return 0, false
	}
	return i.process.Of(kindOf(group)).ToInside(out)
}

type faclArgs struct {
	Job           facl.Job
	Rest, Name    string
	As            userns.FSIDs
	Process, Text idshift.Mapping
	Program       string
	Terminal      bool
}

type faclResult struct {
	Stdout, Stderr []byte
	Status         int
}

// faclHalf gets the directory that the file is in.
var faclHalf = userns.Half[faclArgs, faclResult]{Name: "facl", Func: func(_ context.Context, in *userns.Inner, a faclArgs) (r faclResult, err error) {
	parent, err := OpenParentDir(in.Files[0], a.Rest, a.As)
	if err != nil {
		return r, err
	}
	defer parent.Close()
	accounts, err := idshift.LoadAccounts(idshift.Sources{})
	if err != nil {
		return r, err
	}
	var stdout, stderr bytes.Buffer
	here := func(group bool, id uint32) (uint32, bool) { return a.Process.Of(kindOf(group)).ToInside(id) }
	r.Status = facl.Do(a.Job, parent.File, a.Name, facl.IO{Program: a.Program, Stdout: &stdout, Stderr: &stderr, Terminal: a.Terminal,
		Names: accounts, IDs: aclIDs{a.Process, a.Text}}, here)
	r.Stdout, r.Stderr = stdout.Bytes(), stderr.Bytes()
	return r, nil
}}
