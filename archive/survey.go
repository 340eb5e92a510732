package archive

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/nsferry/nsferry/archive/tarfmt"
	"github.com/nsferry/nsferry/archive/zframe"
)

// survey is a first pass over an archive: what is in it, and how any of it can be read again. The stream is read from
// where it lies if it is not compressed, or compressed in frames of moderate size; any other is kept in an unnamed file.
type survey struct {
	index  *index
	at     io.ReaderAt    // the tar stream
	frames *zframe.Random // what at reads from, for an input in frames
	spool  *os.File       // what at reads from otherwise, or nil

	o      *ConvertOptions
	spans  []zframe.Span
	size   int64 // of the tar stream
	unfit  bool  // for being read where it lies
	offset int64 // of the member in the outer stream
}

// frameMemory is how many bytes of decoded frames are kept for what is read soon.
const frameMemory = 128 << 20

// maxCost is how often the stream may be decoded, on average, before keeping it in a file is cheaper.
const maxCost = 3

// errUnfit ends a pass over an input that has to be kept in a file.
var errUnfit = errors.New("the input cannot be read at any place")

func (s *survey) close() error {
	if s.spool == nil {
		return nil
	}
	return s.spool.Close()
}

func (s *survey) run(ctx context.Context, in *os.File, st os.FileInfo, o *ConvertOptions) error {
	s.o = o
	if !st.Mode().IsRegular() {
		in, release, err := UnstalledReader(ctx, in)
		if err != nil {
			return err
		}
		defer release()
		return s.keep(ctx, in)
	}
	whole := io.NewSectionReader(in, 0, st.Size())
	kind, err := zframe.Sniff(whole)
	if err != nil {
		return err
	}
	switch kind {
	case zframe.KindTar:
		return s.read(ctx, whole, whole)
	case zframe.KindZstd:
		moderate, err := zframe.IsModerate(io.NewSectionReader(in, 0, st.Size()))
		if err == nil && moderate {
			if err := s.framed(ctx, whole); !errors.Is(err, errUnfit) {
				return err
			}
		}
	}
	if _, err := whole.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return s.keep(ctx, whole)
}

// framed reads a file of frames.
func (s *survey) framed(ctx context.Context, in *io.SectionReader) error {
	stream, _, err := zframe.Decompress(in, zframe.Options{Workers: s.o.Workers, MaxRatio: maxRatio, Frame: func(f zframe.Span) {
		s.unfit = s.unfit || f.Raw < 0
		s.spans = append(s.spans, f)
	}})
	if err != nil {
		return err
	}
	defer stream.Close()
	if err := s.read(ctx, stream, unknown{}); err != nil {
		return err
	}
	s.frames = zframe.NewRandom(in, s.spans, frameMemory)
	s.at = io.NewSectionReader(s.frames, s.offset, s.size)
	if s.frames.Cost(s.ranges) > maxCost*s.size+frameMemory {
		s.frames = nil
		return errUnfit
	}
	return nil
}

// unknown stands for a source that is known after the first pass only.
type unknown struct{ io.ReaderAt }

// ranges calls yield for the parts of the stream in the order in which they will be read.
func (s *survey) ranges(yield func(off, length int64)) {
	var visit func(n *indexName)
	visit = func(n *indexName) {
		if h := n.inode.header; h.Type == tarfmt.Reg {
			yield(s.offset+n.inode.data, dataIn(h.Sparse, h.Size))
		}
		for _, kid := range n.sorted() {
			visit(kid)
		}
	}
	visit(s.index.root)
}

// keep reads an input of any kind, and keeps its tar stream in a file.
func (s *survey) keep(ctx context.Context, in io.Reader) error {
	s.unfit = false
	stream, _, err := zframe.Decompress(in, zframe.Options{Workers: s.o.Workers, MaxRatio: maxRatio})
	if err != nil {
		return err
	}
	defer stream.Close()
	return s.read(ctx, stream, nil)
}

// read takes in the tar stream, or that of the member in it. at reads the same stream, or is nil.
func (s *survey) read(ctx context.Context, stream io.Reader, at io.ReaderAt) error {
	s.offset = 0
	if s.o.Member == "" {
		return s.stream(ctx, stream, at)
	}
	outer := tarfmt.NewReader(stream, tarfmt.Limits{})
	h, err := findMember(ctx, outer, s.o.Member)
	if err != nil {
		return err
	}
	s.offset = outer.Consumed()
	if err := s.member(ctx, outer, h, at); err != nil {
		return err
	}
	for {
		h, err := outer.Next()
		if errors.Is(err, io.EOF) {
			return drain(stream)
		}
		if err == nil && memberName(h) == memberName(&tarfmt.Header{Name: s.o.Member}) {
			err = fmt.Errorf("the archive has %s twice", s.o.Member)
		}
		if err != nil {
			return err
		}
	}
}

// member reads the archive that is the content of h, where outer is.
func (s *survey) member(ctx context.Context, outer *tarfmt.Reader, h *tarfmt.Header, at io.ReaderAt) error {
	if h.Type != tarfmt.Reg || h.Sparse != nil {
		return fmt.Errorf("member %s: not a plain file", s.o.Member)
	}
	wrap := func(err error) error {
		if err != nil && !errors.Is(err, errUnfit) {
			err = fmt.Errorf("member %s: %w", s.o.Member, err)
		}
		return err
	}
	if file, ok := at.(*io.SectionReader); ok { // not compressed: its data can be sought over
		inner := io.NewSectionReader(file, s.offset, h.Size)
		if kind, err := zframe.Sniff(inner); err == nil && kind == zframe.KindTar {
			return wrap(s.stream(ctx, inner, inner))
		}
		at = nil
	}
	stream, kind, err := zframe.Decompress(outer, zframe.Options{Workers: s.o.Workers, MaxRatio: maxRatio})
	if err != nil {
		return wrap(err)
	}
	defer stream.Close()
	if kind != zframe.KindTar {
		if at != nil {
			return errUnfit
		}
	}
	return wrap(s.stream(ctx, stream, at))
}

// findMember reads up to the entry.
func findMember(ctx context.Context, outer *tarfmt.Reader, member string) (*tarfmt.Header, error) {
	const most = 10
	want := memberName(&tarfmt.Header{Name: member})
	var names []string
	for {
		h, err := outer.Next()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("the archive has no member %s, but %s", member, strings.Join(names, ", "))
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		if memberName(h) == want {
			return h, nil
		}
		if len(names) < most {
			names = append(names, quote(h.Name))
		}
	}
}

// memberName is an entry's name as members are asked for.
func memberName(h *tarfmt.Header) string {
	path, err := entryPath(h.Name, "")
	if err != nil {
		return ""
	}
	return path
}

// stream reads a tar stream into the index. It is kept in a file when at is nil.
func (s *survey) stream(ctx context.Context, stream io.Reader, at io.ReaderAt) error {
	var kept *bufio.Writer
	if s.at = at; at == nil {
		f, err := s.o.Temp()
		if err != nil {
			return err
		}
		s.spool, s.at = f, f
		kept = bufio.NewWriterSize(f, 1<<20)
		stream = io.TeeReader(stream, kept)
	}
	s.index = newIndex()
	s.index.top = s.o.Top
	t := tarfmt.NewReader(stream, tarfmt.Limits{})
	for first := true; ; first = false {
		h, err := t.Next()
		if errors.Is(err, io.EOF) && first {
			return errors.New("the archive has no entries")
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err == nil && s.unfit {
			err = errUnfit
		}
		if err != nil {
			return err
		}
		if first && s.o.Top == "" && !s.o.KeepTop && isTop(h) {
			s.index.top = topDir
		}
		if err := s.index.add(h, t.Offset(), t.Consumed()); err != nil {
			return err
		}
	}
	s.size = t.Consumed()
	if err := drain(stream); err != nil {
		return err
	}
	if kept != nil {
		return kept.Flush()
	}
	return nil
}
