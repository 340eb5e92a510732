package archive

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"reflect"

	"github.com/nsferry/nsferry/archive/tarfmt"
	"github.com/nsferry/nsferry/archive/zframe"
	"github.com/nsferry/nsferry/archive/zframe/toc"
)

// Verified says what Verify found whole.
type Verified struct {
	Kind    string `json:"kind"`    // outer format: zstd, gzip, xz, bzip2 or tar
	Own     bool   `json:"own"`     // it has our table of contents, which was checked against the stream
	Entries int64  `json:"entries"` // of the tar stream
	Content int64  `json:"content"` // bytes in files
	Frames  int    `json:"frames,omitempty"`
}

// Verify reads all of an archive. Of ours everything is checked: the sums of the stored frames, their own checksums, and that
// the table of contents says of each entry and frame what the tar stream says, digests and identities computed anew. Of
// another make the stream is checked for what its formats promise.
func Verify(ctx context.Context, in *os.File, workers int) (Verified, error) {
	f, err := openFramed(in)
	if errors.Is(err, zframe.ErrNotSeekable) {
		return verifyStream(ctx, in, workers)
	}
	if err != nil {
		return Verified{}, err
	}
	table, err := toc.Open(f)
	if err != nil {
		return Verified{}, err
	}
	defer table.Close()
	v := &verifier{f: f, table: table, id: zframe.NewIdentityHash()}
	if err := v.entries(ctx, io.NewSectionReader(in, 0, math.MaxInt64), workers); err != nil {
		return Verified{}, err
	}
	if err := v.frames(ctx, workers); err != nil {
		return Verified{}, err
	}
	return Verified{Kind: zframe.KindZstd.String(), Own: true, Entries: v.sum.Entries, Content: v.sum.Content, Frames: len(f.Frames())}, nil
}

func verifyStream(ctx context.Context, in *os.File, workers int) (Verified, error) {
	v := Verified{}
	kind, err := readEntries(ctx, in, workers, func(e *toc.Entry, _ *tarfmt.Reader) error {
		v.Entries++
		v.Content += e.Size
		_, err := node(e)
		return err
	})
	v.Kind = kind.String()
	return v, err
}

// verifier compares the tar stream with the table of contents.
type verifier struct {
	f     *zframe.File
	table *toc.Reader
	sum   Summary

	id         *zframe.IdentityHash // of the frame under way
	frame      int                  // its number
	start      int64                // raw offset at which it begins
	identities [][32]byte
}

// entries reads the stream, which must be one tar archive and nothing else.
func (v *verifier) entries(ctx context.Context, stream io.Reader, workers int) error {
	r := zframe.NewParallelReader(stream, zframe.Options{Workers: workers})
	defer r.Close()
	t := tarfmt.NewReader(r, tarfmt.Limits{})
	var want toc.Entry
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if err := v.table.Next(&want); err != nil {
			if errors.Is(err, io.EOF) {
				err = v.corrupt(h.Name, "is not in the table of contents")
			}
			return err
		}
		if err := v.entry(ctx, h, t, &want); err != nil {
			return err
		}
	}
	if err := v.table.Next(&want); err == nil {
		return v.corrupt(want.Name, "is in the table of contents, but not in the archive")
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	if rest, err := t.TrailingGarbage(); err != nil || rest || t.Consumed() != v.f.Raw() {
		return errors.Join(err, v.corrupt("tar stream", "does not end with its end-of-archive blocks"))
	}
	return nil
}

func (v *verifier) corrupt(where, what string) error {
	return &zframe.CorruptError{Where: where, Err: errors.New(what)}
}

// entry checks one entry: place, header, content.
func (v *verifier) entry(ctx context.Context, h *tarfmt.Header, t *tarfmt.Reader, want *toc.Entry) error {
	got, err := tocEntry(h, "")
	if err != nil {
		return err
	}
	if v.sum.Entries == 0 && h.Comment != Mark {
		return v.corrupt(h.Name, "lacks the mark of an archive with a table of contents")
	}
	raw := t.RawHeader()
	v.enter(t.Offset(), raw)
	got.Frame, got.Offset, got.HeaderLen = v.frame, t.Offset()-v.start, int64(len(raw))
	if got.Type == toc.File {
		if got.Digest, err = digest(ctx, t, got.Size, got.Sparse); err != nil {
			return fmt.Errorf("entry %s: %w", quote(h.Name), err)
		}
		v.sum.Content += got.Size
	}
	v.parts(t.Offset()+got.HeaderLen, h.Stored(), got.Digest)
	if !reflect.DeepEqual(&got, want) {
		return v.corrupt(h.Name, fmt.Sprintf("the table of contents says %+v, the archive %+v", *want, got))
	}
	v.sum.Entries++
	return nil
}

// enter moves on to the frame that the entry at raw offset at begins in.
func (v *verifier) enter(at int64, header []byte) {
	if spans := v.f.Frames(); at >= v.start+spans[v.frame].Raw && v.frame+1 < len(spans) {
		v.next()
	}
	v.id.Header(header)
}

// next ends a frame.
func (v *verifier) next() {
	v.identities = append(v.identities, v.id.Sum())
	v.start += v.f.Frames()[v.frame].Raw
	v.frame++
}

// parts adds the entry's stored data to the identities of the frames that it lies in.
func (v *verifier) parts(data, stored int64, sum [32]byte) {
	spans := v.f.Frames()
	for off := int64(0); ; {
		end := v.start + spans[v.frame].Raw
		n := min(stored-off, end-(data+off))
		v.id.Part(off, n)
		v.id.Digest(sum)
		off += n
		if off == stored || v.frame+1 == len(spans) {
			return
		}
		v.next()
		v.id.Header(nil)
	}
}

// frames checks what the table of contents says of the frames.
func (v *verifier) frames(ctx context.Context, workers int) error {
	v.id.End()
	v.next()
	records := v.table.Frames()
	if len(v.identities) != len(records) {
		return v.corrupt("table of contents", "the frames are not cut as the archive is")
	}
	type result struct {
		frame int
		sum   [32]byte
	}
	order := zframe.NewOrdered(ctx, zframe.Limits{Workers: workers}, func(r result) error {
		where := fmt.Sprintf("frame %d", r.frame)
		if r.sum != records[r.frame].Sum {
			return v.corrupt(where, "does not have the sum that the table of contents gives")
		}
		if v.identities[r.frame] != records[r.frame].Identity {
			return v.corrupt(where, "does not have the identity that the table of contents gives")
		}
		return nil
	})
	for i, s := range v.f.Frames() {
		if err := order.Submit(s.Stored, func(int) (result, error) {
			b, err := v.f.ReadStored(i, nil)
			return result{i, sha256.Sum256(b)}, err
		}); err != nil {
			break // Wait returns it too
		}
	}
	return order.Wait()
}
