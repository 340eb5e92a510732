package archive

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/nsferry/nsferry/archive/tarfmt"
	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/archive/zframe"
)

// Mark is the comment of the first entry of an archive with a table of contents (FORMAT §6).
const Mark = "nsferry-archive-1"

// Format is what Create writes.
type Format string

// The formats. Framed is docs/FORMAT.md; the others are its tar stream without the mark.
const (
	Framed Format = "zst"
	Gzip   Format = "gz"
	Plain  Format = "tar"
)

// CreateOptions say how a tree becomes an archive.
type CreateOptions struct {
	ScanOptions
	Format  Format // default Framed
	Level   int    // of compression, on the scale of zstd(1) or gzip(1); 0 is 3 or 6
	Workers int    // goroutines that read, hash and compress; the bytes do not depend on it
	// Header, if not nil, is asked about the header blocks of every entry; what it says ends Create.
	Header func(blocks []byte) error
	// Progress, if not nil, is told how many bytes of the tar stream are done. It is called in one goroutine.
	Progress func(raw int64)
}

func (o *CreateOptions) check() error {
	o.Workers = max(o.Workers, 1)
	if o.Format == "" {
		o.Format = Framed
	}
	return o.Exclude.Check()
}

// Create writes the tree at root to out. Both stay the caller's; out is written in order from its current
// position and may be a pipe. After an error what was written is worthless.
func Create(ctx context.Context, root *os.File, out io.Writer, o CreateOptions) (Summary, error) {
	if err := o.check(); err != nil {
		return Summary{}, err
	}
	out, release, err := UnstalledWriter(ctx, out)
	if err != nil {
		return Summary{}, err
	}
	defer release()
	sink, err := newSink(out, &o)
	if err != nil {
		return Summary{}, err
	}
	c := &creator{o: &o, sink: sink}
	if err := c.run(ctx, func(ctx context.Context, cut *cutter) error { return c.walk(ctx, root, cut) }); err != nil {
		return c.sum, err
	}
	c.sum.Stored, err = sink.close(o.Policy.record(&c.sum))
	return c.sum, err
}

// creator is one run of Create. The walk, the workers and the consumer each touch their own fields.
type creator struct {
	o    *CreateOptions
	sink sink
	sum  Summary // the walk's; Raw and Frames are the consumer's
	pool zframe.Buffers
	// reuse, if not nil, appends the stored form of a frame whose first headers came from offset at of a source and
	// that holds raw, or nothing when there is none.
	reuse func(dst []byte, at int64, raw []byte) ([]byte, error)
}

// run lets walk put entries into the cutter, carries out the frames on several workers and hands them to the sink.
func (c *creator) run(ctx context.Context, walk func(context.Context, *cutter) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	order := zframe.NewOrdered(ctx, zframe.Limits{Workers: c.o.Workers, Jobs: 2*c.o.Workers + 1}, c.consume)
	cut := cutter{emit: func(p plan) error {
		return order.Submit(2*p.raw, func(worker int) (frame, error) { return c.build(p, worker) })
	}}
	err := walk(ctx, &cut)
	if err == nil {
		err = cut.finish()
	}
	if err != nil {
		cancel()
	}
	// A failure of the pipeline is why the walk was cancelled, not the other way round. After a whole walk, a pipeline that was
	// cancelled has not written everything.
	if werr := order.Wait(); werr != nil && (err == nil || !errors.Is(werr, context.Canceled)) {
		return werr
	}
	return err
}

// walk scans the tree and cuts it into frames. When ids turn out to have no place, it goes on without
// emitting anything, to find them all.
func (c *creator) walk(ctx context.Context, dir *os.File, cut *cutter) error {
	root := tree.NewRoot(dir)
	s := newScanner(root, c.o.ScanOptions, &c.sum)
	err := tree.Walk(ctx, dir, func(e *tree.Entry) error {
		h, err := s.header(e)
		if err != nil || h == nil || s.bad.any() {
			return err
		}
		if err := c.add(cut, e.Path, &source{header: h, from: treeFile{root, e.Path, e.Stat}, at: -1}); err != nil {
			return err
		}
		if e.Mount && !c.o.CrossMounts {
			return tree.ErrSkipDir
		}
		return nil
	})
	return errors.Join(err, s.misfit())
}

// add puts one entry into the stream.
func (c *creator) add(cut *cutter, path string, src *source) error {
	h := src.header
	if path == "." && c.o.Format == Framed {
		h.Comment = Mark
	}
	bytes, err := c.sink.header(h)
	if err == nil && c.o.Header != nil {
		err = c.o.Header(bytes)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	src.length = int64(len(bytes))
	c.sum.Entries++
	if h.Type == tarfmt.Reg {
		c.sum.Files++
		c.sum.Content += h.Size
		if h.Sparse != nil {
			src.smap = h.AppendSparseMap(nil)
		}
	}
	return cut.add(src, bytes, h.Stored())
}

// frame is a plan carried out.
type frame struct {
	plan
	bytes []byte // what goes to the sink, from the pool
	sums  [][32]byte
	sum   [32]byte // sha256 of bytes, of a framed archive
}

// build reads, hashes and compresses one frame. It runs in a worker.
func (c *creator) build(p plan, worker int) (frame, error) {
	f := frame{plan: p, sums: make([][32]byte, len(p.parts))}
	raw := c.pool.Get(int(p.raw))
	for i := range p.parts {
		var err error
		if raw, f.sums[i], err = p.parts[i].read(raw); err != nil {
			return f, err
		}
	}
	if p.end {
		raw = append(raw, tarfmt.Trailer[:]...)
	}
	if int64(len(raw)) != p.raw {
		panic(fmt.Sprintf("archive: internal error: frame of %d bytes was planned with %d", len(raw), p.raw))
	}
	if err := c.encode(&f, worker, raw); err != nil {
		return f, err
	}
	if c.o.Format == Framed {
		f.sum = sha256.Sum256(f.bytes)
	}
	return f, nil
}

// encode turns raw, a buffer of the pool, into the frame's bytes.
func (c *creator) encode(f *frame, worker int, raw []byte) (err error) {
	if at := f.parts[0].origin(); c.reuse != nil && at >= 0 {
		if f.bytes, err = c.reuse(c.pool.Get(len(raw)), at, raw); err != nil || f.bytes != nil {
			c.pool.Put(raw)
			return err
		}
	}
	f.bytes = c.sink.encode(worker, &c.pool, raw)
	return nil
}

// consume takes the frames in order.
func (c *creator) consume(f frame) error {
	err := c.sink.write(&f)
	c.pool.Put(f.bytes)
	c.sum.Frames++
	c.sum.Raw += f.raw
	if c.o.Progress != nil {
		c.o.Progress(c.sum.Raw)
	}
	return err
}
