package archive

import (
	"fmt"
	"io"

	"github.com/nsferry/nsferry/archive/tarfmt"
	"github.com/nsferry/nsferry/archive/zframe"
	"github.com/nsferry/nsferry/archive/zframe/toc"
)

// sink takes the frames of a tar stream: encode in the workers, write and close in one goroutine, in order.
type sink interface {
	// header returns the blocks that go in front of the entry's data.
	header(*tarfmt.Header) ([]byte, error)
	// encode returns what write is to get for a frame's raw bytes, a buffer of the pool as raw is.
	encode(worker int, pool *zframe.Buffers, raw []byte) []byte
	write(*frame) error
	// close gets the policies to be recorded.
	close(policy map[string]string) (stored int64, err error)
}

func newSink(out io.Writer, o *CreateOptions) (sink, error) {
	switch o.Format {
	case Gzip:
		return newGzipSink(out, o)
	case Plain:
		return &plainSink{out: counter{w: out}}, nil
	}
	return nil, fmt.Errorf("unknown archive format %q", o.Format)
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// framedSink writes docs/FORMAT.md.
type framedSink struct {
	out      *output
	encoders []*zframe.Encoder // one a worker
	table    *toc.Writer
	frames   []zframe.Frame
	ledger   ledger
	waiting  []waiting
}

// waiting is a frame whose identity lacks the digest of the entry that it ends with.
type waiting struct {
	frame int
	hash  *zframe.IdentityHash
}

func newFramedSink(out io.Writer, o *CreateOptions) (*framedSink, error) {
	level := o.Level
	if level == 0 {
		level = 3
	}
	s := &framedSink{out: newOutput(out)}
	for range o.Workers + 1 { // one more for the table of contents
		e, err := zframe.NewEncoder(level)
		if err != nil {
			return nil, err
		}
		s.encoders = append(s.encoders, e)
	}
	s.table = toc.NewWriter(s.encoders[o.Workers])
	s.ledger.add = s.table.Add
	return s, nil
}

func (*framedSink) header(h *tarfmt.Header) ([]byte, error) { return h.Append(nil) }

func (s *framedSink) encode(worker int, pool *zframe.Buffers, raw []byte) []byte {
	defer pool.Put(raw)
	return s.encoders[worker].Encode(pool.Get(zframe.MaxEncoded(len(raw))), raw)
}

func (s *framedSink) write(f *frame) error {
	number := len(s.frames)
	s.frames = append(s.frames, zframe.Frame{Raw: f.raw, Stored: f.stored, Sum: f.sum})
	s.identify(f, number)
	if err := s.ledger.take(f, number); err != nil {
		return err
	}
	if f.origin >= 0 {
		return s.out.frame(f.origin, f.bytes)
	}
	_, err := s.out.Write(f.bytes)
	return err
}

// identify notes the frame's identity, or lets it wait for the digest of the entry that it ends with.
func (s *framedSink) identify(f *frame, number int) {
	for i := range f.parts {
		if p := &f.parts[i]; p.last && p.turn != nil {
			s.settle(f.sums[i])
		}
	}
	if f.id != nil {
		s.frames[number].Identity = *f.id
		return
	}
	s.waiting = append(s.waiting, waiting{number, f.hash()})
}

// settle completes the identities that waited for sum.
func (s *framedSink) settle(sum [32]byte) {
	for _, w := range s.waiting {
		w.hash.Digest(sum)
		s.frames[w.frame].Identity = w.hash.Sum()
	}
	s.waiting = s.waiting[:0]
}

func (s *framedSink) close(policy map[string]string) (int64, error) {
	tail, err := s.table.Finish(toc.Header{Encoder: s.encoders[0].Name(), Policy: policy}, s.frames)
	if err == nil {
		err = s.out.close(tail)
	}
	return s.out.n, err
}

// record returns the policies as the table of contents keeps them. That of devices, whose default is another one for root, is
// kept only where it left something out: the same tree gives the same bytes, whoever packs it.
func (p Policy) record(sum *Summary) map[string]string {
	m := map[string]string{"sockets": string(p.Sockets), "xattrs": string(p.Xattrs), "unmapped": string(p.Unmapped)}
	if sum.Skipped[deviceSkipped] > 0 {
		m["devices"] = string(p.Devices)
	}
	return m
}

// plainSink writes the tar stream as it is.
type plainSink struct{ out counter }

func (*plainSink) header(h *tarfmt.Header) ([]byte, error) { return h.Append(nil) }

func (s *plainSink) encode(_ int, _ *zframe.Buffers, raw []byte) []byte { return raw }

func (s *plainSink) write(f *frame) error {
	_, err := s.out.Write(f.bytes)
	return err
}

func (s *plainSink) close(map[string]string) (int64, error) { return s.out.n, nil }

// leastGzip is the least size of a gzip file: some readers, sbuild among them, take 512 bytes to tell a format. An archive in
// frames is never so short, a plain one neither.
const leastGzip = 512

// gzipSink leaves the parallelism to the gzip writer.
type gzipSink struct {
	plainSink
	gz    io.WriteCloser
	start holdBack
}

// holdBack keeps what is written until it is known to have leastGzip bytes.
type holdBack struct {
	w    io.Writer
	kept []byte
	on   bool // it had them
}

func (h *holdBack) Write(p []byte) (int, error) {
	if h.on {
		return h.w.Write(p)
	}
	if h.kept = append(h.kept, p...); len(h.kept) < leastGzip {
		return len(p), nil
	}
	h.on = true
	return len(p), h.flush()
}

func (h *holdBack) flush() error {
	_, err := h.w.Write(h.kept)
	h.kept = nil
	return err
}

func newGzipSink(out io.Writer, o *CreateOptions) (*gzipSink, error) {
	level := o.Level
	if level == 0 {
		level = 6
	}
	s := &gzipSink{plainSink: plainSink{out: counter{w: out}}}
	s.start.w = &s.out
	gz, err := zframe.NewGzipWriter(&s.start, o.Workers, level)
	s.gz = gz
	return s, err
}

func (s *gzipSink) write(f *frame) error {
	_, err := s.gz.Write(f.bytes)
	return err
}

func (s *gzipSink) close(map[string]string) (int64, error) {
	err := s.gz.Close()
	if err == nil && !s.start.on {
		s.start.kept = zframe.PadGzip(s.start.kept, leastGzip)
		err = s.start.flush()
	}
	return s.out.n, err
}
