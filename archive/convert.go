package archive

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/nsferry/nsferry/acl"
	"github.com/nsferry/nsferry/archive/tarfmt"
	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/archive/zframe"
	"github.com/nsferry/nsferry/archive/zframe/toc"
	"github.com/nsferry/nsferry/idshift"
)

// ConvertOptions say how an archive becomes another one.
type ConvertOptions struct {
	// Member is the name of an entry that is the archive to convert; empty: the input is.
	Member  string
	Policy  Policy // of devices, by default stored, and attributes
	Exclude Excludes
	Top     string // see ExtractOptions
	KeepTop bool
	// ClampMTime, when not nil, is the latest modification time that is kept.
	ClampMTime *int64
	Format     Format // default Framed
	Level      int    // as of CreateOptions
	Workers    int
	Header     func(blocks []byte) error // as of CreateOptions
	// Temp makes an unnamed file, for the tar stream of an input that cannot be read at any place. Convert closes it.
	Temp func() (*os.File, error)
	// Progress, if not nil, is told how many bytes of the new tar stream are done.
	Progress func(raw int64)
}

// Convert writes the archive in, of any make, to out as Create would write the tree that Extract makes of it; but the
// directories that it does not name get the epoch as their time. Both stay the caller's. After an error what was written is worthless.
func Convert(ctx context.Context, in *os.File, out io.Writer, o ConvertOptions) (sum Summary, err error) {
	o.Policy = o.Policy.WithDefaults(true)
	c := &converter{ConvertOptions: &o}
	c.o = &CreateOptions{
		ScanOptions: ScanOptions{Policy: o.Policy, Exclude: o.Exclude, ClampMTime: o.ClampMTime},
		Format:      o.Format, Level: o.Level, Workers: o.Workers, Header: o.Header, Progress: o.Progress,
	}
	if err := c.o.check(); err != nil {
		return sum, err
	}
	o.Workers = c.o.Workers
	out, release, err := UnstalledWriter(ctx, out)
	if err != nil {
		return sum, err
	}
	defer release()
	before, err := in.Stat()
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, c.survey.close()) }()
	if err := c.survey.run(ctx, in, before, &o); err != nil {
		return sum, err
	}
	if err := c.open(out); err != nil {
		return sum, err
	}
	record, err := c.inherit(in)
	if err != nil {
		return sum, err
	}
	if err := c.run(ctx, c.walk); err != nil {
		return c.sum, err
	}
	if after, err := in.Stat(); err != nil || before.Mode().IsRegular() && (after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime())) {
		return c.sum, errors.Join(err, errors.New("the archive has changed while it was read"))
	}
	c.sum.Stored, err = c.sink.close(record())
	return c.sum, err
}

// converter is one run of Convert.
type converter struct {
	*ConvertOptions
	creator
	survey survey
	holes  int64 // bytes of them so far
}

// inherit looks at the table of contents of an input that is an archive of ours: its frames can serve again if one
// encoder makes both, and the policies that made it still tell what it lacks. It returns what record does for Create.
func (c *converter) inherit(in *os.File) (record func() map[string]string, err error) {
	policy := Policy{Sockets: Skip, Xattrs: c.Policy.Xattrs, Unmapped: Fail, Devices: c.Policy.Devices}
	record = func() map[string]string { return policy.record(&c.sum) }
	if c.Member != "" {
		return record, nil
	}
	f, err := openFramed(in)
	if errors.Is(err, zframe.ErrNotSeekable) {
		return record, nil
	}
	if err != nil {
		return nil, err
	}
	table, err := toc.Open(f)
	if err != nil {
		return nil, err
	}
	defer table.Close()
	head := table.Header()
	if framed, ok := c.sink.(*framedSink); ok && c.survey.frames != nil && head.Encoder == framed.encoders[0].Name() {
		if c.inherited, err = inherited(c.survey.frames, table); err != nil {
			return nil, err
		}
	}
	return func() map[string]string {
		m := policy.record(&c.sum)
		for k, v := range head.Policy {
			_, ours := m[k]
			if k == "xattrs" && narrower(Xattrs(m[k]), Xattrs(v)) || k == "devices" && ours {
				continue
			}
			m[k] = v
		}
		return m
	}, nil
}

// inherited returns creator.inherited for the frames of an archive of ours. A frame without the sum that the table gives is damaged, even if
// it decodes to the right bytes: some bits of it matter to nobody.
func inherited(frames *zframe.Random, table *toc.Reader) (func(dst []byte, at int64, raw []byte) ([]byte, error), error) {
	var e toc.Entry
	for {
		if err := table.Next(&e); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
	}
	sums := make(map[int64][32]byte)
	at := int64(0)
	for _, f := range table.Frames() {
		sums[at] = f.Sum
		at += f.Raw
	}
	return func(dst []byte, at int64, raw []byte) ([]byte, error) {
		had := len(dst)
		stored, err := frames.Stored(dst, at, raw)
		if stored != nil && sha256.Sum256(stored[had:]) != sums[at] {
			err = &zframe.CorruptError{Where: fmt.Sprintf("frame at raw offset %d", at), Err: errors.New("does not have the sum that the table of contents gives")}
		}
		return stored, err
	}, nil
}

// narrower tells whether a takes less than b.
func narrower(a, b Xattrs) bool {
	order := []Xattrs{None, Portable, All}
	return slices.Index(order, a) < slices.Index(order, b)
}

// walk puts the tree into the cutter, in the order of archives.
func (c *converter) walk(ctx context.Context, cut *cutter) error {
	return c.name(ctx, c.survey.index.root, ".", cut)
}

// name puts one name, and what is below it, into the cutter.
func (c *converter) name(ctx context.Context, n *indexName, path string, cut *cutter) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if path != "." && c.Exclude.match(path) {
		return nil
	}
	if err := c.entry(n.inode, path, cut); err != nil {
		return err
	}
	prefix := path + "/"
	if path == "." {
		prefix = ""
	}
	for _, kid := range n.sorted() {
		if err := c.name(ctx, kid, prefix+kid.name, cut); err != nil {
			return err
		}
	}
	return nil
}

func (c *converter) entry(inode *indexed, path string, cut *cutter) error {
	if t := inode.header.Type; t == tarfmt.Char || t == tarfmt.Block {
		whiteout := t == tarfmt.Char && inode.header.DevMajor == 0 && inode.header.DevMinor == 0
		if keep, err := c.Policy.device(path, whiteout, &c.sum); err != nil || !keep {
			return err
		}
	}
	h, err := c.header(inode, path)
	if err != nil {
		return fmt.Errorf("entry %s: %w", quote(path), err)
	}
	src := &source{header: h, at: inode.at}
	if inode.path == "" {
		inode.path = path
	}
	if h.Type == tarfmt.Reg {
		if c.holes += h.Size - dataIn(h.Sparse, h.Size); c.holes > maxHoles || c.holes < 0 {
			return fmt.Errorf("entry %s: the sparse files of the archive have more than %d GiB of holes, too many to be hashed; exclude this one", quote(path), maxHoles>>30)
		}
		src.from = newExtent(c.survey.at, inode, path)
	}
	return c.add(cut, path, src)
}

// dataIn is how many bytes of a file of the given size are data.
func dataIn(segs []tarfmt.Segment, size int64) (n int64) {
	if segs == nil {
		return size
	}
	for _, s := range segs {
		n += s.Length
	}
	return n
}

// header is the header that Create would make: that of a hard link if the inode has been written.
func (c *converter) header(inode *indexed, path string) (*tarfmt.Header, error) {
	in := inode.header
	h := &tarfmt.Header{
		Name: storedName(path, in.Type), Link: in.Link, Type: in.Type, Mode: in.Mode, UID: in.UID, GID: in.GID,
		ModTime: in.ModTime,
	}
	if h.Type == tarfmt.Symlink {
		h.Mode = 0o777 // a symlink has no other (symlink(7))
	}
	c.o.clamp(&h.ModTime)
	if inode.path != "" {
		return asLink(h, inode.path), nil
	}
	h.Size, h.DevMajor, h.DevMinor = in.Size, in.DevMajor, in.DevMinor
	if in.Sparse != nil && in.Size > leastHole {
		segs := tarfmt.Coalesce(in.Sparse, in.Size, tree.HoleUnit, leastHole)
		if !slices.Equal(segs, []tarfmt.Segment{{Length: in.Size}}) {
			h.Sparse = segs
		}
	}
	err := c.Policy.acls(in, &c.sum, func(key string, a acl.ACL) error {
		a.Sort()
		switch {
		case key == tree.XattrDefault:
			h.DefaultACL = a.Text()
			return nil
		case !a.Minimal():
			h.ACL = a.Text()
		}
		h.Mode = h.Mode&^0o777 | a.Mode()
		in.Mode = h.Mode // for the other names
		return nil
	})
	if err != nil {
		return nil, err
	}
	return h, c.Policy.xattrs(in, &c.sum, func(a tarfmt.Xattr) error {
		if a.Key == tree.XattrCapability {
			v, err := idshift.ParseCapability(a.Value)
			if err != nil {
				return err
			}
			a.Value = v.Rev2()
		}
		h.Xattrs = append(h.Xattrs, a)
		return nil
	})
}
