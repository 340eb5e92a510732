package tarfmt

import (
	"errors"
	"fmt"
	"math"
	"strconv"
)

// AppendSparseMap appends the map of a sparse file in GNU's PAX 1.0 form, padded with NULs to whole blocks: number of
// segments, then offset and length of each, in decimal, one a line (GNU tar manual, "Storing Sparse Files"). It is the
// first part of the stored data. Dense files have none.
func (h *Header) AppendSparseMap(dst []byte) []byte {
	if h.Sparse == nil {
		return dst
	}
	start := len(dst)
	n := len(h.Sparse)
	tail := h.endsInHole()
	if tail {
		n++
	}
	dst = append(strconv.AppendInt(dst, int64(n), 10), '\n')
	for _, s := range h.Sparse {
		dst = append(strconv.AppendInt(dst, s.Offset, 10), '\n')
		dst = append(strconv.AppendInt(dst, s.Length, 10), '\n')
	}
	if tail {
		dst = append(strconv.AppendInt(dst, h.Size, 10), "\n0\n"...)
	}
	return append(dst, Trailer[:Padding(int64(len(dst)-start))]...)
}

// endsInHole tells whether the map needs a final empty segment at Size. GNU tar sets the length of the file by it and
// would otherwise cut off the last hole.
func (h *Header) endsInHole() bool {
	n := len(h.Sparse)
	return n == 0 || h.Sparse[n-1].Offset+h.Sparse[n-1].Length != h.Size
}

// sparseMapSize is the length of what AppendSparseMap appends.
func (h *Header) sparseMapSize() int64 {
	n, count := int64(0), len(h.Sparse)
	if h.endsInHole() {
		count++
		n += int64(decimals(h.Size)) + 3
	}
	n += int64(decimals(int64(count))) + 1
	for _, s := range h.Sparse {
		n += int64(decimals(s.Offset)+decimals(s.Length)) + 2
	}
	return n + Padding(n)
}

// decimals counts the decimal digits of n, which is not negative.
func decimals(n int64) int {
	d := 1
	for ; n >= 10; n /= 10 {
		d++
	}
	return d
}

// checkSegments demands ascending, separate segments that lie in a file of the given size. Empty ones are allowed.
func checkSegments(segs []Segment, size int64) error {
	var end int64
	for _, s := range segs {
		switch {
		case s.Offset < 0 || s.Length < 0 || s.Length > math.MaxInt64-s.Offset:
			return errors.New("sparse map holds a negative or too large number")
		case s.Offset < end:
			return errors.New("sparse map is not ascending")
		case s.Offset+s.Length > size:
			return errors.New("sparse map reaches beyond the end of the file")
		}
		end = s.Offset + s.Length
	}
	return nil
}

// checkWritable demands of a map what Append needs: GNU tar reads the data of each segment from a new block, libarchive
// reads all without padding, so that both agree only where whole blocks come before the last segment.
func checkWritable(segs []Segment, size int64) error {
	for i, s := range segs {
		if s.Length == 0 {
			return errors.New("sparse map holds an empty segment")
		}
		if s.Length%BlockSize != 0 && i != len(segs)-1 {
			return fmt.Errorf("sparse segment of %d bytes is not made of whole blocks", s.Length)
		}
	}
	return checkSegments(segs, size)
}

// Coalesce returns a map for a file of the given size that Append accepts and that covers the data of segs, which are
// ascending and may touch: the map that a filesystem with blocks of unit bytes, a power of two that is no less than
// BlockSize, would have for it. Holes shorter than minHole bytes become data: whoever stores the data writes zeros there. The result is not nil.
func Coalesce(segs []Segment, size, unit, minHole int64) []Segment {
	out := []Segment{}
	end := int64(0) // of the last segment in out
	put := func(from, to int64) {
		if n := len(out); n > 0 && from-end < minHole {
			out[n-1].Length = max(end, to) - out[n-1].Offset
		} else if from < minHole {
			out = append(out, Segment{0, to})
		} else {
			out = append(out, Segment{from, to - from})
		}
		end = max(end, to)
	}
	for _, s := range segs {
		if s.Length <= 0 || s.Offset >= size {
			continue
		}
		to := min(s.Offset+s.Length, size)
		put(s.Offset-s.Offset%unit, min(to+(-to&(unit-1)), size))
	}
	if end < size && size-end < minHole {
		put(end, size)
	}
	return out
}
