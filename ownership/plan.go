package ownership

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/idshift"
	"github.com/nsferry/nsferry/idshift/userns"
)

type counter struct{ n atomic.Int64 }

func (c *counter) add(n int64) { c.n.Add(n) }

type planArgs struct {
	Place   place
	View    view
	Workers int
	Shared  bool
}

// planned is what the plan found. Nothing was changed.
type planned struct {
	Inodes  int64 // names, the root's included
	Changes int64
	Mounts  int64
	Misfits []string `json:",omitempty"` // at most maxNamed
	Total   int      // of misfits
	Refused string   `json:",omitempty"` // why it cannot be done at all
}

// maxNamed bounds how many ids or paths a message lists.
const maxNamed = 20

// planHalf gets the directory that the tree is in, and the journal to write.
var planHalf = userns.Half[planArgs, planned]{Name: "shift plan", Func: func(ctx context.Context, in *userns.Inner, a planArgs) (planned, error) {
	root, err := a.Place.open(in.Files[0])
	if err != nil {
		return planned{}, err
	}
	defer root.Close()
	if err := lock(root); err != nil {
		return planned{}, err
	}
	e, err := tree.RootEntry(root)
	if err != nil {
		return planned{}, err
	}
	a.View.Reading = a.View.readRoot(e.Stat.Uid, e.Stat.Gid)
	out := bufio.NewWriterSize(in.Files[1], 1<<20)
	p := planner{view: a.View, out: json.NewEncoder(out), links: make(map[inode]*names)}
	since, err := clockOf(in.Files[1], e)
	if err != nil {
		return planned{}, err
	}
	if err := p.out.Encode(header{journalVersion, e.Device(), e.Stat.Ino, a.View, since}); err != nil {
		return planned{}, err
	}
	p.sum.Mounts, err = each(ctx, root, a.Workers, p.visit)
	if err != nil {
		return planned{}, err
	}
	if err := errors.Join(p.out.Encode(end{p.records, p.sum.Inodes, p.print}), out.Flush()); err != nil {
		return planned{}, err
	}
	p.finish(a.Shared)
	return p.sum, nil
}}

type planner struct {
	view view

	mu      sync.Mutex
	sum     planned
	out     *json.Encoder
	records int64
	print   uint64
	misfits map[misfit]*found
	links   map[inode]*names
	both    string // a path with an id that both maps hold
	late    string // a path with an id that only the target map holds
}

type misfit struct{ kind, id, what string }

type found struct {
	count int64
	first string
}

// names counts how many names of an inode are in the tree.
type names struct {
	here, all uint32
	path      string
	changes   bool
}

func (p *planner) visit(e *tree.Entry) error {
	var refused []error
	w, err := p.decide(e, func(err error) { refused = append(refused, err) })
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	closed := (e.Stat.Uid == overflowID || e.Stat.Gid == overflowID) && !p.view.RealRoot && !e.OwnerIsMapped()
	if closed {
		refused = append(refused, errors.New("an owner or group that is neither yours nor one of your sub-ids"))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.take(e, &w, refused); err != nil {
		return err
	}
	if closed && e.Type() == unix.S_IFDIR {
		return tree.ErrSkipDir // perhaps it cannot be entered; the plan ends with a refusal anyway
	}
	return nil
}

// decide is view.decide. Most inodes have nothing but an owner and a group, which the walk has read already; the others are
// opened, so that all that is recorded of one is of the same inode.
func (p *planner) decide(e *tree.Entry, refuse func(error)) (wish, error) {
	more, err := e.HoldsIDs()
	if err != nil {
		return wish{}, err
	}
	if !more {
		return p.view.decide(e.Path, &e.Stat, nil, refuse)
	}
	h, err := e.OpenHandle()
	if err != nil {
		return wish{}, err
	}
	defer h.Close()
	attrs, err := h.Ownership()
	if err != nil {
		return wish{}, err
	}
	e.Stat = h.Stat
	return p.view.decide(e.Path, &e.Stat, attrs, refuse)
}

// overflowID is what the kernel shows for an id without a mapping (user_namespaces(7)); it is also nobody's.
const overflowID = 65534

// take enters what was decided about an inode.
func (p *planner) take(e *tree.Entry, w *wish, refused []error) error {
	p.sum.Inodes++
	id := inodeOf(&e.Stat)
	p.print += id.fingerprint()
	for _, err := range refused {
		p.refuse(e.Path, err)
	}
	if w.both && p.both == "" {
		p.both = e.Path
	}
	if w.late && p.late == "" {
		p.late = e.Path
	}
	if e.Stat.Nlink > 1 && e.Type() != unix.S_IFDIR {
		if n := p.links[id]; n != nil {
			n.here++
			return nil
		}
		p.links[id] = &names{1, e.Stat.Nlink, e.Path, w.changes}
	}
	if w.changes {
		p.sum.Changes++
	}
	if w.both || w.changes && (w.delicate() || len(w.Attrs) > 0) {
		p.records++
		return p.out.Encode(newRecord(&e.Stat, *w))
	}
	return nil
}

func (p *planner) refuse(path string, err error) {
	key := misfit{what: err.Error()}
	var u *idshift.UnmappedError
	if errors.As(err, &u) {
		key = misfit{u.Kind.String(), fmt.Sprintf("%10d", u.ID), u.Error()}
	}
	if p.misfits == nil {
		p.misfits = make(map[misfit]*found)
	}
	if f := p.misfits[key]; f != nil {
		f.count++
		f.first = min(f.first, path)
		return
	}
	p.misfits[key] = &found{1, path}
}

// finish turns what was entered into the answer.
func (p *planner) finish(shared bool) {
	keys := make([]misfit, 0, len(p.misfits))
	for k := range p.misfits {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b misfit) int {
		return cmp.Or(strings.Compare(a.kind, b.kind)*-1, strings.Compare(a.id, b.id), strings.Compare(a.what, b.what))
	})
	p.sum.Total = len(keys)
	for _, k := range keys[:min(len(keys), maxNamed)] {
		f := p.misfits[k]
		p.sum.Misfits = append(p.sum.Misfits, fmt.Sprintf("%s (%d ×, first %q)", k.what, f.count, f.first))
	}
	if p.view.Reading == asFrom && p.both != "" && p.late != "" {
		p.sum.Refused = fmt.Sprintf("the maps overlap, and the tree has ids of both: %q has an id that both maps hold, %q one that only the target map holds, "+
			"as if a shift had been broken off whose journal is gone", p.both, p.late)
	}
	if !shared {
		p.refuseShared()
	}
}

// refuseShared names inodes that would change and have names outside of the tree, where they may be somebody else's business: a
// package that is hard-linked from a download cache, for example.
func (p *planner) refuseShared() {
	var paths []string
	for _, n := range p.links {
		if n.changes && n.here < n.all {
			paths = append(paths, fmt.Sprintf("%q", n.path))
		}
	}
	if len(paths) == 0 {
		return
	}
	slices.Sort(paths)
	p.sum.Refused = fmt.Sprintf("%d files have other names outside of the tree, whose owner would change too: %s; "+
		"copy them, or allow it with --shared", len(paths), strings.Join(paths[:min(len(paths), maxNamed)], ", "))
}
