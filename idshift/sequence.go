package idshift

import (
	"cmp"
	"fmt"
	"slices"
)

// sequence is the caller's ranges one after the other, each id once: position i is what inside id i gets before a model
// changes anything.
type sequence struct {
	ranges []Range
	n      uint32
}

// newSequence drops empty ranges and what earlier ranges have already, and refuses ids that do not exist.
func newSequence(ranges []Range) (sequence, error) {
	var s sequence
	for _, r := range ranges {
		if r.end() > uint64(maxID)+1 {
			return sequence{}, fmt.Errorf("%d ids from %d on go beyond id %d", r.Count, r.First, maxID)
		}
		for _, part := range without(r, s.ranges) {
			s.ranges = append(s.ranges, part)
			s.n += part.Count
		}
	}
	return s, nil
}

// without returns the parts of r, in order, that none of the others covers.
func without(r Range, others []Range) []Range {
	others = slices.Clone(others)
	slices.SortFunc(others, func(x, y Range) int { return cmp.Compare(x.First, y.First) })
	var out []Range
	from := uint64(r.First)
	for _, o := range others {
		if o.end() <= from || uint64(o.First) >= r.end() {
			continue
		}
		if uint64(o.First) > from {
			out = append(out, Range{First: uint32(from), Count: uint32(uint64(o.First) - from)})
		}
		from = o.end()
	}
	if from < r.end() {
		out = append(out, Range{First: uint32(from), Count: uint32(r.end() - from)})
	}
	return out
}

// extents maps position i to inside id i.
func (s sequence) extents() []Extent {
	var out []Extent
	var inside uint32
	for _, r := range s.ranges {
		out = append(out, Extent{Inside: inside, Outside: r.First, Count: r.Count})
		inside += r.Count
	}
	return out
}

// at returns the id at position i, which must be below n.
func (s sequence) at(i uint32) uint32 {
	for _, r := range s.ranges {
		if i < r.Count {
			return r.First + i
		}
		i -= r.Count
	}
	panic("idshift: internal error: position behind the ranges")
}

// draft is a map in the making: extents that do not overlap on either side, in any order.
type draft []Extent

// outside returns the outside id of an inside id, and whether it has one.
func (d draft) outside(inside uint32) (uint32, bool) {
	for _, e := range d {
		if inside >= e.Inside && inside-e.Inside < e.Count {
			return e.Outside + (inside - e.Inside), true
		}
	}
	return 0, false
}

// inside returns the inside id of an outside id, and whether it has one.
func (d draft) inside(outside uint32) (uint32, bool) {
	for _, e := range d {
		if outside >= e.Outside && outside-e.Outside < e.Count {
			return e.Inside + (outside - e.Outside), true
		}
	}
	return 0, false
}

// assign maps inside to outside. Where outside had another place, that place gets what inside had, or is given up if inside
// had nothing; so no id is mapped twice, and none gets lost in an exchange.
func (d *draft) assign(inside, outside uint32) {
	had, hasHad := d.outside(inside)
	place, hasPlace := d.inside(outside)
	if hasPlace && place == inside {
		return
	}
	d.drop(inside)
	if hasPlace {
		d.drop(place)
		if hasHad {
			*d = append(*d, Extent{Inside: place, Outside: had, Count: 1})
		}
	}
	*d = append(*d, Extent{Inside: inside, Outside: outside, Count: 1})
}

// drop takes one inside id out of the map.
func (d *draft) drop(inside uint32) {
	for i, e := range *d {
		if inside < e.Inside || inside-e.Inside >= e.Count {
			continue
		}
		head := inside - e.Inside
		rest := slices.Delete(*d, i, i+1)
		if head > 0 {
			rest = append(rest, Extent{Inside: e.Inside, Outside: e.Outside, Count: head})
		}
		if tail := e.Count - head - 1; tail > 0 {
			rest = append(rest, Extent{Inside: inside + 1, Outside: e.Outside + head + 1, Count: tail})
		}
		*d = rest
		return
	}
}

// unused returns the parts of an outside range that the draft does not map, in order.
func (d draft) unused(r Range) []Range {
	used := make([]Range, len(d))
	for i, e := range d {
		used[i] = Range{First: e.Outside, Count: e.Count}
	}
	return without(r, used)
}

// fill maps the outside range at the first free inside ids, in several pieces if the gaps are small. There is always
// room, because there are as many inside as outside ids.
func (d *draft) fill(r Range) {
	used := make([]Range, len(*d))
	for i, e := range *d {
		used[i] = Range{First: e.Inside, Count: e.Count}
	}
	for _, gap := range without(Range{First: 0, Count: maxID + 1}, used) {
		n := min(gap.Count, r.Count)
		*d = append(*d, Extent{Inside: gap.First, Outside: r.First, Count: n})
		if r.Count -= n; r.Count == 0 {
			return
		}
		r.First += n
	}
	panic("idshift: internal error: more outside ids than inside ids")
}

// done makes the map and checks that a namespace can be given it.
func (d draft) done(k Kind) (Map, error) {
	m, err := NewMap(d...)
	if err == nil {
		err = m.Writable()
	}
	if err != nil {
		return Map{}, fmt.Errorf("%s %w", k, err)
	}
	return m, nil
}
