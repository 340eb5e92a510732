package archive

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync/atomic"

	"github.com/nsferry/nsferry/archive/statindex"
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
	// Base is an archive of an earlier state of the tree, or nil. Frames that it has are copied, after a look at their sums; the
	// bytes do not depend on it either. One that is of no use, or damaged, is no error: Summary.Reuse says why. It
	// has to be trusted as far as its table of contents says what is in its frames.
	Base *os.File
	// Elide allows to write nothing, and to say so in Summary.Reuse.Same, when the archive turns out to be the base, byte for byte.
	Elide bool
	// Record, if not nil, is told of every inode. Writing the index is the caller's business.
	Record *statindex.Writer
	// Explain also says in Summary.Reuse why frames were not copied, which takes time and memory to find out.
	Explain bool
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
	if o.Base != nil && o.Format != Framed {
		return fmt.Errorf("only an archive of the format zst can have a base, not %s", o.Format)
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
	c := &creator{o: &o}
	if o.Base != nil || o.Index != nil || o.Record != nil {
		c.sum.Reuse = new(Reuse)
	}
	if err := c.open(out); err != nil {
		return Summary{}, err
	}
	defer c.base.get() // which works with the caller's files
	if err := c.run(ctx, func(ctx context.Context, cut *cutter) error { return c.walk(ctx, root, cut) }); err != nil {
		return c.sum, err
	}
	c.sum.Stored, err = c.sink.close(o.Policy.record(&c.sum))
	if r := c.sum.Reuse; r != nil {
		r.BytesRead, r.Young = c.read.Load(), o.Record.Young()
		if s, ok := c.sink.(*framedSink); ok {
			r.Bytes, r.Shared, r.Same = s.out.copied, s.out.shared, s.out.same
		}
		if _, err := c.base.get(); err != nil {
			r.Refused = err.Error()
		}
	}
	return c.sum, err
}

// creator is one run of Create. The walk, the workers and the consumer each touch their own fields.
type creator struct {
	o      *CreateOptions
	sink   sink
	base   *opening // of the base; nil without one
	sum    Summary  // the walk's; Raw, Frames and Reuse are the consumer's
	pool   zframe.Buffers
	read   atomic.Int64 // bytes of the tree's files
	before earlier      // for Explain, once it is needed
	// inherited, if not nil, appends the stored form of a frame whose first headers came from offset at of a source and
	// that holds raw, or nothing when there is none.
	inherited func(dst []byte, at int64, raw []byte) ([]byte, error)
}

// open makes the sink, and opens the base.
func (c *creator) open(out io.Writer) (err error) {
	if c.o.Format != Framed {
		c.sink, err = newSink(out, c.o)
		return err
	}
	s, err := newFramedSink(out, c.o)
	if err != nil {
		return err
	}
	c.sink = s
	if c.o.Base == nil {
		return nil
	}
	if err := s.out.distinct(c.o.Base); err != nil {
		return err
	}
	c.base = open(func() (*base, error) {
		b, err := openBase(c.o.Base, s.encoders[0].Name(), c.o.Workers, c.o.Index)
		if err != nil {
			return nil, err
		}
		s.table.Inherit(b.lines)
		return b, s.out.copyFrom(b, c.o.Elide)
	})
	return nil
}

// run lets walk put entries into the cutter, carries out the frames on several workers and hands them to the sink.
func (c *creator) run(ctx context.Context, walk func(context.Context, *cutter) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	order := zframe.NewOrdered(ctx, zframe.Limits{Workers: c.o.Workers, Jobs: 2*c.o.Workers + 1}, c.consume)
	cut := cutter{emit: func(p plan) error {
		return order.Submit(2*p.raw, func(worker int) (frame, error) { return c.build(ctx, p, worker) })
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
	err := ahead(ctx, func(ctx context.Context, next func(scanned) error) error {
		return tree.Walk(ctx, dir, func(e *tree.Entry) error {
			h, err := s.header(e)
			if err != nil || h == nil || s.bad.any() {
				return err
			}
			src := &source{header: h, at: -1, seen: e.Stat, known: s.known, found: s.found}
			src.from = treeFile{root, e.Path, &src.seen}
			if err := next(scanned{src, e.Path}); err != nil {
				return err
			}
			if e.Mount && !c.o.CrossMounts {
				return tree.ErrSkipDir
			}
			return nil
		})
	}, func(n scanned) error { return c.add(cut, n.path, n.source) })
	return errors.Join(err, s.misfit())
}

// scanned is what the walk hands on.
type scanned struct {
	*source
	path string
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
	src.length, src.read = int64(len(bytes)), &c.read
	stored := h.Stored()
	c.sum.Entries++
	if h.Type == tarfmt.Reg {
		c.sum.Files++
		c.sum.Content += h.Size
		if h.Sparse != nil {
			src.smap = h.AppendSparseMap(nil)
		}
		if stored > mostFrame && !src.digested() {
			if b, _ := c.base.get(); b != nil {
				src.whole = new(whole)
			}
		}
	}
	return cut.add(src, bytes, stored)
}

// frame is a plan carried out.
type frame struct {
	plan
	sums [][32]byte // the digest of each part's entry; zeros behind a part with a turn that is not the last
	kept [][]byte   // stored data that was read for a digest already
	id   *[32]byte  // identity, nil while a digest lacks
	// What goes to the sink: bytes, from the pool, or, when these are nil, the frame of that number of the base.
	bytes   []byte
	stored  int64
	sum     [32]byte // sha256 of the stored bytes, of a framed archive
	crc     uint32   // CRC-32C of them, for the next index
	origin  int      // number of the base's frame that it is a copy of; -1: it was made
	damaged error    // why the base's frame of this identity was not taken
}

// build brings about one frame, from the base or by reading, hashing and compressing. It runs in a worker.
func (c *creator) build(ctx context.Context, p plan, worker int) (frame, error) {
	f := frame{plan: p, sums: make([][32]byte, len(p.parts)), origin: -1}
	if b, _ := c.base.get(); b.mayHold(p.raw) {
		if done, err := c.reuse(ctx, &f, b, worker); done || err != nil {
			return f, err
		}
	}
	raw := c.pool.Get(int(p.raw))
	for i := range p.parts {
		var err error
		if raw, err = c.load(ctx, &f, i, raw); err != nil {
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
		f.crc = crc32.Checksum(f.bytes, castagnoli)
		f.identify()
	}
	return f, nil
}

// load appends all of part i to raw.
func (c *creator) load(ctx context.Context, f *frame, i int, raw []byte) ([]byte, error) {
	p := &f.parts[i]
	raw = append(raw, p.header...)
	var err error
	if f.kept != nil && f.kept[i] != nil {
		raw = append(raw, f.kept[i]...)
	} else if raw, f.sums[i], err = p.content(ctx, raw); err != nil {
		return raw, err
	}
	if p.last {
		raw = append(raw, make([]byte, tarfmt.Padding(p.off+p.len))...)
	}
	return raw, nil
}

// encode turns raw, a buffer of the pool, into the frame's bytes.
func (c *creator) encode(f *frame, worker int, raw []byte) (err error) {
	if at := f.parts[0].origin(); c.inherited != nil && at >= 0 {
		f.bytes, err = c.inherited(c.pool.Get(len(raw)), at, raw)
	}
	if f.bytes != nil || err != nil {
		c.pool.Put(raw)
	} else {
		f.bytes = c.sink.encode(worker, &c.pool, raw)
	}
	f.stored = int64(len(f.bytes))
	return err
}

// consume takes the frames in order.
func (c *creator) consume(f frame) error {
	err := c.sink.write(&f)
	c.pool.Put(f.bytes)
	if err == nil {
		err = c.note(&f, c.sum.Frames)
	}
	c.sum.Frames++
	c.sum.Raw += f.raw
	if c.o.Progress != nil {
		c.o.Progress(c.sum.Raw)
	}
	return err
}
