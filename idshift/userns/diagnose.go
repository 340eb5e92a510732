package userns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
)

// State is what a finding means.
type State string

const (
	StateOK      State = "ok"      // tested and in order
	StateNote    State = "note"    // may matter; nothing has failed because of it
	StateProblem State = "problem" // nsferry cannot enter a namespace because of it
)

// Finding is one prerequisite, tested. The ids are stable; scripts may match them.
type Finding struct {
	ID       string `json:"id"`
	State    State  `json:"state"`
	What     string `json:"what"`               // the prerequisite, or what is wrong with it
	Evidence string `json:"evidence,omitempty"` // what was read or tried, and what came of it
	Remedy   string `json:"remedy,omitempty"`   // with StateProblem: what to do
}

// Probe enters a namespace with e's maps and leaves it again. The error is an *EnvError that names the cause.
func (e *Env) Probe(ctx context.Context) error {
	if e.Direct {
		return nil
	}
	_, err := probe.Run(ctx, e, struct{}{}, nil)
	return err
}

// probe is in every binary's table. It proves root inside by use: an id change that needs the map and the capability.
var probe = Half[struct{}, struct{}]{Name: "userns.probe", Func: func(context.Context, *Inner, struct{}) (struct{}, error) {
	if uid, gid := os.Getuid(), os.Getgid(); uid != 0 || gid != 0 {
		return struct{}{}, fmt.Errorf("inside, the ids are %d:%d instead of 0:0", uid, gid)
	}
	return struct{}{}, nil
}}

// Diagnose tests every prerequisite of entering a namespace with o, by use where that is possible, and returns all
// findings in a fixed order. It changes nothing.
func Diagnose(ctx context.Context, o Options) []Finding {
	x := &exam{sys: o.System.withDefaults()}
	var all []Finding
	env, err := NewEnv(o)
	if err != nil {
		all = append(all, asFinding(err))
	} else {
		x.env = env
		all = append(all, Finding{ID: "map", State: StateOK, What: "id maps can be planned",
			Evidence: fmt.Sprintf("mode %s, uids %s, gids %s", env.Mode, env.Plain.UID, env.Plain.GID)})
		all = append(all, x.enter(ctx))
	}
	for _, look := range surroundings {
		all = append(all, look(x)...)
	}
	if env != nil && env.Direct {
		return all // nothing else is needed
	}
	for _, c := range checks {
		all = append(all, c.run(x))
	}
	return all
}

// enter tries the whole way in and leaves the failure for the checks that follow.
func (x *exam) enter(ctx context.Context) Finding {
	f := Finding{ID: "userns.enter", State: StateOK, What: "a user namespace can be entered"}
	if err := x.env.Probe(ctx); err != nil {
		errors.As(err, &x.fail)
		f.State, f.What, f.Evidence = StateProblem, "a user namespace cannot be entered", err.Error()
		var e *EnvError
		if errors.As(err, &e) {
			f.Evidence, f.Remedy = e.headline(), e.Remedy
		}
	}
	return f
}

func asFinding(err error) Finding {
	f := Finding{ID: "options", State: StateProblem, What: err.Error()}
	var e *EnvError
	if errors.As(err, &e) {
		f.ID, f.What, f.Remedy = e.ID, e.headline(), e.Remedy
	}
	return f
}

// blame turns a failed spawn into the *EnvError of the first check that explains it. Any other error it returns as it is.
func (e *Env) blame(err error) error {
	var fail *spawnError
	if !errors.As(err, &fail) {
		return err
	}
	x := &exam{sys: e.sys, env: e, fail: fail}
	for _, c := range checks {
		if f := c.run(x); f.State == StateProblem && c.explains(fail.step) {
			what := f.What
			if f.Evidence != "" {
				what += " (" + f.Evidence + ")"
			}
			return &EnvError{ID: f.ID, What: what, Remedy: f.Remedy, Err: err}
		}
	}
	return &EnvError{ID: "userns." + fail.step, What: "a user namespace cannot be entered", Err: err,
		Remedy: "the kernel refused without a cause that nsferry knows; a security module or a container's seccomp profile may forbid user namespaces"}
}

// exam is what the checks look at. fail is nil when nothing was tried or nothing failed.
type exam struct {
	sys  System
	env  *Env // nil when no map could be planned
	fail *spawnError
}

// failed tells whether one of the steps failed with one of the errnos.
func (x *exam) failed(step string, errnos ...syscall.Errno) bool {
	if x.fail == nil || x.fail.step != step && step != "" {
		return false
	}
	for _, errno := range errnos {
		if errors.Is(x.fail.err, errno) {
			return true
		}
	}
	return false
}

// writesMaps tells whether newuidmap and newgidmap are not needed.
func (x *exam) writesMaps() bool { return x.sys.mayWriteMaps() }
