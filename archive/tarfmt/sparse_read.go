package tarfmt

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
)

// paxSparse collects GNU.sparse records of the versions 0.0, 0.1 and 1.0 (GNU tar manual, "Storing Sparse Files").
type paxSparse struct {
	name         string
	major, minor int64
	blocks       int64
	offset       int64 // of version 0.0, waits for its numbytes
	waiting      bool
	mapped       bool // segs were given by records
	segs         []Segment
}

// sparseRecord takes in GNU.sparse.KEY.
func (p *paxState) sparseRecord(key, value []byte, limit int) (err error) {
	s := &p.sparse
	switch string(key) {
	case "name":
		return setText(&s.name, value)
	case "major":
		return p.setInt(&s.major, hasMajor, value)
	case "minor":
		return p.setInt(&s.minor, hasMajor, value)
	case "size", "realsize":
		return p.setInt(&p.realSize, hasRealSize, value)
	case "numblocks":
		return p.setInt(&s.blocks, hasBlocks, value)
	case "offset":
		s.offset, err = parseDecimal(value)
		if err == nil && s.waiting {
			err = errors.New("two offsets in a row")
		}
		s.waiting, s.mapped = true, true
		return err
	case "numbytes":
		n, err := parseDecimal(value)
		if err != nil || !s.waiting {
			return errors.New("bad length in a sparse map")
		}
		s.waiting = false
		return addSegment(&s.segs, Segment{s.offset, n}, limit)
	case "map":
		return s.parseMap(value, limit)
	}
	return nil
}

// parseMap reads the map of version 0.1, "offset,length,offset,length…".
func (s *paxSparse) parseMap(value []byte, limit int) error {
	s.segs, s.mapped = nil, true
	for len(value) > 0 {
		var nums [2]int64
		for i := range nums {
			text, rest, _ := bytes.Cut(value, []byte{','})
			n, err := parseDecimal(text)
			if err != nil {
				return err
			}
			nums[i], value = n, rest
		}
		if err := addSegment(&s.segs, Segment{nums[0], nums[1]}, limit); err != nil {
			return err
		}
	}
	return nil
}

func addSegment(segs *[]Segment, s Segment, limit int) error {
	if len(*segs) >= limit {
		return fmt.Errorf("sparse map has more than %d segments", limit)
	}
	*segs = append(*segs, s)
	return nil
}

// readSparse finds the sparse map of the entry, wherever it is, and consumes what of it lies in the stream. h.Size holds
// the stored size when it is called and the logical size afterwards; r.left becomes the length of the data segments.
func (r *Reader) readSparse(h *Header, p *paxState, b *block) error {
	var segs []Segment
	var err error
	stored, s := h.Size, &p.sparse
	switch {
	case b[typeflag] == 'S':
		segs, h.Size, err = r.oldGNUMap(b)
	case p.has&hasMajor != 0 && s.major == 1 && s.minor == 0:
		segs, stored, err = r.dataMap(stored)
	case p.has&hasMajor != 0 && s.major != 0:
		err = fmt.Errorf("sparse version %d.%d is not supported", s.major, s.minor)
	case s.mapped || p.has&hasRealSize != 0:
		segs = s.segs
		if s.waiting || p.has&hasBlocks != 0 && s.blocks != int64(len(segs)) {
			err = errors.New("sparse map is incomplete")
		}
	default:
		return nil
	}
	if err != nil {
		return err
	}
	if p.has&hasRealSize != 0 {
		h.Size = p.realSize
	} else if b[typeflag] != 'S' {
		return errors.New("sparse file without its real size")
	}
	return r.setSparse(h, segs, stored)
}

// setSparse checks the map against both sizes and leaves the empty segments out, which tars write to mark the end.
func (r *Reader) setSparse(h *Header, segs []Segment, stored int64) error {
	if err := checkSegments(segs, h.Size); err != nil {
		return err
	}
	if n := dataLength(segs); n != stored {
		return fmt.Errorf("sparse map speaks of %d bytes of data, the header of %d", n, stored)
	}
	h.Sparse = slices.DeleteFunc(segs, func(s Segment) bool { return s.Length == 0 })
	if h.Sparse == nil {
		h.Sparse = []Segment{}
	}
	r.left, r.skip = stored, Padding(stored)
	return nil
}

// dataMap reads the map of version 1.0 from the beginning of the stored data and returns what is left of these.
func (r *Reader) dataMap(stored int64) (segs []Segment, left int64, err error) {
	m := mapScanner{limit: r.lim.SparseSegments}
	for left = stored; !m.done(); left -= BlockSize {
		if left < BlockSize {
			return nil, 0, errors.New("sparse map is longer than the data")
		}
		b, err := r.in.block()
		if err != nil {
			return nil, 0, truncated(err)
		}
		if err := m.scan(b); err != nil {
			return nil, 0, err
		}
	}
	return m.segs, left, nil
}

// mapScanner reads the numbers of a version 1.0 map, which may be split by block borders.
type mapScanner struct {
	limit     int
	segs      []Segment
	count     int64 // of segments
	numbers   int64 // read so far: the count, then two for each segment
	n, digits int64 // the number being read
}

func (m *mapScanner) done() bool { return m.numbers > 2*m.count }

// scan reads one block, or its beginning when the map ends there.
func (m *mapScanner) scan(b *block) error {
	for _, c := range b {
		if m.done() {
			return nil
		}
		d := int64(c) - '0'
		switch {
		case c == '\n' && m.digits > 0:
			if err := m.number(); err != nil {
				return err
			}
		case d < 0 || d > 9 || m.n > (math.MaxInt64-d)/10:
			return errors.New("bad number in the sparse map")
		default:
			m.n, m.digits = m.n*10+d, m.digits+1
		}
	}
	return nil
}

// number takes in a finished number.
func (m *mapScanner) number() error {
	switch {
	case m.numbers == 0:
		if m.count = m.n; m.count > int64(m.limit) {
			return fmt.Errorf("sparse map has more than %d segments", m.limit)
		}
	case m.numbers%2 == 1:
		m.segs = append(m.segs, Segment{Offset: m.n})
	default:
		m.segs[len(m.segs)-1].Length = m.n
	}
	m.n, m.digits = 0, 0
	m.numbers++
	return nil
}
