package archive

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/nsferry/nsferry/archive/zframe/toc"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// plan decides what each want takes and what goes. It changes nothing.
func (r *refresher) plan(ctx context.Context) error {
	if err := r.match(); err != nil {
		return err
	}
	if err := r.examineAll(ctx); err != nil {
		return err
	}
	r.remove, r.touched = make(map[string][]string), make(map[string]bool)
	for i := range r.wants {
		w := &r.wants[i]
		if w.carrier != i {
			r.planLink(w)
		}
		switch w.do {
		case doMake:
			r.sum.Made++
		case doLink:
			r.sum.Linked++
		default:
			continue
		}
		dir, _ := split(w.Name)
		r.touched[dir] = true
	}
	if err := r.planRemovals(); err != nil {
		return err
	}
	r.planDirs()
	for i := range r.wants {
		switch r.wants[i].do {
		case doKeep:
			r.sum.Kept++
		case doAdjust:
			r.sum.Adjusted++
		}
	}
	return r.planFrames()
}

// match gives each want the inode that may become its own: one of the right type under its name, which no want before it has taken,
// and which has no names but in the tree.
func (r *refresher) match() error {
	names := make(map[hardLink]uint32) // of inodes with several
	for _, h := range r.haves {
		if h.stat.Nlink > 1 && !h.isDir() {
			names[h.inode()]++
		}
	}
	taken := make(map[hardLink]bool)
	for i := range r.wants {
		w := &r.wants[i]
		w.do = doMake
		h := r.haves[w.Name]
		if h == nil {
			continue
		}
		w.have, h.wanted = h, true
		if r.kept[w.Name] && h.isDir() && r.wants[w.carrier].Type != toc.Dir {
			return fmt.Errorf("%s: a directory with something excluded in it is where the archive has something else", quote(w.Name))
		}
		if w.carrier != i || uint32(h.stat.Mode)&unix.S_IFMT != modes[w.Type] {
			continue
		}
		if !h.isDir() {
			if h.stat.Nlink > 1 && h.stat.Nlink != names[h.inode()] || taken[h.inode()] {
				continue
			}
			if h.stat.Nlink > 1 {
				taken[h.inode()] = true
			}
		}
		w.do = doKeep
	}
	return nil
}

// examineAll compares the inodes that may stay with what they shall be.
func (r *refresher) examineAll(ctx context.Context) error {
	const batch = 64
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(r.Workers)
	for from := 0; from < len(r.wants); from += batch {
		part := r.wants[from:min(from+batch, len(r.wants))]
		g.Go(func() error {
			for i := range part {
				if part[i].do != doKeep {
					continue
				}
				var err error
				if part[i].do, err = r.examine(ctx, &part[i]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// planLink keeps another name of an inode that stays.
func (r *refresher) planLink(w *want) {
	c := &r.wants[w.carrier]
	w.do = doLink
	if w.have != nil && (c.do == doKeep || c.do == doAdjust) && w.have.inode() == c.have.inode() {
		w.do = doKeep
	}
}

// goes tells whether what has the name now is in the way as a whole.
func (r *refresher) goes(h *have) bool {
	if !h.wanted {
		return !r.kept[h.path]
	}
	return h.isDir() && r.wants[r.wants[r.at[h.path]].carrier].Type != toc.Dir
}

// planRemovals finds the topmost names that nobody wants, and the directories that something else takes the place of.
func (r *refresher) planRemovals() error {
	for path, h := range r.haves {
		if path == "." || !r.goes(h) {
			continue
		}
		r.sum.Removed++
		dir, base := split(path)
		if up := r.haves[dir]; up == nil || !r.goes(up) {
			r.remove[dir] = append(r.remove[dir], base)
			r.touched[dir] = true
		}
	}
	for _, names := range r.remove {
		slices.Sort(names)
	}
	return nil
}

// planDirs has the directories adjusted whose time will move.
func (r *refresher) planDirs() {
	for dir := range r.touched {
		if i, ok := r.at[dir]; ok && r.wants[i].do == doKeep {
			r.wants[i].do = doAdjust
		}
	}
}

// planFrames finds the frames that hold content to be written.
func (r *refresher) planFrames() error {
	start := make([]int64, len(r.frames)+1)
	for i, f := range r.frames {
		start[i+1] = start[i] + f.Raw
	}
	need := make(map[int]bool)
	for i := range r.wants {
		w := &r.wants[i]
		if w.do != doMake || w.Type != toc.File {
			continue
		}
		stored := sparseStored(w.Entry)
		if stored == 0 {
			continue
		}
		end := start[w.Frame] + w.Offset + w.HeaderLen
		if stored > start[len(r.frames)]-end {
			return bad(w.Entry, "has more content than there is in the archive")
		}
		r.sum.Written += w.Size
		for f := w.Frame; f < len(r.frames) && start[f] < end+stored; f++ {
			need[f] = true
		}
	}
	r.need = slices.Sorted(maps.Keys(need))
	r.sum.Fetched = len(r.need)
	return nil
}

// sparseStored is how many bytes of data follow the headers of a file, the sparse map included.
func sparseStored(e *toc.Entry) int64 {
	if e.Sparse == nil {
		return e.Size
	}
	return sparseHeader(e).Stored()
}
