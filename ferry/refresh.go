package ferry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/statindex"
	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/idshift/userns"

	"golang.org/x/sys/unix"
)

// RefreshOptions say how a tree is turned into what an archive holds.
type RefreshOptions struct {
	Workers  int
	Policy   archive.Policy
	Exclude  archive.Excludes
	Sums     [][32]byte // if not nil, those of the archive's frames; see archive.RefreshOptions
	Origin   string     // recorded in the new index
	Index    *os.File   `json:"-"` // of the tree, or nil: then all of it is read
	NewIndex *os.File   `json:"-"` // where a new index of the tree is written to, or nil
	Progress Progress   `json:"-"`
}

// Refreshed says what Refresh did.
type Refreshed struct {
	archive.Refreshed
	Fresh   bool   `json:"fresh,omitempty"`    // there was no tree: all of it was unpacked
	Resumed bool   `json:"resumed,omitempty"`  // it went on with what an earlier run that was killed had left
	Indexed bool   `json:"indexed"`            // NewIndex was written
	NoIndex string `json:"no_index,omitempty"` // why Index was not used, or NewIndex was not written
}

// refreshResult is what the half returns.
type refreshResult struct {
	Refreshed
	Damage string
}

type refreshArgs struct {
	Rest, Name  string
	As          userns.FSIDs
	IDs         archive.IDs
	Wary        bool
	Index, Next bool // the files that follow
	Options     RefreshOptions
}

// Refresh turns the tree dir into exactly the state of the archive in, a file that stays the caller's; see archive.Refresh. A tree
// that is absent or empty is unpacked, which an archive of any make will do for. All of an existing one must belong to the map.
//
// From the first change on until the last one the tree does not have its name but that of a partial one beside it; so what has the
// name is one state or the other. When the process is killed between, the next Refresh finds the partial tree, and completes it. Who has
// the tree open, or is in it, sees it change.
func Refresh(ctx context.Context, e *userns.Env, in *os.File, dir string, o RefreshOptions) (r Refreshed, err error) {
	parent, rest, name, err := OpenParent(dir)
	if err != nil {
		return r, err
	}
	defer parent.Close()
	o.Policy = o.Policy.WithDefaults(Privileged(e))
	progress := o.Progress.raw()
	root, _ := e.Plain.UID.ToOutside(0)
	a := refreshArgs{
		Rest: rest, Name: name, As: e.CallerFSIDs(), IDs: ids(e), Index: o.Index != nil, Next: o.NewIndex != nil, Options: o,
		Wary: int(root) == os.Getuid(), // inner root is the caller: whose a tree is does not tell what it is
	}
	files := []*os.File{in, parent}
	for _, f := range []*os.File{o.Index, o.NewIndex} {
		if f != nil {
			files = append(files, f)
		}
	}
	res, err := refreshHalf.Run(ctx, e, a, progress, files...)
	if err == nil && res.Damage != "" {
		err = &DamagedError{res.Damage}
	}
	if err != nil {
		return res.Refreshed, fmt.Errorf("refresh %s: %w", dir, err)
	}
	return res.Refreshed, nil
}

// refreshHalf gets the archive, the directory that the tree is in, and the files of the index.
var refreshHalf = userns.Half[refreshArgs, refreshResult]{Name: "refresh", Func: func(ctx context.Context, in *userns.Inner, a refreshArgs) (r refreshResult, err error) {
	parent, err := OpenParentDir(in.Files[1], a.Rest, a.As)
	if err != nil {
		return r, err
	}
	defer parent.Close()
	f := &refresh{refreshArgs: a, parent: parent, in: in}
	f.files()
	p, err := f.find()
	switch {
	case err != nil:
	case p == nil:
		err = f.unpack(ctx)
	default:
		defer p.dir.Close() // closed already when it was committed
		err = f.run(ctx, p)
	}
	if archive.Damaged(err) {
		return refreshResult{f.done, err.Error()}, nil
	}
	if err == nil {
		f.done.Indexed = f.next.write()
		f.done.NoIndex = cmp.Or(f.done.NoIndex, f.next.why)
	}
	return refreshResult{Refreshed: f.done}, err
}}

// refresh is one run of the half.
type refresh struct {
	refreshArgs
	parent *ParentDir
	in     *userns.Inner
	done   Refreshed
	index  *os.File // nil: there is none
	next   *indexer
}

// unpack makes the tree where there is none.
func (f *refresh) unpack(ctx context.Context) (err error) {
	o := f.Options
	f.done.Fresh = true
	f.done.Summary, err = unpack(ctx, f.in, unpackArgs{f.Rest, f.Name, f.As, f.IDs, false, UnpackOptions{Workers: o.Workers, Policy: o.Policy, Exclude: o.Exclude, Sums: o.Sums}}, f.next)
	f.done.Made = f.done.Entries
	return err
}

// find opens and locks the tree, or what an earlier run has left of it. There is none of both when it returns nil.
func (f *refresh) find() (*partial, error) {
	fd, err := f.parent.OpenDir(f.Name)
	switch {
	case errors.Is(err, unix.ENOENT):
		return f.leftover()
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR):
		return nil, &fs.PathError{Op: "refresh", Path: f.Name, Err: describe(unix.ENOTDIR)}
	case err != nil:
		return nil, &fs.PathError{Op: "openat", Path: f.Name, Err: err}
	}
	p := &partial{parent: f.parent, name: f.Name, dir: os.NewFile(uintptr(fd), f.parent.path(f.Name))}
	names, err := tree.ReadNames(fd)
	if err == nil && len(names) > 0 {
		if err = f.apart(p); err == nil {
			err = f.lock(p)
		}
	}
	if err != nil || len(names) == 0 {
		return nil, errors.Join(err, p.dir.Close())
	}
	return p, nil
}

// apart refuses a mount point: what is mounted is somebody else's, and its name cannot be changed.
func (f *refresh) apart(p *partial) error {
	at, err := tree.RootEntry(f.parent.File)
	if err != nil {
		return err
	}
	root, err := tree.RootEntry(p.dir)
	if err == nil && root.Stat.Mnt_id != at.Stat.Mnt_id {
		err = &fs.PathError{Op: "refresh", Path: p.dir.Name(), Err: describe(unix.EBUSY)}
	}
	return err
}

// lock makes sure that no other process works on the tree.
func (f *refresh) lock(p *partial) error {
	err := unix.Flock(int(p.dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("another process works on the tree: %w", err)
	}
	if err != nil {
		return &fs.PathError{Op: "flock", Path: p.dir.Name(), Err: err}
	}
	return nil
}

// leftover adopts a partial tree that nobody fills any more.
func (f *refresh) leftover() (*partial, error) {
	names, err := tree.ReadNames(int(f.parent.Fd()))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.parent.Name(), err)
	}
	for _, name := range partials(names, f.Name) {
		fd, err := f.parent.OpenDir(name)
		if err != nil {
			continue // see ParentDir.sweep
		}
		p := &partial{parent: f.parent, name: f.Name, temp: name, dir: os.NewFile(uintptr(fd), f.parent.path(name))}
		if f.lock(p) == nil && f.named(p, name) == nil {
			f.done.Resumed = true
			return p, nil
		}
		p.dir.Close()
	}
	return nil, nil
}

// named makes sure that the directory still has the name.
func (f *refresh) named(p *partial, name string) error {
	var there, ours unix.Stat_t
	err := f.parent.Do(func() error { return unix.Fstatat(int(f.parent.Fd()), name, &there, unix.AT_SYMLINK_NOFOLLOW) })
	if err := errors.Join(err, unix.Fstat(int(p.dir.Fd()), &ours)); err != nil {
		return &fs.PathError{Op: "fstatat", Path: p.dir.Name(), Err: err}
	}
	if there.Ino != ours.Ino || there.Dev != ours.Dev {
		return fmt.Errorf("%s: %w", p.dir.Name(), tree.ErrChanged)
	}
	return nil
}

func (f *refresh) run(ctx context.Context, p *partial) (err error) {
	o := f.Options
	if !f.done.Resumed {
		if err := f.parent.Sweep(ctx, f.Name); err != nil {
			return err
		}
	}
	var known *statindex.Index
	if f.index != nil {
		if known, err = statindex.Read(f.index, p.dir); err != nil {
			f.done.NoIndex = err.Error()
		}
	}
	f.done.Refreshed, err = archive.Refresh(ctx, f.in.Files[0], p.dir, archive.RefreshOptions{
		IDs: f.IDs, Policy: o.Policy, Exclude: o.Exclude, Sums: o.Sums, Workers: Workers(o.Workers), Resumed: f.done.Resumed, Wary: f.Wary && !f.done.Resumed, Index: known,
		Begin: func() error { return f.hide(p) }, Progress: report(f.in),
		Remember: f.next.begin(p.dir),
	})
	if err == nil && p.temp != "" {
		err = p.commit()
	}
	if err != nil && p.temp != "" {
		return fmt.Errorf("%w; the tree is incomplete, and waits as %s for the next refresh, or nsferry rm, of %s", err, p.temp, f.Name)
	}
	return err
}

// files finds those of the index.
func (f *refresh) files() {
	f.next = &indexer{origin: f.Options.Origin}
	rest := f.in.Files[2:]
	if f.Index {
		f.index, rest = rest[0], rest[1:]
	}
	if f.Next {
		f.next.out = rest[0]
	}
}

// hide takes the tree's name away, until it is complete.
func (f *refresh) hide(p *partial) error {
	if p.temp != "" {
		return nil // it has never got it back
	}
	if err := f.named(p, f.Name); err != nil {
		return err
	}
	temp := PartialName(f.Name)
	fd := int(f.parent.Fd())
	err := f.parent.Do(func() error { return unix.Renameat2(fd, f.Name, fd, temp, unix.RENAME_NOREPLACE) })
	if errors.Is(err, unix.EINVAL) { // the filesystem lacks the flag; the name is a random one
		err = f.parent.Do(func() error { return unix.Renameat(fd, f.Name, fd, temp) })
	}
	if err != nil {
		return &fs.PathError{Op: "rename", Path: p.dir.Name(), Err: describe(err)}
	}
	p.temp = temp
	return nil
}
