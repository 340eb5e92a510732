package ownership

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/idshift/userns"
)

type applyArgs struct {
	Place   place
	View    view // its reading is the journal's
	Workers int
	Resumed bool // the journal is from an earlier run
}

// applied is what was done.
type applied struct {
	Inodes  int64
	Changed int64
	Left    int64 // delicate inodes that the journal does not know: a new plan has to
}

// applyHalf gets the directory that the tree is in, and the whole journal. It may be broken off at any moment, and run again.
var applyHalf = userns.Half[applyArgs, applied]{Name: "shift", Func: func(ctx context.Context, in *userns.Inner, a applyArgs) (applied, error) {
	root, err := a.Place.open(in.Files[0])
	if err != nil {
		return applied{}, err
	}
	defer root.Close()
	if err := lock(root); err != nil {
		return applied{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(in.Files[1].Fd()), &st); err != nil {
		return applied{}, err
	}
	if st.Nlink == 0 {
		return applied{}, errors.New("another shift of this tree has just finished")
	}
	j, err := readJournal(in.Files[1])
	if err != nil {
		return applied{}, err
	}
	e, err := tree.RootEntry(root)
	if err != nil {
		return applied{}, err
	}
	if j.Ino != e.Stat.Ino || j.Dev != e.Device() {
		return applied{}, errors.New("the journal beside this tree is of another one that had its name")
	}
	a.View.Reading = j.View.Reading
	w := applier{view: a.View, journal: j}
	if !a.Resumed {
		w.since = j.Since
	}
	if _, err := eachHandle(ctx, root, a.Workers, w.visit); err != nil {
		return w.sum(), err
	}
	if w.unknown.Load() != nil {
		return w.sum(), fmt.Errorf("%s: %w, because it came into the tree after the shift was planned; move it away, and shift again", *w.unknown.Load(), errBoth)
	}
	if !a.Resumed && !w.sawAll(e) {
		return w.sum(), fmt.Errorf("%w: other names or files are in it than when the shift was planned; shift again", tree.ErrChanged)
	}
	if err := w.root(e); err != nil { // last: from now on the root tells that all is done
		return w.sum(), err
	}
	if s := w.sum(); !a.Resumed && s.Left > 0 {
		return s, fmt.Errorf("%w: %d files were given setuid bits, capabilities or owners since the shift was planned; shift again", tree.ErrChanged, s.Left)
	}
	return w.sum(), nil
}}

type applier struct {
	view    view
	journal *journal
	since   timestamp // see vouched; zero for a plan of an earlier run

	inodes, changed, left counter
	print                 atomic.Uint64
	unknown               atomic.Pointer[string] // a path
}

func (a *applier) sum() applied {
	return applied{a.inodes.n.Load(), a.changed.n.Load(), a.left.n.Load()}
}

// sawAll tells whether all inodes but the root, which were visited, and the root are those of the plan.
func (a *applier) sawAll(root *tree.Entry) bool {
	return a.inodes.n.Load()+1 == a.journal.Inodes && a.print.Load()+inodeOf(&root.Stat).fingerprint() == a.journal.Print
}

func (a *applier) visit(e *tree.Entry, h *tree.Handle) error {
	if e.Path == "." {
		return nil
	}
	return a.one(h)
}

func (a *applier) root(e *tree.Entry) error {
	h, err := e.OpenHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	return a.one(h)
}

func (a *applier) one(h *tree.Handle) error {
	a.inodes.add(1)
	a.print.Add(inodeOf(&h.Stat).fingerprint())
	r, recorded := a.journal.find(h)
	var attrs []tree.Xattr
	if recorded || !a.vouched(h) {
		var err error
		if attrs, err = h.Ownership(); err != nil {
			return err
		}
	}
	w, seen := r.Wish, h
	if recorded {
		seen = r.seen()
	} else {
		var ok bool
		var err error
		if w, ok, err = a.decide(h, attrs); err != nil || !ok {
			return err
		}
	}
	changed, err := w.grant(h, attrs, seen)
	if changed {
		a.changed.add(1)
	}
	return err
}

// vouched tells that an inode without a record is as the plan saw it, so that it has no attributes to change: its ctime, which
// nobody can set, is older than the plan. What came into the tree later with a directory has old ctimes too; the sum of
// fingerprints tells of that, before the root is changed.
func (a *applier) vouched(h *tree.Handle) bool { return timeOf(h.Stat.Ctime).before(a.since) }

// decide says what an inode without a record shall have; false when that has to wait for another plan.
func (a *applier) decide(h *tree.Handle, attrs []tree.Xattr) (w wish, now bool, err error) {
	refused := false
	w, err = a.view.decide(h.Path, &h.Stat, attrs, func(error) { refused = true })
	switch {
	case err != nil:
		return w, false, err
	case w.both && a.view.Reading != asTo:
		a.unknown.Store(&h.Path)
		return w, false, nil
	case !w.changes && !refused:
		return w, false, nil
	case refused || w.delicate():
		a.left.add(1)
		return w, false, nil
	}
	return w, true, nil
}
