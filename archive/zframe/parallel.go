package zframe

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/klauspost/compress/zstd"
)

const (
	// wholeRaw bounds the frames that are collected and decoded whole by one worker; larger ones are decoded as a
	// stream. Our own frames and pzstd's at its usual levels are smaller.
	wholeRaw     = 16 << 20
	readBytes    = 40 << 20 // stored and raw bytes of frames in flight
	streamBlocks = 8        // blocks of 128 KiB that the stream decoder works ahead
)

// Options bounds a decompression. Zero values mean the defaults.
type Options struct {
	Workers   int   // goroutines that decode; default GOMAXPROCS
	MaxWindow int64 // largest window or dictionary in bytes; default MaxWindow
	MaxRaw    int64 // largest raw size in bytes; default none
	MaxRatio  int64 // raw bytes for one stored byte, judged from the second MiB on; default none
	// Sums, if not nil, are the sha256 of the stored bytes of every zstd frame, in order: no other frame is decoded, and none
	// may be missing. They are for input that is a sequence of frames as FORMAT §2 has them.
	Sums [][32]byte
	// Frame, if not nil, is told where each zstd frame lies before its bytes are handed on, by who reads. Raw is -1 for
	// a frame that is too large to be decoded whole.
	Frame func(Span)
}

func (o Options) withDefaults() Options {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.MaxWindow <= 0 {
		o.MaxWindow = MaxWindow
	}
	return o
}

// ParallelReader decodes a zstd stream of any make: frames of moderate size (our own, pzstd's) whole and in parallel, larger
// ones as a stream whose stages run concurrently. It finds the frames' borders by itself.
//
// When the tar stream in it bears the mark (FORMAT §6), the tail must follow and fit what was read: else the
// last Read returns ErrTruncated or a *CorruptError, never io.EOF. Read and Close are not safe for concurrent use.
type ParallelReader struct {
	opt    Options
	cancel context.CancelFunc
	chunks chan chunk // from the pipeline, in order
	ended  chan struct{}
	err    error // why the pipeline ended; valid once chunks is closed

	cur  chunk
	rest []byte // of cur.buf, or of cur.stream's current piece
	fail error  // sticky

	decoders []*Decoder // one a worker, made on first use
	pool     Buffers
	tail     tailCheck
	summed   int // frames that Options.Sums were compared with
}

// chunk is one decoded frame, or one frame to be decoded as a stream by the reader itself.
type chunk struct {
	buf    []byte
	off    int64 // of the frame in the input
	stored int64
	stream *bigFrame
}

type bigFrame struct {
	head  []byte        // its first stored bytes
	input *walk         // those that follow
	where string        // for errors
	done  chan struct{} // closed when the input is no longer read
	zstd  *zstd.Decoder
}

// NewParallelReader returns a reader of the zstd stream in r, which it reads ahead of need, in another goroutine, until Close has
// returned. r stays the caller's. MaxRaw and MaxRatio are not looked at: Decompress does.
func NewParallelReader(r io.Reader, o Options) *ParallelReader {
	o = o.withDefaults()
	ctx, cancel := context.WithCancel(context.Background())
	p := &ParallelReader{opt: o, cancel: cancel, chunks: make(chan chunk), ended: make(chan struct{}), decoders: make([]*Decoder, o.Workers)}
	go p.run(ctx, r)
	return p
}

// run reads frames and feeds the pipeline until the input or the pipeline ends.
func (p *ParallelReader) run(ctx context.Context, r io.Reader) {
	defer close(p.ended)
	pipe := NewOrdered(ctx, Limits{Workers: p.opt.Workers, Jobs: 2*p.opt.Workers + 2, Bytes: readBytes}, func(c chunk) error {
		if p.tail.marked == markUnknown {
			p.tail.marked = max(findMark(c.buf), markAbsent) // a frame of ours is never too short for it
		}
		select {
		case p.chunks <- c:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	err := p.produce(ctx, pipe, &frameReader{br: bufio.NewReaderSize(r, 64<<10)})
	if err == nil {
		err = pipe.Wait()
	} else if first := p.failLast(pipe, err); first != nil {
		err = first
	}
	if err == nil {
		err = p.tail.finish()
	}
	if err == nil && p.summed < len(p.opt.Sums) {
		err = corrupt("archive", "ends after %d of %d frames", p.summed, len(p.opt.Sums))
	}
	p.err = err
	for _, d := range p.decoders {
		if d != nil {
			d.Close()
		}
	}
	close(p.chunks)
}

// failLast ends the pipeline with err behind everything that was submitted before it, so that the frames that came
// whole are still delivered. An earlier error of the pipeline wins.
func (p *ParallelReader) failLast(pipe *Ordered[chunk], err error) error {
	_ = pipe.Submit(0, func(int) (chunk, error) { return chunk{}, err }) // its error is Wait's
	return pipe.Wait()
}

func (p *ParallelReader) produce(ctx context.Context, pipe *Ordered[chunk], fr *frameReader) error {
	for {
		w, err := fr.next()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if w.skip >= 0 {
			err = p.tail.skippable(w)
		} else {
			err = p.submit(ctx, pipe, w)
		}
		if err != nil {
			return err
		}
	}
}

// submit hands one zstd frame to the pipeline, whole if it is small enough.
func (p *ParallelReader) submit(ctx context.Context, pipe *Ordered[chunk], w *walk) error {
	where := fmt.Sprintf("frame at offset %d", w.start)
	if w.dict != 0 {
		return corrupt(where, "needs dictionary %d", w.dict)
	}
	var stored []byte
	done, most := false, p.mostWhole()
	if w.contentOr(0) <= most {
		var err error
		if stored, done, err = w.collect(p.pool.Get(128<<10), most, most); err != nil {
			return err
		}
	}
	check, err := p.nextSum(where, done)
	if err != nil {
		return err
	}
	if done {
		raw := min(w.bound, w.contentOr(w.bound))
		p.tail.frame(int64(len(stored)), w.contentOr(-1))
		return pipe.Submit(raw+int64(len(stored)), func(worker int) (chunk, error) {
			defer p.pool.Put(stored)
			if err := check(stored); err != nil {
				return chunk{}, err
			}
			out, err := p.decode(worker, stored, raw)
			if err != nil {
				return chunk{}, &CorruptError{where, err}
			}
			return chunk{buf: out, off: w.start, stored: int64(len(stored))}, nil
		})
	}
	if w.window > uint64(p.opt.MaxWindow) {
		return fmt.Errorf("%s: %w", where, &LimitError{"window", p.opt.MaxWindow})
	}
	big := &bigFrame{head: stored, input: w, where: where, done: make(chan struct{})}
	if err := pipe.Submit(1<<20, func(int) (chunk, error) { return chunk{stream: big}, nil }); err != nil {
		return err
	}
	select {
	case <-big.done:
		p.tail.frame(w.fr.off-w.start, w.contentOr(-1))
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// mostWhole is the raw size up to which a frame is collected whole.
func (p *ParallelReader) mostWhole() int64 {
	if p.opt.Sums != nil {
		return MaxRaw
	}
	return wholeRaw
}

// nextSum returns the check of the next frame's stored bytes, which can be made of a whole frame only.
func (p *ParallelReader) nextSum(where string, whole bool) (check func(stored []byte) error, err error) {
	if p.opt.Sums == nil {
		return func([]byte) error { return nil }, nil
	}
	if p.summed == len(p.opt.Sums) {
		return nil, corrupt(where, "is one more than the %d frames that there should be", p.summed)
	}
	want := p.opt.Sums[p.summed]
	p.summed++
	if !whole {
		return nil, corrupt(where, "is larger than a frame may be")
	}
	return func(stored []byte) error {
		if sha256.Sum256(stored) != want {
			return corrupt(where, "does not have the sum that the table of contents gives")
		}
		return nil
	}, nil
}

func (p *ParallelReader) decode(worker int, stored []byte, raw int64) ([]byte, error) {
	if p.decoders[worker] == nil {
		d, err := NewDecoder()
		if err != nil {
			return nil, err
		}
		p.decoders[worker] = d
	}
	return p.decoders[worker].Decode(p.pool.Get(int(raw)+decodeSlack), stored, raw)
}

// Read implements io.Reader.
func (p *ParallelReader) Read(b []byte) (int, error) {
	for p.fail == nil {
		if len(p.rest) > 0 {
			n := copy(b, p.rest)
			p.rest = p.rest[n:]
			return n, nil
		}
		if p.cur.stream != nil {
			n, err := p.readBig(b)
			if n > 0 || err != nil {
				return n, err
			}
			continue
		}
		p.advance()
	}
	return 0, p.fail
}

// WriteTo implements io.WriterTo: no copy of what was decoded whole.
func (p *ParallelReader) WriteTo(w io.Writer) (sum int64, err error) {
	var buf []byte
	for p.fail == nil {
		if p.cur.stream != nil && len(p.rest) == 0 {
			if buf == nil {
				buf = make([]byte, 256<<10)
			}
			n, err := p.readBig(buf)
			if err != nil {
				return sum, err
			}
			p.rest = buf[:n]
		}
		n, err := w.Write(p.rest)
		sum += int64(n)
		if err != nil {
			return sum, err
		}
		p.rest = nil
		if p.cur.stream == nil {
			p.advance()
		}
	}
	if p.fail == io.EOF {
		return sum, nil
	}
	return sum, p.fail
}

// advance takes the next chunk from the pipeline, or sets fail.
func (p *ParallelReader) advance() {
	p.pool.Put(p.cur.buf)
	var ok bool
	if p.cur, ok = <-p.chunks; !ok {
		p.fail = p.err
		if p.fail == nil {
			p.fail = io.EOF
		}
		return
	}
	p.rest = p.cur.buf
	if p.opt.Frame != nil {
		raw := int64(len(p.cur.buf))
		if p.cur.stream != nil {
			raw = -1
		}
		p.opt.Frame(Span{Offset: p.cur.off, Stored: p.cur.stored, Raw: raw})
	}
}

// readBig reads from the frame that is decoded as a stream; 0, nil at its end.
func (p *ParallelReader) readBig(b []byte) (int, error) {
	s := p.cur.stream
	if s.zstd == nil {
		var err error
		s.zstd, err = zstd.NewReader(io.MultiReader(bytes.NewReader(s.head), s.input), zstd.WithDecoderConcurrency(streamBlocks), zstd.WithDecoderLowmem(false),
			zstd.WithDecoderMaxWindow(uint64(p.opt.MaxWindow)))
		if err != nil {
			p.fail = fmt.Errorf("zstd decoder: %w", err)
			return 0, p.fail
		}
	}
	n, err := s.zstd.Read(b)
	switch {
	case err == nil:
		return n, nil
	case err == io.EOF:
		s.zstd.Close()
		close(s.done)
		p.cur.stream = nil
		return n, nil
	case s.input.failed != nil:
		err = s.input.failed
	default:
		err = &CorruptError{s.where, err}
	}
	p.fail = err
	return n, err
}

// Close stops reading and waits until r is left alone, which takes as long as a Read of r under way. Later Reads return an error.
func (p *ParallelReader) Close() error {
	p.cancel()
	if s := p.cur.stream; s != nil && s.zstd != nil {
		s.zstd.Close()
	}
	for range p.chunks {
	}
	<-p.ended
	p.cur, p.rest = chunk{}, nil
	if p.fail == nil || p.fail == io.EOF {
		p.fail = errors.New("read of a closed archive")
	}
	return nil
}
