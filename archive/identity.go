package archive

import (
	"context"

	"github.com/nsferry/nsferry/archive/zframe"
)

// identify sets the frame's identity (FORMAT §2), unless it lacks the digest of the entry that it ends with.
func (f *frame) identify() {
	last := &f.parts[len(f.parts)-1]
	if last.turn != nil && !last.last {
		return
	}
	id := f.hash()
	if last := len(f.parts) - 1; !f.parts[last].last {
		id.Digest(f.sums[last])
	}
	sum := id.Sum()
	f.id = &sum
}

// hash is the frame's identity as far as its entries are complete: what an unfinished last part lacks is a digest.
func (f *frame) hash() *zframe.IdentityHash {
	id := zframe.NewIdentityHash()
	for i := range f.parts {
		p := &f.parts[i]
		id.Header(p.header)
		id.Part(p.off, p.len)
		if p.last {
			id.Digest(f.sums[i])
		}
	}
	if f.end {
		id.End()
	}
	return id
}

// digests fills in the digests of all entries of the frame. What has to be read for that is kept.
func (c *creator) digests(ctx context.Context, f *frame) error {
	for i := range f.parts {
		p := &f.parts[i]
		sum, known, err := p.digest(ctx)
		if err != nil {
			return err
		}
		if !known {
			if f.kept == nil {
				f.kept = make([][]byte, len(f.parts))
			}
			if f.kept[i], sum, err = p.content(ctx, []byte{}); err != nil {
				return err
			}
		}
		f.sums[i] = sum
	}
	return nil
}
