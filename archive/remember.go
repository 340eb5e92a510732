package archive

import (
	"errors"
	"time"

	"github.com/nsferry/nsferry/archive/statindex"
	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/archive/zframe/toc"

	"golang.org/x/sys/unix"
)

// youth is how old the last change of an inode must be, when the tree is looked at, for what was found to be kept: much more than
// the clocks that stamp inodes need (docs/INDEX.md §1).
const youth = 3 * time.Second

// remember tells the index what is known of the tree's inodes now: what the old index said of those that nobody touched, and of the
// others what was compared or written.
func (r *refresher) remember() error {
	if r.Remember == nil || !r.sum.Changed() && !r.news() {
		return nil
	}
	out := r.Remember()
	if out == nil {
		return nil
	}
	for i := range r.wants {
		w := &r.wants[i]
		if w.carrier != i {
			continue
		}
		if w.do == doKeep {
			if known, _ := r.Index.Lookup(&w.have.stat); complete(known, w) {
				out.Add(&w.have.stat, known)
				continue
			}
			if time.Unix(w.have.stat.Ctime.Sec, 0).Add(youth).After(r.begun) {
				continue
			}
		}
		if err := r.rememberOne(out, w); err != nil && !errors.Is(err, tree.ErrChanged) {
			return err
		}
	}
	return nil
}

// news tells whether something was found out that the old index does not know.
func (r *refresher) news() bool {
	for i := range r.wants {
		w := &r.wants[i]
		if w.carrier != i {
			continue
		}
		if known, _ := r.Index.Lookup(&w.have.stat); !complete(known, w) {
			return true
		}
	}
	return false
}

// complete tells whether there is nothing about w left to find out.
func complete(known statindex.Record, w *want) bool {
	switch {
	case len(w.meta.Xattrs) == 0 && !known.Has(statindex.NoXattrs):
		return false
	case w.Type != toc.File:
		return true
	}
	return known.Has(statindex.Digest) && (w.Sparse != nil || known.Has(statindex.NoHoles))
}

func (r *refresher) rememberOne(out *statindex.Writer, w *want) error {
	h, err := r.root.OpenHandle(w.Name)
	if err != nil {
		return err
	}
	defer h.Close()
	if w.do == doKeep {
		if err := h.Is(&w.have.stat); err != nil {
			return err
		}
	}
	var rec statindex.Record
	bare, err := h.Bare()
	if err != nil {
		return err
	}
	if bare {
		rec.Flags |= statindex.NoXattrs
	}
	if w.Type == toc.File {
		if w.Size-sparseData(w.Entry) <= maxHoles {
			rec.Flags |= statindex.Digest
			rec.Digest = w.Digest
		}
		if err := noHoles(r.root, w.Name, &h.Stat, &rec); err != nil {
			return err
		}
	}
	out.Add(&h.Stat, rec)
	return nil
}

// noHoles asks the filesystem, not the archive: some find holes by themselves.
func noHoles(root *tree.Root, path string, st *unix.Statx_t, rec *statindex.Record) error {
	if st.Size > leastHole {
		f, err := tree.OpenFile(root, path, st)
		if err != nil {
			return err
		}
		defer f.Close()
		segs, err := f.Segments(leastHole)
		if err != nil || segs != nil {
			return err
		}
	}
	rec.Flags |= statindex.NoHoles
	return nil
}
