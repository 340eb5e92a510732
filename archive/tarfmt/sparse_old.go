package tarfmt

import "errors"

// Layout of GNU's old sparse header and its extension blocks (GNU tar manual, "Basic Tar Format").
var (
	fOldSparse   = field{386, 482} // four times {offset, length}, twelve bytes each
	fOldRealSize = field{483, 495}
	fExtSparse   = field{0, 504} // 21 times
)

const (
	oldExtended = 482 // non-zero: an extension block follows
	extExtended = 504
)

// oldGNUMap reads the map out of the header block and the extension blocks that follow it.
func (r *Reader) oldGNUMap(b *block) (segs []Segment, size int64, err error) {
	if b.format() != gnu {
		return nil, 0, errors.New("sparse file of star is not supported")
	}
	if size, err = b.number(fOldRealSize); err != nil || size < 0 {
		return nil, 0, errors.New("bad real size of a sparse file")
	}
	if err = r.oldSegments(&segs, b, fOldSparse); err != nil {
		return nil, 0, err
	}
	for more := b[oldExtended] != 0; more; {
		ext, err := r.in.block()
		if err != nil {
			return nil, 0, truncated(err)
		}
		if err := r.oldSegments(&segs, ext, fExtSparse); err != nil {
			return nil, 0, err
		}
		more = ext[extExtended] != 0
	}
	return segs, size, nil
}

// oldSegments appends the segments of one block, up to the first slot without a length.
func (r *Reader) oldSegments(segs *[]Segment, b *block, f field) error {
	for at := f.from; at < f.to; at += 24 {
		if b[at+12] == 0 {
			return nil
		}
		offset, err1 := b.number(field{at, at + 12})
		length, err2 := b.number(field{at + 12, at + 24})
		if err1 != nil || err2 != nil {
			return errors.New("bad number in the sparse map")
		}
		if err := addSegment(segs, Segment{offset, length}, r.lim.SparseSegments); err != nil {
			return err
		}
	}
	return nil
}
