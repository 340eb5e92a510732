package idshift

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// Extent maps Count inside ids from Inside on to as many outside ids from Outside on.
type Extent struct {
	Inside, Outside, Count uint32
}

// check refuses extents that are empty or go beyond the last id.
func (e Extent) check() error {
	if e.Count == 0 {
		return fmt.Errorf("map %s: no ids", e)
	}
	last := uint64(max(e.Inside, e.Outside)) + uint64(e.Count) - 1
	if last > uint64(maxID) {
		return fmt.Errorf("map %s: goes beyond id %d", e, maxID)
	}
	return nil
}

// String returns "INSIDE:OUTSIDE:COUNT".
func (e Extent) String() string { return fmt.Sprintf("%d:%d:%d", e.Inside, e.Outside, e.Count) }

// Map is a one-to-one map between inside and outside ids of one kind. The zero value maps nothing; NewMap and ParseProcMap
// make all others. A Map is immutable and goes through JSON as its text.
type Map struct {
	in  []Extent // sorted by Inside
	out []Extent // the same, sorted by Outside
}

// NewMap builds a map from extents in any order. It refuses an extent without ids or beyond id 4294967294, and extents that
// overlap inside or outside. Extents that continue each other on both sides are joined.
func NewMap(ext ...Extent) (Map, error) {
	m, err := exactMap(ext)
	if err != nil {
		return Map{}, err
	}
	return sortedMap(join(m.in)), nil
}

// exactMap is NewMap without the joining, for maps whose borders matter (see Under).
func exactMap(ext []Extent) (Map, error) {
	for _, e := range ext {
		if err := e.check(); err != nil {
			return Map{}, err
		}
	}
	m := sortedMap(slices.Clone(ext))
	for i := 1; i < len(ext); i++ {
		if p, e := m.in[i-1], m.in[i]; uint64(p.Inside)+uint64(p.Count) > uint64(e.Inside) {
			return Map{}, fmt.Errorf("map %s and %s: inside ids overlap", p, e)
		}
		if p, e := m.out[i-1], m.out[i]; uint64(p.Outside)+uint64(p.Count) > uint64(e.Outside) {
			return Map{}, fmt.Errorf("map %s and %s: outside ids overlap", p, e)
		}
	}
	return m, nil
}

// sortedMap takes over the extents and sorts them both ways.
func sortedMap(in []Extent) Map {
	slices.SortFunc(in, func(x, y Extent) int { return cmp.Compare(x.Inside, y.Inside) })
	out := slices.Clone(in)
	slices.SortFunc(out, func(x, y Extent) int { return cmp.Compare(x.Outside, y.Outside) })
	return Map{in: in, out: out}
}

// join returns sorted extents with those that continue each other made one.
func join(in []Extent) []Extent {
	var out []Extent
	for _, e := range in {
		if n := len(out); n > 0 && out[n-1].Inside+out[n-1].Count == e.Inside && out[n-1].Outside+out[n-1].Count == e.Outside {
			out[n-1].Count += e.Count
			continue
		}
		out = append(out, e)
	}
	return out
}

// Under returns the map cut at the borders of parent's extents, because the kernel demands that each line of a nested map
// lies within one line of the namespace that it is written from (map_write in kernel/user_namespace.c). parent is that
// namespace's own map as ParseProcMap read it; this map's outside ids are parent's inside ids, and one that parent does not
// map is an error. The result maps the same ids and is meant for Args and Writable.
func (m Map) Under(parent Map) (Map, error) {
	var cut []Extent
	for _, e := range m.in {
		for _, p := range parent.in {
			first := max(e.Outside, p.Inside)
			end := min(uint64(e.Outside)+uint64(e.Count), uint64(p.Inside)+uint64(p.Count))
			if uint64(first) < end {
				cut = append(cut, Extent{e.Inside + (first - e.Outside), first, uint32(end - uint64(first))})
			}
		}
	}
	n := sortedMap(cut)
	if !n.Equal(m) {
		return Map{}, fmt.Errorf("map %s: not all outside ids exist in this namespace, whose map is %s", m, parent)
	}
	return n, nil
}

// Extents returns a copy of the extents, sorted by inside id.
func (m Map) Extents() []Extent { return slices.Clone(m.in) }

// Empty tells whether the map holds no id at all.
func (m Map) Empty() bool { return len(m.in) == 0 }

// ToOutside returns the outside id that the inside id has, and whether it has one.
func (m Map) ToOutside(id uint32) (uint32, bool) {
	i := sort.Search(len(m.in), func(i int) bool { return m.in[i].Inside > id }) - 1
	if i < 0 || id-m.in[i].Inside >= m.in[i].Count {
		return 0, false
	}
	return m.in[i].Outside + (id - m.in[i].Inside), true
}

// ToInside returns the inside id that the outside id has, and whether it has one.
func (m Map) ToInside(id uint32) (uint32, bool) {
	i := sort.Search(len(m.out), func(i int) bool { return m.out[i].Outside > id }) - 1
	if i < 0 || id-m.out[i].Outside >= m.out[i].Count {
		return 0, false
	}
	return m.out[i].Inside + (id - m.out[i].Outside), true
}

// IsIdentity tells whether every id that the map holds is the same inside and outside, and it holds one.
func (m Map) IsIdentity() bool {
	for _, e := range m.in {
		if e.Inside != e.Outside {
			return false
		}
	}
	return !m.Empty()
}

// Equal tells whether both maps hold the same ids and map them alike.
func (m Map) Equal(o Map) bool { return slices.Equal(join(m.in), join(o.in)) }

// String returns the extents as ParseSpec reads them: "0:100000:65536,65536:1000:1".
func (m Map) String() string {
	s := make([]string, len(m.in))
	for i, e := range m.in {
		s[i] = e.String()
	}
	return strings.Join(s, ",")
}

// Args returns the map as the arguments that newuidmap(1) and newgidmap(1) take after the pid: three numbers per extent.
func (m Map) Args() []string {
	args := make([]string, 0, 3*len(m.in))
	for _, e := range m.in {
		for _, n := range []uint32{e.Inside, e.Outside, e.Count} {
			args = append(args, strconv.FormatUint(uint64(n), 10))
		}
	}
	return args
}

// MarshalText returns String.
func (m Map) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads what MarshalText wrote; the empty text is the empty map.
func (m *Map) UnmarshalText(text []byte) error {
	var ext []Extent
	for s := range strings.SplitSeq(string(text), ",") {
		if s == "" && len(text) == 0 {
			break
		}
		e, err := parseExtent(s, strings.Split(s, ":"))
		if err != nil {
			return err
		}
		ext = append(ext, e)
	}
	n, err := NewMap(ext...)
	if err != nil {
		return err
	}
	*m = n
	return nil
}

// The kernel takes one write of less than a page with at most 340 lines (user_namespaces(7)); newuidmap has no other way.
const (
	maxLines    = 340
	maxMapBytes = 4095
)

// Writable returns an error when the map cannot be given to a namespace: it is empty, has more than 340 extents, or its
// text is longer than the page that /proc/PID/uid_map takes in its only write. Maps for arithmetic have no such limits.
func (m Map) Writable() error {
	size := 0
	for _, a := range m.Args() {
		size += len(a) + 1
	}
	switch {
	case m.Empty():
		return fmt.Errorf("map without ids")
	case len(m.in) > maxLines:
		return fmt.Errorf("map of %d lines: the kernel takes %d", len(m.in), maxLines)
	case size > maxMapBytes:
		return fmt.Errorf("map of %d lines and %d bytes: the kernel takes %d bytes", len(m.in), size, maxMapBytes)
	}
	return nil
}
