package archive

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/archive/tarfmt"
	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/archive/zframe"
	"github.com/nsferry/nsferry/archive/zframe/toc"
)

// List calls fn for every entry of an archive of any make, in the archive's order. The nodes hold inside ids. An
// archive of ours that is a regular file is listed by its table of contents, any other by reading it, contents included for their digests.
func List(ctx context.Context, in *os.File, workers int, fn func(listing.Node) error) error {
	f, err := openFramed(in)
	if errors.Is(err, zframe.ErrNotSeekable) {
		return listStream(ctx, in, workers, fn)
	}
	if err != nil {
		return err
	}
	return listTable(ctx, f, fn)
}

// listTable lists a table of contents. It is parsed in one goroutine while fn is called in this one.
func listTable(ctx context.Context, f *zframe.File, fn func(listing.Node) error) error {
	r, err := toc.Open(f)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	batches := make(chan []toc.Entry, 4)
	var failed error
	go func() {
		defer close(batches)
		failed = errors.Join(readBatches(ctx, r, batches), r.Close())
	}()
	for entries := range batches {
		for i := range entries {
			n, err := node(&entries[i])
			if err == nil {
				err = fn(n)
			}
			if err != nil {
				cancel()
				for range batches { // wait for the reader's end
				}
				return err
			}
		}
	}
	return failed
}

// readBatches sends all entries of r.
func readBatches(ctx context.Context, r *toc.Reader, batches chan<- []toc.Entry) error {
	const size = 512
	for end := false; !end; {
		batch := make([]toc.Entry, 0, size)
		for len(batch) < size && !end {
			batch = batch[:len(batch)+1]
			err := r.Next(&batch[len(batch)-1])
			if errors.Is(err, io.EOF) {
				batch, end = batch[:len(batch)-1], true
			} else if err != nil {
				return err
			}
		}
		select {
		case batches <- batch:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// openFramed opens the tail of an archive; what is no regular file has none that could be read.
func openFramed(in *os.File) (*zframe.File, error) {
	st, err := in.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, zframe.ErrNotSeekable
	}
	return zframe.Open(in, st.Size())
}

// maxHoles is how many bytes of holes are hashed for a listing, some minutes of work: a small archive may speak of
// exabytes. Files beyond that are listed without a digest.
const maxHoles = 256 << 30

func listStream(ctx context.Context, in io.Reader, workers int, fn func(listing.Node) error) error {
	holes := int64(0)
	_, err := readEntries(ctx, in, workers, func(e *toc.Entry, t *tarfmt.Reader) error {
		n, err := node(e)
		if err != nil {
			return err
		}
		if e.Type == toc.File {
			hole := e.Size - t.Remaining()
			if n.SHA256 = ""; hole <= maxHoles-holes {
				holes += hole
				sum, err := digest(ctx, t, e.Size, e.Sparse)
				if err != nil {
					return err
				}
				n.SHA256 = hex.EncodeToString(sum[:])
			}
		}
		return fn(n)
	})
	return err
}

// readEntries decodes an archive of any make and calls fn for every entry, which may read its data. It returns the outer
// format.
func readEntries(ctx context.Context, in io.Reader, workers int, fn func(*toc.Entry, *tarfmt.Reader) error) (zframe.Kind, error) {
	in, release, err := UnstalledReader(ctx, in)
	if err != nil {
		return zframe.KindUnknown, err
	}
	defer release()
	stream, kind, err := zframe.Decompress(in, zframe.Options{Workers: workers, MaxRatio: maxRatio})
	if err != nil {
		return kind, err
	}
	defer stream.Close()
	t := tarfmt.NewReader(stream, tarfmt.Limits{})
	top := ""
	for first := true; ; first = false {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return kind, drain(stream)
		}
		if err != nil {
			return kind, err
		}
		if first && isTop(h) {
			top = topDir
		}
		e, err := tocEntry(h, top)
		if err == nil {
			err = fn(&e, t)
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return kind, err
		}
	}
}

// drain reads what follows the end-of-archive blocks: the checks of an archive's tail come with the last read.
func drain(stream io.Reader) error {
	_, err := io.Copy(io.Discard, stream)
	return err
}

// isTop recognises an archive whose entries are all below one directory, by its first entry.
func isTop(h *tarfmt.Header) bool {
	return h.Type == tarfmt.Dir && (h.Name == topDir+"/" || h.Name == "./"+topDir+"/" || h.Name == topDir)
}

// digest reads an entry's data and returns the sha256 of its content.
func digest(ctx context.Context, r io.Reader, size int64, segs []toc.Segment) (sum [32]byte, err error) {
	h := sha256.New()
	err = copyContent(ctx, h, r, size, segs)
	h.Sum(sum[:0])
	return sum, err
}

// ListTree calls fn for every inode of the tree at root as an archive would hold it, sockets and devices included.
func ListTree(ctx context.Context, root *os.File, o ScanOptions, workers int, fn func(listing.Node) error) error {
	o.Policy.Sockets, o.Policy.Devices = Store, Store
	c := &creator{o: &CreateOptions{ScanOptions: o, Workers: max(workers, 1)}}
	if err := c.o.check(); err != nil {
		return err
	}
	c.o.Format = Plain
	c.sink = &listSink{ledger: ledger{add: func(e *toc.Entry) error {
		n, err := node(e)
		if err != nil {
			return err
		}
		return fn(n)
	}}}
	return c.run(ctx, func(ctx context.Context, cut *cutter) error { return c.walk(ctx, root, cut) })
}

// listSink keeps the digests and throws the rest away.
type listSink struct {
	plainSink
	ledger ledger
}

func (*listSink) header(*tarfmt.Header) ([]byte, error) { return []byte{}, nil }

func (s *listSink) write(f *frame) error { return s.ledger.take(f, 0) }

// node is the listing's form of an entry.
func node(e *toc.Entry) (listing.Node, error) {
	n := listing.Node{
		Type: nodeTypes[e.Type], Name: e.Name, UID: e.UID, GID: e.GID, Mode: e.Mode, Target: e.Link,
		Major: e.DevMajor, Minor: e.DevMinor, Size: e.Size,
	}
	if e.Type == toc.HardLink {
		return listing.Node{Type: listing.Hardlink, Name: e.Name, Target: e.Link}, nil
	}
	n.MTime = &listing.Time{Sec: e.ModTime.Sec, Nsec: e.ModTime.Nsec}
	if e.Type == toc.Symlink {
		n.Mode = 0
	}
	if err := nodeACLs(&n, e); err != nil {
		return n, fmt.Errorf("%s: %w", e.Name, err)
	}
	for _, x := range e.Xattrs {
		switch x.Key {
		case tree.XattrAccess, tree.XattrDefault:
		case tree.XattrCapability:
			n.Cap = x.Value
		default:
			n.Xattrs = append(n.Xattrs, listing.Xattr(x))
		}
	}
	if e.Sparse != nil {
		n.Sparse = make([]listing.Segment, len(e.Sparse))
		for i, s := range e.Sparse {
			n.Sparse[i] = listing.Segment(s)
		}
	}
	if e.Type == toc.File {
		n.SHA256 = hex.EncodeToString(e.Digest[:])
	}
	return n, nil
}

// nodeACLs sets the ACLs of n. Entries that others made may have them as the kernel's value, beside the text or instead of it.
func nodeACLs(n *listing.Node, e *toc.Entry) error {
	for _, t := range [2]struct {
		key, text string
		to        *string
	}{{tree.XattrAccess, e.ACL, &n.ACL}, {tree.XattrDefault, e.DefaultACL, &n.Default}} {
		a, err := aclOf(t.text, t.key, e.Xattrs)
		if err != nil {
			return err
		}
		if a != nil {
			*t.to = a.Short()
		}
	}
	return nil
}

var nodeTypes = map[toc.Type]listing.Type{
	toc.File: listing.File, toc.Symlink: listing.Symlink, toc.Char: listing.Char, toc.Block: listing.Block,
	toc.Dir: listing.Dir, toc.Fifo: listing.Fifo, toc.Type(sockType): listing.Sock,
}

// WriteLines returns a function for List that writes one line a node, and one that flushes it.
func WriteLines(w io.Writer) (fn func(listing.Node) error, flush func() error) {
	bw := bufio.NewWriterSize(w, 64<<10)
	var line []byte
	return func(n listing.Node) error {
		line = append(n.AppendLine(line[:0]), '\n')
		_, err := bw.Write(line)
		return err
	}, bw.Flush
}

// RawSize returns the size of the tar stream in an archive of ours, in bytes, and 0 for one whose end does not tell.
func RawSize(in *os.File) int64 {
	f, err := openFramed(in)
	if err != nil {
		return 0
	}
	return f.Raw()
}
