package archive

import (
	"context"
	"crypto/sha256"
	"slices"
	"strings"

	"github.com/nsferry/nsferry/archive/statindex"
	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/archive/zframe/toc"
)

// examine tells what the inode that has the name of w takes to be what w says. The cheapest questions come first.
func (r *refresher) examine(ctx context.Context, w *want) (action, error) {
	if err := ctx.Err(); err != nil {
		return doKeep, err
	}
	st := &w.have.stat
	known, _ := r.Index.Lookup(st)
	same, err := r.sameContent(ctx, w, known)
	switch {
	case err != nil:
		return doKeep, err
	case !same:
		return doMake, nil
	case !w.meta.Fits(st):
		return doAdjust, nil
	case known.Has(statindex.NoXattrs) && len(w.meta.Xattrs) == 0:
		return doKeep, nil
	}
	h, err := r.root.OpenHandle(w.Name)
	if err != nil {
		return doKeep, err
	}
	defer h.Close()
	if err := h.Is(st); err != nil {
		return doKeep, err
	}
	has, err := h.Has(&w.meta, r.Policy.spares)
	if err == nil && !has {
		return doAdjust, nil
	}
	return doKeep, err
}

// spares tells which attributes a tree may have beyond what an archive says: those that an archive made with the
// policy Portable never has, as a security module's label.
func (p Policy) spares(key string) bool {
	return !Portable.takes(key) && (p.Xattrs != All || !strings.HasPrefix(key, "trusted."))
}

// sameContent compares what metadata do not tell.
func (r *refresher) sameContent(ctx context.Context, w *want, known statindex.Record) (bool, error) {
	st := &w.have.stat
	switch w.Type {
	case toc.File:
		return r.sameFile(ctx, w, known)
	case toc.Symlink:
		return w.have.target == w.Link, nil
	case toc.Char, toc.Block:
		return st.Rdev_major == w.DevMajor && st.Rdev_minor == w.DevMinor, nil
	}
	return true, nil
}

func (r *refresher) sameFile(ctx context.Context, w *want, known statindex.Record) (bool, error) {
	if int64(w.have.stat.Size) != w.Size {
		return false, nil
	}
	if known.Has(statindex.Digest) && known.Digest != w.Digest {
		return false, nil
	}
	noHoles := w.Size <= leastHole || known.Has(statindex.NoHoles)
	if noHoles && w.Sparse == nil && (known.Has(statindex.Digest) || w.Size == 0) {
		return true, nil
	}
	f, err := tree.OpenFile(r.root, w.Name, &w.have.stat)
	if err != nil {
		return false, err
	}
	defer f.Close()
	var segs []tree.Segment
	if w.Size > leastHole {
		if segs, err = f.Segments(leastHole); err != nil {
			return false, err
		}
	}
	if (segs == nil) != (w.Sparse == nil) || !slices.EqualFunc(segs, w.Sparse, func(a tree.Segment, b toc.Segment) bool { return a == tree.Segment(b) }) {
		return false, nil
	}
	if known.Has(statindex.Digest) {
		return true, nil
	}
	sum := sha256.New()
	if err := copyContent(ctx, sum, &segmentReader{f: f, segs: segs, size: w.Size}, w.Size, w.Sparse); err != nil {
		return false, err
	}
	return [32]byte(sum.Sum(nil)) == w.Digest, f.Unchanged()
}

// segmentReader reads the data of a file, holes left out.
type segmentReader struct {
	f    *tree.File
	segs []tree.Segment // nil: all of it
	size int64
	off  int64
}

func (s *segmentReader) Read(p []byte) (int, error) {
	end := s.size
	if s.segs != nil {
		for len(s.segs) > 1 && s.off >= s.segs[0].Offset+s.segs[0].Length {
			s.segs = s.segs[1:]
		}
		s.off = max(s.off, s.segs[0].Offset)
		end = s.segs[0].Offset + s.segs[0].Length
	}
	p = p[:min(int64(len(p)), end-s.off)]
	err := s.f.ReadFull(p, s.off)
	s.off += int64(len(p))
	return len(p), err
}
