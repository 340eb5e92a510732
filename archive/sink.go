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
	// encode returns what write is to get for a frame's raw bytes, a buffer of the pool as raw is.
	encode(worker int, pool *zframe.Buffers, raw []byte) []byte
	write(*frame) error
	close() (stored int64, err error)
}

func newSink(out io.Writer, o *CreateOptions) (sink, error) {
	switch o.Format {
	case Framed, "":
		o.Format = Framed
		return newFramedSink(out, o)
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
	out      counter
	encoders []*zframe.Encoder // one a worker
	table    *toc.Writer
	policy   map[string]string
	frames   []zframe.Frame
	// A large entry's digest is known with its last part only. Until then its line, and the identities of the frames that
	// hold its other parts, wait.
	waiting []waiting
	entry   toc.Entry
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
	s := &framedSink{out: counter{w: out}, policy: o.Policy.record()}
	for range o.Workers + 1 { // one more for the table of contents
		e, err := zframe.NewEncoder(level)
		if err != nil {
			return nil, err
		}
		s.encoders = append(s.encoders, e)
	}
	s.table = toc.NewWriter(s.encoders[o.Workers])
	return s, nil
}

func (s *framedSink) encode(worker int, pool *zframe.Buffers, raw []byte) []byte {
	defer pool.Put(raw)
	return s.encoders[worker].Encode(pool.Get(zframe.MaxEncoded(len(raw))), raw)
}

func (s *framedSink) write(f *frame) error {
	number := len(s.frames)
	s.frames = append(s.frames, zframe.Frame{Raw: f.raw, Stored: int64(len(f.bytes)), Sum: f.sum})
	id := zframe.NewIdentityHash()
	at := int64(0)
	for i := range f.parts {
		p := &f.parts[i]
		if p.header != nil {
			s.entry = tocEntry(p.source.header)
			s.entry.Frame, s.entry.Offset, s.entry.HeaderLen = number, at, int64(len(p.header))
		}
		id.Header(p.header)
		id.Part(p.off, p.len)
		if !p.last {
			s.waiting = append(s.waiting, waiting{number, id})
			break // nothing follows it in this frame
		}
		id.Digest(f.sums[i])
		s.settle(f.sums[i])
		s.entry.Digest = f.sums[i]
		if err := s.table.Add(&s.entry); err != nil {
			return err
		}
		at += int64(len(p.header)) + p.len + tarfmt.Padding(p.off+p.len)
	}
	if f.end {
		id.End()
	}
	if n := len(s.waiting); n == 0 || s.waiting[n-1].frame != number {
		s.frames[number].Identity = id.Sum()
	}
	_, err := s.out.Write(f.bytes)
	return err
}

// settle completes the identities that waited for sum.
func (s *framedSink) settle(sum [32]byte) {
	for _, w := range s.waiting {
		w.hash.Digest(sum)
		s.frames[w.frame].Identity = w.hash.Sum()
	}
	s.waiting = s.waiting[:0]
}

func (s *framedSink) close() (int64, error) {
	tail, err := s.table.Finish(toc.Header{Encoder: s.encoders[0].Name(), Policy: s.policy}, s.frames)
	if err != nil {
		return s.out.n, err
	}
	_, err = s.out.Write(tail)
	return s.out.n, err
}

// record returns the policies as the table of contents keeps them.
func (p Policy) record() map[string]string {
	return map[string]string{"devices": string(p.Devices), "sockets": string(p.Sockets), "xattrs": string(p.Xattrs), "unmapped": string(p.Unmapped)}
}

// plainSink writes the tar stream as it is.
type plainSink struct{ out counter }

func (s *plainSink) encode(_ int, _ *zframe.Buffers, raw []byte) []byte { return raw }

func (s *plainSink) write(f *frame) error {
	_, err := s.out.Write(f.bytes)
	return err
}

func (s *plainSink) close() (int64, error) { return s.out.n, nil }

// gzipSink leaves the parallelism to the gzip writer.
type gzipSink struct {
	plainSink
	gz io.WriteCloser
}

func newGzipSink(out io.Writer, o *CreateOptions) (*gzipSink, error) {
	level := o.Level
	if level == 0 {
		level = 6
	}
	s := &gzipSink{plainSink: plainSink{out: counter{w: out}}}
	gz, err := zframe.NewGzipWriter(&s.out, o.Workers, level)
	s.gz = gz
	return s, err
}

func (s *gzipSink) write(f *frame) error {
	_, err := s.gz.Write(f.bytes)
	return err
}

func (s *gzipSink) close() (int64, error) {
	err := s.gz.Close()
	return s.out.n, err
}

// tocEntry returns the line of a header; its digest and place are not known yet.
func tocEntry(h *tarfmt.Header) toc.Entry {
	e := toc.Entry{
		Name: tocName(h.Name), Type: tocTypes[h.Type], Mode: h.Mode, UID: h.UID, GID: h.GID, Size: h.Size,
		ModTime: toc.Time(h.ModTime), Link: h.Link, DevMajor: h.DevMajor, DevMinor: h.DevMinor,
		ACL: h.ACL, DefaultACL: h.DefaultACL,
	}
	if h.Type == tarfmt.Link {
		e.Link = tocName(h.Link)
	}
	for _, x := range h.Xattrs {
		e.Xattrs = append(e.Xattrs, toc.Xattr(x))
	}
	if h.Sparse != nil {
		e.Sparse = make([]toc.Segment, len(h.Sparse))
		for i, s := range h.Sparse {
			e.Sparse[i] = toc.Segment(s)
		}
	}
	return e
}

var tocTypes = map[tarfmt.Type]toc.Type{
	tarfmt.Reg: toc.File, tarfmt.Link: toc.HardLink, tarfmt.Symlink: toc.Symlink, tarfmt.Char: toc.Char,
	tarfmt.Block: toc.Block, tarfmt.Dir: toc.Dir, tarfmt.Fifo: toc.Fifo,
}

// tocName is the name of one of our own entries as the table of contents has it.
func tocName(name string) string {
	path, err := entryPath(name, "")
	if err != nil {
		panic("archive: internal error: " + err.Error())
	}
	return path
}
