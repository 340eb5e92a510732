package archive

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/nsferry/nsferry/archive/tarfmt"
	"github.com/nsferry/nsferry/archive/zframe"
	"github.com/nsferry/nsferry/archive/zframe/toc"
)

// maxSymlinks is how many symlinks one path may lead through (path_resolution(7)).
const maxSymlinks = 40

// Cat writes the content of the file at path in the archive to out. Symlinks and hard links are followed as in a root
// directory. Of an archive of ours only the frames that hold the file are read; any other one must be a regular
// file too, for it is read twice. The content's digest is checked; what was written before an error is worthless.
func Cat(ctx context.Context, in *os.File, path string, workers int, out io.Writer) error {
	out, release, err := UnstalledWriter(ctx, out)
	if err != nil {
		return err
	}
	defer release()
	f, err := openFramed(in)
	if errors.Is(err, zframe.ErrNotSeekable) {
		return catStream(ctx, in, path, workers, out)
	}
	if err != nil {
		return err
	}
	table, err := toc.Load(f)
	if err != nil {
		return err
	}
	e, err := find(path, table.Entry)
	if err != nil {
		return err
	}
	return catFrames(ctx, f, e, out)
}

// lookup returns the entry of a name, nil when there is none.
type lookup func(name string) (*toc.Entry, error)

// find resolves path as the kernel does in a root directory and returns the entry of the regular file that it leads to.
func find(path string, get lookup) (*toc.Entry, error) {
	rest := strings.Split(path, "/")
	var at []string
	var e *toc.Entry
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			at, e = at[:max(len(at)-1, 0)], nil
			continue
		}
		var err error
		if e, err = get(strings.Join(append(slices.Clone(at), part), "/")); err != nil {
			return nil, err
		}
		if e == nil {
			return nil, fmt.Errorf("%s: not in the archive", path)
		}
		if e.Type != toc.Symlink {
			at = append(at, part)
			continue
		}
		if links++; links > maxSymlinks {
			return nil, fmt.Errorf("%s: more than %d symlinks", path, maxSymlinks)
		}
		if strings.HasPrefix(e.Link, "/") {
			at = nil
		}
		rest = append(strings.Split(e.Link, "/"), rest...)
	}
	for links := 0; e != nil && e.Type == toc.HardLink && links <= maxSymlinks; links++ {
		var err error
		if e, err = get(e.Link); err != nil {
			return nil, err
		}
	}
	if e == nil || e.Type != toc.File {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	return e, nil
}

// catFrames writes the content of e.
func catFrames(ctx context.Context, f *zframe.File, e *toc.Entry, out io.Writer) error {
	h := sha256.New()
	skip := e.Offset + e.HeaderLen
	if e.Sparse != nil {
		skip += int64(len(sparseHeader(e).AppendSparseMap(nil)))
	}
	r := &frameReader{ctx: ctx, f: f, next: e.Frame}
	if _, err := io.CopyN(io.Discard, r, skip); err != nil {
		return fmt.Errorf("%s: %w", e.Name, err)
	}
	if err := copyContent(ctx, io.MultiWriter(out, h), r, e.Size, e.Sparse); err != nil {
		return fmt.Errorf("%s: %w", e.Name, err)
	}
	return checkDigest(e, h)
}

func checkDigest(e *toc.Entry, h hash.Hash) error {
	if [32]byte(h.Sum(nil)) != e.Digest {
		return badDigest(e)
	}
	return nil
}

func badDigest(e *toc.Entry) error {
	return &zframe.CorruptError{Where: e.Name, Err: errors.New("the content does not have the digest that the table of contents gives")}
}

// sparseHeader has what AppendSparseMap needs.
func sparseHeader(e *toc.Entry) *tarfmt.Header {
	h := &tarfmt.Header{Type: tarfmt.Reg, Size: e.Size, Sparse: make([]tarfmt.Segment, len(e.Sparse))}
	for i, s := range e.Sparse {
		h.Sparse[i] = tarfmt.Segment(s)
	}
	return h
}

// frameReader reads the tar stream from one frame on.
type frameReader struct {
	ctx  context.Context
	f    *zframe.File
	next int
	buf  []byte
	left []byte
}

func (r *frameReader) Read(p []byte) (int, error) {
	for len(r.left) == 0 {
		if err := r.ctx.Err(); err != nil {
			return 0, err
		}
		if r.next >= len(r.f.Frames()) {
			return 0, io.ErrUnexpectedEOF
		}
		var err error
		if r.buf, err = r.f.ReadFrame(r.next, r.buf[:0]); err != nil {
			return 0, err
		}
		r.left = r.buf
		r.next++
	}
	n := copy(p, r.left)
	r.left = r.left[n:]
	return n, nil
}

// copyContent writes size bytes: the segments from r, zeros between them. These may be many, and ctx ends them.
func copyContent(ctx context.Context, w io.Writer, r io.Reader, size int64, segs []toc.Segment) error {
	if segs == nil {
		_, err := io.CopyN(w, r, size)
		return err
	}
	end := int64(0)
	for _, s := range append(slices.Clone(segs), toc.Segment{Offset: size}) {
		for n := s.Offset - end; n > 0; n -= int64(len(zeroPage)) {
			if err := ctx.Err(); err != nil {
				return err
			}
			if _, err := w.Write(zeroPage[:min(n, int64(len(zeroPage)))]); err != nil {
				return err
			}
		}
		if _, err := io.CopyN(w, r, s.Length); err != nil {
			return err
		}
		end = s.Offset + s.Length
	}
	return nil
}

// catStream reads an archive without a table of contents: once for the names, because links may lead anywhere, and once up to
// the file.
func catStream(ctx context.Context, in *os.File, path string, workers int, out io.Writer) error {
	if st, err := in.Stat(); err != nil || !st.Mode().IsRegular() {
		return errors.Join(err, errors.New("cat reads archives of other makes twice: give it a file, not a pipe"))
	}
	names := make(map[string]*toc.Entry)
	number := int64(0)
	_, err := readEntries(ctx, in, workers, func(e *toc.Entry, _ *tarfmt.Reader) error {
		kept := *e
		kept.Offset = number // tells entries of one name apart: the last one counts, as when it is extracted
		names[e.Name] = &kept
		number++
		return nil
	})
	if err != nil {
		return err
	}
	e, err := find(path, func(name string) (*toc.Entry, error) { return names[name], nil })
	if err != nil {
		return err
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return err
	}
	number = 0
	_, err = readEntries(ctx, in, workers, func(at *toc.Entry, t *tarfmt.Reader) error {
		if number++; number-1 != e.Offset {
			return nil
		}
		if err := copyContent(ctx, out, t, at.Size, at.Sparse); err != nil {
			return err
		}
		return errStop
	})
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}

// errStop ends reading early.
var errStop = errors.New("enough")
