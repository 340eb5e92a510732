package archive

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/archive/zframe"
	"github.com/nsferry/nsferry/archive/zframe/toc"

	"golang.org/x/sys/unix"
)

// checkFrames compares the frames that are needed with their sums, so that a damaged archive is found before anything is changed.
func (r *refresher) checkFrames(ctx context.Context) error {
	order := zframe.NewOrdered(ctx, zframe.Limits{Workers: r.Workers}, func(struct{}) error { return nil })
	var pool zframe.Buffers
	for _, i := range r.need {
		if err := order.Submit(r.frames[i].Stored, func(int) (none struct{}, err error) {
			b, err := r.file.ReadStored(i, pool.Get(int(r.frames[i].Stored)))
			if err == nil && sha256.Sum256(b) != r.frames[i].Sum {
				err = &zframe.CorruptError{Where: fmt.Sprintf("frame %d", i), Err: errors.New("does not have the sum that the table of contents gives")}
			}
			pool.Put(b)
			return none, err
		}); err != nil {
			break // Wait returns it too
		}
	}
	return order.Wait()
}

// apply carries out the plan: first what is in the way goes, then the new inodes come, and last the metadata, which the former
// two change.
func (r *refresher) apply(ctx context.Context) error {
	for dir, names := range r.remove {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := r.root.RemoveIn(ctx, dir, names, r.Workers); err != nil {
			return err
		}
	}
	if err := r.make(ctx); err != nil {
		return err
	}
	for i := range r.wants {
		if r.wants[i].do != doAdjust {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.adjust(&r.wants[i]); err != nil {
			return err
		}
	}
	return r.keepTimes()
}

// make makes what is new.
func (r *refresher) make(ctx context.Context) (err error) {
	if r.sum.Made+r.sum.Linked == 0 {
		return nil
	}
	b, err := tree.NewBuilder(r.dir, tree.BuildOptions{Workers: r.Workers})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	feed := newFeed(ctx, r)
	defer feed.close()
	for i := range r.wants {
		w := &r.wants[i]
		var err error
		switch w.do {
		case doLink:
			err = b.Link(ctx, w.Name, r.wants[w.carrier].Name)
		case doMake:
			err = r.makeOne(ctx, b, feed, w)
		}
		if err != nil {
			return fmt.Errorf("entry %s: %w", quote(w.Name), err)
		}
	}
	return nil
}

func (r *refresher) makeOne(ctx context.Context, b *tree.Builder, feed *feed, w *want) error {
	switch w.Type {
	case toc.Dir:
		return b.Dir(ctx, w.Name, w.meta)
	case toc.Symlink:
		return b.Symlink(ctx, w.Name, w.Link, w.meta)
	case toc.File:
		return r.makeFile(ctx, b, feed, w)
	}
	return b.Node(ctx, w.Name, modes[w.Type], w.DevMajor, w.DevMinor, w.meta)
}

// makeFile takes the content from the archive, and checks that header and content are what the table of contents says.
func (r *refresher) makeFile(ctx context.Context, b *tree.Builder, feed *feed, w *want) error {
	content, err := feed.content(ctx, w)
	if err != nil {
		return err
	}
	var segs []tree.Segment
	if w.Sparse != nil {
		segs = make([]tree.Segment, len(w.Sparse))
		for i, s := range w.Sparse {
			segs[i] = tree.Segment(s)
		}
	}
	sum := newContentSum(ctx, content, w.Size, segs)
	if err := b.File(ctx, w.Name, w.meta, w.Size, segs, sum); err != nil {
		return err
	}
	if w.Size-sparseData(w.Entry) > maxHoles {
		return nil // nobody has the time to hash that
	}
	digest, err := sum.finish()
	if err == nil && digest != w.Digest {
		err = badDigest(w.Entry)
	}
	return err
}

func sparseData(e *toc.Entry) int64 {
	if e.Sparse == nil {
		return e.Size
	}
	n := int64(0)
	for _, s := range e.Sparse {
		n += s.Length
	}
	return n
}

// adjust gives an inode that stays its metadata.
func (r *refresher) adjust(w *want) error {
	h, err := r.root.OpenHandle(w.Name)
	if err != nil {
		return err
	}
	defer h.Close()
	seen := w.have.stat
	if w.have.isDir() || seen.Nlink > 1 {
		seen.Ctime = h.Stat.Ctime // our own changes of names have moved it
	}
	if err := h.Is(&seen); err != nil {
		return err
	}
	return h.Adjust(&w.meta, r.Policy.spares)
}

// keepTimes gives directories that nobody wants, but that have something excluded in them, their times back.
func (r *refresher) keepTimes() error {
	for dir := range r.touched {
		h := r.haves[dir]
		if _, wanted := r.at[dir]; wanted || h == nil {
			continue
		}
		at, err := r.root.OpenHandle(dir)
		if err != nil {
			return err
		}
		st := &h.stat
		m := tree.Meta{Mode: uint32(st.Mode) & 0o7777, UID: st.Uid, GID: st.Gid, ModTime: unix.Timespec{Sec: st.Mtime.Sec, Nsec: int64(st.Mtime.Nsec)}}
		err = at.Adjust(&m, func(string) bool { return true })
		at.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
