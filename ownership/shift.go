package ownership

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift"
	"github.com/nsferry/nsferry/idshift/handoff"
	"github.com/nsferry/nsferry/idshift/userns"
)

// ShiftOptions say how a tree is shifted. The zero value is what most want.
type ShiftOptions struct {
	Workers int
	DryRun  bool   // only plan
	Shared  bool   // also change inodes that have names outside of the tree
	Journal string // file for the journal; empty: .NAME.shift beside the tree
}

// Shifted counts what Shift did, or would do.
type Shifted struct {
	Inodes  int64 `json:"inodes"`
	Changed int64 `json:"changed"`
	Mounts  int64 `json:"mounts,omitempty"`  // mount points left out
	Resumed bool  `json:"resumed,omitempty"` // an earlier run was finished first
	DryRun  bool  `json:"dryRun,omitempty"`
}

// MisfitError lists everything in a tree that the maps have no place for. Nothing was changed.
type MisfitError struct {
	IDs   []string // one sentence each, with count and first path
	Total int
}

// Error names them all.
func (e *MisfitError) Error() string {
	more := ""
	if e.Total > len(e.IDs) {
		more = fmt.Sprintf("; and %d more", e.Total-len(e.IDs))
	}
	return fmt.Sprintf("%d ids cannot be shifted, and nothing was changed: %s%s", e.Total, strings.Join(e.IDs, "; "), more)
}

// Shift gives the tree dir, which has the owners of c.From, those of c.To, in place: owners, groups, the ids in ACLs, the root ids of
// capabilities. Everything else, times and setuid bits included, stays. e is NewEnv's.
//
// Whatever cannot be shifted is found before the first change, and then nothing is changed. When Shift is broken off after
// that, the same call finishes it; see the package's documentation.
func Shift(ctx context.Context, e *userns.Env, c Change, dir string, o ShiftOptions) (Shifted, error) {
	s, err := shift(ctx, e, c, dir, o)
	if err != nil {
		return s, fmt.Errorf("shift %s: %w", dir, err)
	}
	return s, nil
}

func shift(ctx context.Context, e *userns.Env, c Change, dir string, o ShiftOptions) (Shifted, error) {
	parent, rest, name, err := ferry.OpenParent(dir)
	if err != nil {
		return Shifted{}, err
	}
	defer parent.Close()
	run := run{env: e, change: c, options: o, parent: parent, place: place{rest, name, e.CallerFSIDs()}}
	run.view = view{From: c.From, To: c.To, Seen: e.Handoff, RealRoot: e.Direct && !e.Nested}
	if e.Direct {
		run.view.Seen = idshift.Identity()
	}
	if err := run.openSlot(); err != nil {
		return Shifted{}, err
	}
	defer run.slot.dir.Close()
	again, err := run.resume(ctx)
	if err != nil || run.sum.Resumed && (o.DryRun || !again) {
		return run.sum, err
	}
	return run.sum, run.fresh(ctx)
}

// run is one call of Shift.
type run struct {
	env     *userns.Env
	change  Change
	options ShiftOptions
	parent  *os.File
	place   place
	view    view
	slot    slot
	sum     Shifted
}

// slot is where the journal is, or will be: a name in a directory.
type slot struct {
	dir  *os.File
	name string
	path string // for people
}

func (r *run) openSlot() error {
	path := r.options.Journal
	if path == "" && r.place.Rest != "" {
		return errors.New("the directory that the tree is in is closed to you: name a place for the journal with --journal")
	}
	if path == "" {
		path = filepath.Join(r.parent.Name(), journalName(r.place.Name))
	}
	dir, rest, name, err := ferry.OpenParent(path)
	if err != nil {
		return err
	}
	if rest != "" {
		dir.Close()
		return fmt.Errorf("%s: the directory is closed to you", path)
	}
	r.slot = slot{dir, name, path}
	return nil
}

// journalName is what the journal of a tree is called. Names are at most NAME_MAX bytes (limits.h); the header tells trees
// apart whose names are the same when cut.
func journalName(name string) string {
	const suffix = ".shift"
	return "." + name[:min(len(name), 255-1-len(suffix)-len(".partial-XXXX"))] + suffix
}

// resume carries out the journal of an earlier run, if there is one. again says that it has left something for another plan.
func (r *run) resume(ctx context.Context) (again bool, err error) {
	f, err := r.slot.open(r.env.Caller.UID)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	j, err := readJournal(f)
	if err != nil {
		return false, fmt.Errorf("%s: %w", r.slot.path, err)
	}
	if !j.View.From.Equal(r.view.From) || !j.View.To.Equal(r.view.To) {
		return false, fmt.Errorf("another shift of this tree was broken off; finish it first: nsferry shift --from %s --to %s",
			spec(j.View.From), spec(j.View.To))
	}
	if !j.View.Seen.Equal(r.view.Seen) || j.View.RealRoot != r.view.RealRoot {
		return false, fmt.Errorf("%s: the shift that was broken off ran with other sub-ids or in another mode; finish it like that", r.slot.path)
	}
	r.sum.Resumed, r.sum.DryRun = true, r.options.DryRun
	if r.options.DryRun {
		r.sum.Inodes = j.Inodes
		return false, nil
	}
	return r.apply(ctx, f)
}

// fresh plans and carries out.
func (r *run) fresh(ctx context.Context) error {
	p, err := handoff.NewPending(r.slot.dir, r.slot.name, handoff.Options{Mode: 0o600, Overwrite: handoff.Exclusive})
	if err != nil {
		return fmt.Errorf("journal %s: %w; --journal names another place", r.slot.path, err)
	}
	defer func() { _ = p.Abort() }() // it is empty or no longer needed
	plan, err := planHalf.Run(ctx, r.env, planArgs{r.place, r.view, r.options.Workers, r.options.Shared}, nil, r.parent, p.File())
	if err != nil {
		return err
	}
	r.sum.Inodes, r.sum.Mounts, r.sum.DryRun = plan.Inodes, plan.Mounts, r.options.DryRun
	switch {
	case plan.Total > 0:
		return &MisfitError{plan.Misfits, plan.Total}
	case plan.Refused != "":
		return fmt.Errorf("%s; nothing was changed", plan.Refused)
	case r.options.DryRun:
		r.sum.Changed = plan.Changes
	}
	if plan.Changes == 0 || r.options.DryRun {
		return nil
	}
	if err := p.Commit(); err != nil {
		return fmt.Errorf("journal %s: %w", r.slot.path, err)
	}
	f, err := r.slot.open(r.env.Caller.UID)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = r.apply(ctx, f)
	return err
}

// apply carries out the journal f and removes it.
func (r *run) apply(ctx context.Context, f *os.File) (again bool, err error) {
	if _, err := f.Seek(0, 0); err != nil {
		return false, err
	}
	done, err := applyHalf.Run(ctx, r.env, applyArgs{r.place, r.view, r.options.Workers, r.sum.Resumed}, nil, r.parent, f)
	r.sum.Changed += done.Changed
	r.sum.Inodes = max(r.sum.Inodes, done.Inodes)
	if err != nil {
		return false, fmt.Errorf("%w (the same command goes on from here)", err)
	}
	if err := unix.Unlinkat(int(r.slot.dir.Fd()), r.slot.name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return false, &os.PathError{Op: "unlinkat", Path: r.slot.path, Err: err}
	}
	return done.Left > 0, nil
}

// open opens the journal. It decides who owns what and is setuid, so it counts only as a file of the caller's own that
// nobody else may write or has linked there.
func (s slot) open(caller uint32) (*os.File, error) {
	fd, err := unix.Openat(int(s.dir.Fd()), s.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: s.path, Err: err}
	}
	f := os.NewFile(uintptr(fd), s.path)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		f.Close()
		return nil, &os.PathError{Op: "fstat", Path: s.path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Uid != caller || st.Nlink != 1 || st.Mode&0o077 != 0 {
		f.Close()
		return nil, fmt.Errorf("%s: not a journal of yours (mode %o, owner %d, %d links); look at it, and remove it", s.path, st.Mode, st.Uid, st.Nlink)
	}
	return f, nil
}
