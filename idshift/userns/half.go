package userns

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
)

// Half is one inner piece of a flow: a function that needs root over the handoff map. It is a value without state, so a
// flow's two sides stand in one file and Main gets the same variable that Run is called on.
type Half[A, R any] struct {
	// Name identifies the half to Main and in messages; unique within a binary.
	Name string
	// Func does the work. It never closes in.Files, and stops soon after ctx is done, removing what it has half
	// made. In Direct mode it runs inside the caller's process: it changes no process-wide state (working directory,
	// umask, mounts) unless Isolated is set.
	Func func(ctx context.Context, in *Inner, args A) (R, error)
	// Isolated asks for a child with a private mount namespace of its own even when the process is already privileged.
	Isolated bool
}

// Inner is a half's view of the border.
type Inner struct {
	// Files are the files passed to Run, in order, with their names. The caller of the half owns them.
	Files []*os.File

	// WaitRun, of a keeper only, returns when the run is over and everything that the outer process does afterwards, or that
	// process is gone; see Keeper.
	WaitRun func() error

	report func(v any) error
}

// Progress sends v, as JSON, to the progress function given to Run. It may be called from several goroutines; nothing is
// sent when nobody listens. An outer process that is gone shows as ctx being done, not here.
func (in *Inner) Progress(v any) {
	if in.report == nil {
		return
	}
	// The only failures are a dead reader, which cancels ctx, and a value that is no JSON, which is a programming error.
	if err := in.report(v); err != nil && !isDeadPeer(err) {
		panic(fmt.Sprintf("userns: internal error: progress: %v", err))
	}
}

// Registered is any Half, for Main's table.
type Registered interface {
	name() string
	serve(ctx context.Context, in *Inner, args json.RawMessage) (any, error)
}

func (h Half[A, R]) name() string { return h.Name }

func (h Half[A, R]) serve(ctx context.Context, in *Inner, raw json.RawMessage) (any, error) {
	var args A
	if err := unmarshal(raw, &args); err != nil {
		return nil, fmt.Errorf("%s: arguments: %w", h.Name, err)
	}
	return h.Func(ctx, in, args)
}

// Run runs the half in e's handoff map and returns its result. Args and result cross as JSON. The files are passed
// in order and stay the caller's; progress, when not nil, is called for each report, one at a time, before Run returns.
//
// When ctx is done the half is told so and has e.Grace to clean up and return; then it is killed. Errors are an
// *EnvError when the namespace could not be made, a *RemoteError with the half's message and exit code, or a
// *DiedError; after a cancellation they also match ctx.Err().
func (h Half[A, R]) Run(ctx context.Context, e *Env, args A, progress func(json.RawMessage), files ...*os.File) (R, error) {
	if e.Direct && !h.Isolated {
		return h.direct(ctx, args, progress, files)
	}
	var result R
	raw, err := marshal(args)
	if err != nil {
		return result, fmt.Errorf("%s: arguments: %w", h.Name, err)
	}
	s := session{name: h.Name, files: files, mapping: e.Handoff, start: startMessage{Half: h.Name, Args: raw, Progress: progress != nil}}
	out, err := e.converse(ctx, s, progress)
	if err != nil {
		return result, err
	}
	if err := unmarshal(out, &result); err != nil {
		return result, fmt.Errorf("%s: result: %w", h.Name, err)
	}
	return result, nil
}

// direct calls the half in this process. Progress still goes through JSON, so that both ways show the same.
func (h Half[A, R]) direct(ctx context.Context, args A, progress func(json.RawMessage), files []*os.File) (R, error) {
	in := &Inner{Files: files}
	if progress != nil {
		serial := make(chan struct{}, 1)
		in.report = func(v any) error {
			raw, err := marshal(v)
			if err != nil {
				return err
			}
			serial <- struct{}{}
			defer func() { <-serial }()
			progress(raw)
			return nil
		}
	}
	return h.Func(ctx, in, args)
}
