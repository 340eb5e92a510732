// Package ephemeral runs a command in a tree that stays as it was: whatever the command changes goes to a layer that nobody
// sees after the run, however the run ended.
//
// The tree is a directory, or the master of an archive: its tree, unpacked once for each archive and map, and shared by all
// runs. An overlay is mounted over it in the run's own namespaces. Where none can be, the tree is cloned by reflink, or
// copied. docs/EPHEMERAL.md says where things lie and what survives what.
package ephemeral

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/handoff"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/idshift/userns/mounts"

	"golang.org/x/sys/unix"
)

// Halves is the table of this package's inner halves, for userns.Main.
func Halves() []userns.Registered {
	return []userns.Registered{keeperHalf, surveyHalf, sweepHalf}
}

// Upper is where the changes of a run are kept while it runs.
type Upper string

// The places. Disk is a directory beside the masters; Memory is a tmpfs; Clone is no layer at all, but a copy of the whole tree,
// on which even those things work that an overlay in a user namespace refuses.
const (
	Disk   Upper = "disk"
	Memory Upper = "tmpfs"
	Clone  Upper = "clone"
)

// Options say what a run is over, and what becomes of its changes. Either Archive or Command.Mounts.Root is set.
type Options struct {
	Command userns.Spec
	Archive *os.File // regular file; stays the caller's
	Upper   Upper    // empty is Disk
	Size    string   // of Memory, as tmpfs(5) has it
	Workers int
	Policy  archive.Policy // of unpacking a master
	// Commit, if not nil, is called with the changed tree when the command has exited with 0.
	Commit func(ctx context.Context, tree ferry.Source) error
	// Progress is told how far the unpacking of a master is, and Ready that the tree below is there.
	Progress ferry.Progress
	Ready    func()
}

// Run runs the command as userns.Env.Exec does, and returns what that returns. Ctx ends the preparations; from the command's
// start on, signals are the command's business.
func Run(ctx context.Context, e *userns.Env, s *State, o Options) (status int, err error) {
	r := &run{Options: o, env: e, state: s, tree: o.Command.Mounts.Root}
	if err := r.lower(ctx); err != nil {
		return userns.ExitOwn, err
	}
	defer func() { err = errors.Join(err, r.master.Close()) }()
	if r.Ready != nil {
		r.Ready()
	}
	if r.Upper != Clone {
		why := r.survey.Unfit
		if why == "" {
			status, err = r.overlaid(ctx)
			if !errors.Is(err, mounts.ErrNoOverlay) {
				return status, err
			}
			why = err.Error()
		}
		defer r.note(why)
	}
	return r.cloned(ctx)
}

// run is one run under way.
type run struct {
	Options
	env    *userns.Env
	state  *State
	tree   *os.File // what the command is not to change
	master *master  // nil for a directory
	survey survey
}

// lower finds the tree below, and learns what an overlay has to know of it.
func (r *run) lower(ctx context.Context) (err error) {
	if r.Archive != nil {
		if r.master, err = r.state.master(ctx, r.env, r.Options); err != nil {
			return err
		}
		r.tree, r.survey = r.master.tree, r.master.record.Survey
		return nil
	}
	if r.Upper != Clone {
		r.survey, err = surveyHalf.Run(ctx, r.env, surveyArgs{r.Workers}, nil, r.tree)
	}
	return err
}

func (o *Options) note(text string) {
	if o.Command.Note != nil {
		o.Command.Note(text)
	}
}

// spec is the command in a tree of its own.
func (r *run) spec() userns.Spec {
	s := r.Command
	s.Mounts.Root, s.Mounts.Private = r.tree, true
	if r.master != nil {
		s.Mounts.Hold = append(s.Mounts.Hold, r.master.lock)
	}
	return s
}

// overlaid runs the command over a layer of changes.
func (r *run) overlaid(ctx context.Context) (status int, err error) {
	s := r.spec()
	over := &mounts.Overlay{Size: r.Size, Links: r.survey.Links}
	s.Mounts.Overlay = over
	if r.Commit != nil {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return userns.ExitOwn, os.NewSyscallError("socketpair", err)
		}
		ours := os.NewFile(uintptr(pair[0]), "layers")
		defer ours.Close()
		over.Layers = os.NewFile(uintptr(pair[1]), "layers")
		defer over.Layers.Close()
		s.After = func(status int) error {
			if status != 0 {
				return nil
			}
			tree := ferry.Source{}
			var err error
			if tree.Root, tree.Changes, err = mounts.Take(ours); err != nil {
				return err
			}
			defer tree.Root.Close()
			defer tree.Changes.Close()
			return r.Commit(ctx, tree)
		}
	}
	if r.Upper != Memory {
		l, err := r.state.newLayer()
		if err != nil {
			return userns.ExitOwn, err
		}
		defer func() { err = errors.Join(err, l.Close()) }()
		if err := r.attend(&s, l, keepArgs{}); err != nil {
			return userns.ExitOwn, err
		}
		over.Scratch = l.dir
	}
	return r.env.Exec(context.WithoutCancel(ctx), s)
}

// cloned runs the command in a copy of the tree.
func (r *run) cloned(ctx context.Context) (status int, err error) {
	s := r.spec()
	l, err := r.state.newLayer()
	if err != nil {
		return userns.ExitOwn, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	args := keepArgs{Clone: true, Workers: ferry.Workers(r.Workers), Devices: ferry.Privileged(r.env)}
	if err := r.attend(&s, l, args, r.tree); err != nil {
		return userns.ExitOwn, err
	}
	s.Keeper.Ready = func(raw json.RawMessage) {
		var done cloned
		if json.Unmarshal(raw, &done) == nil {
			r.note(done.String())
		}
	}
	s.Mounts.Root = l.dir
	if r.Commit != nil {
		s.After = func(status int) error {
			if status != 0 {
				return nil
			}
			return r.Commit(ctx, ferry.Source{Root: l.dir})
		}
	}
	return r.env.Exec(context.WithoutCancel(ctx), s)
}

// attend gives the run a keeper for the layer l, and both a hold on its lock.
func (r *run) attend(s *userns.Spec, l *layer, a keepArgs, more ...*os.File) (err error) {
	a.Name, a.As = l.name, r.env.CallerFSIDs()
	files := append([]*os.File{r.state.runs, l.dir}, more...)
	files = append(files, s.Mounts.Hold...) // the master is in use until the keeper is done, too
	s.Mounts.Hold = append(s.Mounts.Hold, l.dir)
	s.Keeper, err = keeperHalf.Keeper(a, files...)
	return err
}

// cloned says how a tree was cloned.
type cloned struct {
	Method  handoff.Method // the worst of all files
	Skipped int            // device nodes
}

func (c cloned) String() string {
	text := "the tree was cloned by reflink"
	if c.Method != handoff.Reflink {
		text = "the whole tree was copied, because its filesystem has no reflinks"
	}
	if c.Skipped > 0 {
		text += fmt.Sprintf("; %d device nodes were left out", c.Skipped)
	}
	return text
}
