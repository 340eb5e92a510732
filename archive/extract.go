package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/nsferry/nsferry/archive/statindex"
	"github.com/nsferry/nsferry/archive/tarfmt"
	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/archive/zframe"
	"github.com/nsferry/nsferry/archive/zframe/toc"

	"golang.org/x/sys/unix"
)

// ExtractOptions say how an archive becomes a tree.
type ExtractOptions struct {
	IDs     IDs
	Policy  Policy
	Exclude Excludes
	// Top is a directory which all entries must be below and which is stripped. Empty: "rootfs" is stripped when it is the
	// first entry. KeepTop strips nothing.
	Top     string
	KeepTop bool
	// Sums, if not nil, are what FrameSums returned: each frame is compared with its sum before anything of it is looked at.
	Sums    [][32]byte
	Workers int // goroutines that decode, and as many that write
	// Remember, if not nil, is called when the tree is complete; what is known of its inodes then goes into the Writer that it returns, which
	// may be nil. Contents are hashed as they are written: the table of contents is not believed.
	Remember func() *statindex.Writer
	// Progress, if not nil, is told how many bytes of the tar stream are done.
	Progress func(raw int64)
}

// maxRatio is more than any filesystem image compresses: zeros in zstd reach some 30,000, a tree full of them less than this.
const maxRatio = 20000

// Extract reads an archive of any make from in and fills the empty directory root with it. Both stay the caller's. After an error
// the tree is incomplete, and the caller removes it.
func Extract(ctx context.Context, in io.Reader, root *os.File, o ExtractOptions) (sum Summary, err error) {
	if err := o.Exclude.Check(); err != nil {
		return sum, err
	}
	o.Workers = max(o.Workers, 1)
	in, release, err := UnstalledReader(ctx, in)
	if err != nil {
		return sum, err
	}
	defer release()
	stream, _, err := zframe.Decompress(in, zframe.Options{Workers: o.Workers, MaxRatio: maxRatio, Sums: o.Sums})
	if err != nil {
		return sum, err
	}
	defer stream.Close()
	b, err := tree.NewBuilder(root, tree.BuildOptions{Workers: o.Workers, Implied: o.IDs.implied()})
	if err != nil {
		return sum, err
	}
	x := &extractor{ExtractOptions: &o, stream: stream, tar: tarfmt.NewReader(stream, tarfmt.Limits{}), b: b, sum: &sum}
	if o.Remember != nil {
		x.digests = newDigests()
	}
	err = x.run(ctx)
	if err = errors.Join(err, b.Close()); err == nil && x.digests != nil {
		err = x.digests.remember(ctx, root, o.Workers, o.Remember())
	}
	return sum, err
}

// FrameSums returns the sums of an archive's frames from its table of contents.
func FrameSums(f *zframe.File) ([][32]byte, error) {
	_, records, err := toc.ReadFrames(f)
	sums := make([][32]byte, len(records))
	for i, r := range records {
		sums[i] = r.Sum
	}
	return sums, err
}

type extractor struct {
	*ExtractOptions
	stream io.Reader
	tar    *tarfmt.Reader
	b      *tree.Builder
	sum    *Summary
	bad    misfits
	first  bool
	// absent are the paths of devices that were left out, for their other names. There are few in any rootfs.
	absent  map[string]bool
	digests *digests // nil: nobody asks for them
}

// maxAbsent bounds what a hostile archive can have remembered.
const maxAbsent = 1 << 16

func (x *extractor) run(ctx context.Context) error {
	for x.first = true; ; x.first = false {
		h, err := x.tar.Next()
		if errors.Is(err, io.EOF) {
			x.sum.Raw = x.tar.Offset()
			return x.finish()
		}
		if err != nil {
			return streamError{err}
		}
		if x.first && x.Top == "" && !x.KeepTop && isTop(h) {
			x.Top = topDir
		}
		if err := x.entry(ctx, h); err != nil {
			return err
		}
		if x.Progress != nil && x.sum.Entries%256 == 0 {
			x.Progress(x.tar.Offset())
		}
	}
}

// finish checks what can be known at the end only.
func (x *extractor) finish() error {
	if x.first {
		return streamError{errors.New("the archive has no entries")}
	}
	if err := drain(x.stream); err != nil {
		return streamError{err}
	}
	return x.bad.err(x.IDs.Plain)
}

// entry puts one entry into the tree. Once an id has no place, nothing is written any more, but the rest of
// the archive is searched for others.
func (x *extractor) entry(ctx context.Context, h *tarfmt.Header) error {
	path, err := entryPath(h.Name, x.Top)
	if err != nil {
		return err
	}
	if x.Exclude.matchAbove(path) {
		return ctx.Err()
	}
	m, err := x.meta(h)
	if err != nil {
		return fmt.Errorf("entry %s: %w", quote(h.Name), err)
	}
	if x.bad.any() {
		return ctx.Err()
	}
	if x.absent[path] { // this entry takes the name that a device would have had
		delete(x.absent, path)
	}
	if err := x.put(ctx, h, path, m); err != nil {
		return fmt.Errorf("entry %s: %w", quote(h.Name), err)
	}
	x.sum.Entries++
	return nil
}

func (x *extractor) put(ctx context.Context, h *tarfmt.Header, path string, m tree.Meta) error {
	if path == "." && h.Type != tarfmt.Dir {
		return errors.New("the root of the tree must be a directory")
	}
	x.digests.name(path, h.Type)
	switch h.Type {
	case tarfmt.Reg:
		return x.file(ctx, h, path, m)
	case tarfmt.Dir:
		return x.b.Dir(ctx, path, m)
	case tarfmt.Symlink:
		return x.b.Symlink(ctx, path, h.Link, m)
	case tarfmt.Link:
		target, err := entryPath(h.Link, x.Top)
		if err != nil {
			return fmt.Errorf("hard link target: %w", err)
		}
		if x.absent[target] {
			x.sum.skip(deviceSkipped)
			x.leaveOut(path)
			return nil
		}
		x.digests.link(path, target)
		return x.b.Link(ctx, path, target)
	case tarfmt.Fifo:
		return x.b.Node(ctx, path, unix.S_IFIFO, 0, 0, m)
	}
	return x.device(ctx, h, path, m)
}

func (x *extractor) file(ctx context.Context, h *tarfmt.Header, path string, m tree.Meta) error {
	x.sum.Files++
	x.sum.Content += h.Size
	if !x.digests.wanted(h.Size - x.tar.Remaining()) {
		return x.b.File(ctx, path, m, h.Size, segments(h.Sparse), x.tar)
	}
	sum := newContentSum(ctx, x.tar, h.Size, segments(h.Sparse))
	if err := x.b.File(ctx, path, m, h.Size, segments(h.Sparse), sum); err != nil {
		return err
	}
	digest, err := sum.finish()
	x.digests.put(path, digest)
	return err
}

func (x *extractor) device(ctx context.Context, h *tarfmt.Header, path string, m tree.Meta) error {
	mode := uint32(unix.S_IFBLK)
	if h.Type == tarfmt.Char {
		mode = unix.S_IFCHR
	}
	whiteout := h.Type == tarfmt.Char && h.DevMajor == 0 && h.DevMinor == 0
	keep, err := x.Policy.device(path, whiteout, x.sum)
	if err != nil {
		return err
	}
	if !keep {
		x.leaveOut(path)
		return nil
	}
	return x.b.Node(ctx, path, mode, h.DevMajor, h.DevMinor, m)
}

// leaveOut remembers that a device node has no name at path.
func (x *extractor) leaveOut(path string) {
	if x.absent == nil {
		x.absent = make(map[string]bool)
	}
	if len(x.absent) < maxAbsent {
		x.absent[path] = true
	}
}

func segments(in []tarfmt.Segment) []tree.Segment {
	if in == nil {
		return nil
	}
	out := make([]tree.Segment, len(in))
	for i, s := range in {
		out[i] = tree.Segment(s)
	}
	return out
}
