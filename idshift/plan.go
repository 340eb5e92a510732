package idshift

import (
	"errors"
	"fmt"
	"slices"
)

// Model names a way in which inside ids map to outside ids.
type Model string

// The models. N is the number of the caller's sub-ids, B the first one.
const (
	// ModelBase maps 0..N-1 to B..B+N-1 and leaves the caller out, as mmdebstrap and sbuild do.
	ModelBase Model = "base"
	// ModelCaller maps 0 to the caller and 1..N-1 to B+1..B+N-1; B is not used. Podman does nearly so.
	ModelCaller Model = "caller"
	// ModelIdentity maps the caller's own id to itself and every other one below N as ModelBase does.
	ModelIdentity Model = "identity"
)

// Models returns all models, the default first.
func Models() []Model { return []Model{ModelBase, ModelCaller, ModelIdentity} }

// Plan returns the mapping of the model for the caller. Uids and gids are planned separately, since their ranges may differ in
// length. Further ranges continue the map at the next inside ids, in their order.
//
// Inside 0 and 65534 are always mapped: 65534 linearly as far as the ranges reach, otherwise the last sub-id is spent on
// it. Where that cannot be, the error is a *RangeError, which says what root has to add, or two of them, joined.
func Plan(m Model, c Caller) (Mapping, error) {
	if !slices.Contains(Models(), m) {
		return Mapping{}, fmt.Errorf("model %q is none of %q", m, Models())
	}
	uid, uidErr := plan(m, c, UID)
	gid, gidErr := plan(m, c, GID)
	if err := errors.Join(uidErr, gidErr); err != nil {
		return Mapping{}, err
	}
	return Mapping{UID: uid, GID: gid}, nil
}

// plan makes the map of one kind.
func plan(m Model, c Caller, k Kind) (Map, error) {
	own := c.id(k)
	if own > maxID {
		return Map{}, fmt.Errorf("caller's %s %d is no id", k, own)
	}
	seq, err := newSequence(c.ranges(k))
	if err != nil {
		return Map{}, fmt.Errorf("sub-%s ranges: %w", k, err)
	}
	if seq.n == 0 {
		return Map{}, rangeError(m, c, k, 0)
	}
	d := draft(seq.extents())
	taken := false // whether the caller's own id has a place that must not be given to nobody
	switch m {
	case ModelCaller:
		d.assign(0, own)
		taken = true
	case ModelIdentity:
		d.assign(own, own)
		taken = true
	}
	if _, ok := d.outside(nobody); !ok {
		last, ok := seq.at(seq.n-1), true
		if taken && last == own {
			ok = seq.n > 1
			last = seq.at(max(seq.n, 2) - 2)
		}
		if ok {
			d.assign(nobody, last)
		}
	}
	_, hasRoot := d.outside(0)
	_, hasNobody := d.outside(nobody)
	if !hasRoot || !hasNobody {
		return Map{}, rangeError(m, c, k, seq.n)
	}
	return d.done(k)
}

// Handoff returns plain plus the caller's own ids and whatever of his ranges plain leaves out, each at the first free inside
// ids: first the caller, then the leftovers in the order of the ranges. In such a map inner root may give files to the
// caller and take them. The extra ids mean nothing to archives: check ids against plain, not against this map.
func Handoff(plain Mapping, c Caller) (Mapping, error) {
	var out Mapping
	var err error
	if out.UID, err = handoff(plain.UID, c, UID); err != nil {
		return Mapping{}, err
	}
	if out.GID, err = handoff(plain.GID, c, GID); err != nil {
		return Mapping{}, err
	}
	return out, nil
}

// handoff extends the map of one kind.
func handoff(plain Map, c Caller, k Kind) (Map, error) {
	seq, err := newSequence(c.ranges(k))
	if err != nil {
		return Map{}, fmt.Errorf("sub-%s ranges: %w", k, err)
	}
	own := c.id(k)
	if own > maxID {
		return Map{}, fmt.Errorf("caller's %s %d is no id", k, own)
	}
	d := draft(plain.Extents())
	for _, r := range append([]Range{{First: own, Count: 1}}, seq.ranges...) {
		for _, left := range d.unused(r) {
			d.fill(left)
		}
	}
	return d.done(k)
}

// Visible returns the parts of the ranges that the current namespace maps, in order: a nested namespace can be given no
// other ids. parent is the current process's own map (/proc/self/uid_map or gid_map); the ranges are ids as seen in
// that namespace, that is, parent's inside ids.
func Visible(ranges []Range, parent Map) []Range {
	var out []Range
	for _, r := range ranges {
		for _, e := range parent.in {
			first := max(r.First, e.Inside)
			end := min(r.end(), uint64(e.Inside)+uint64(e.Count))
			if uint64(first) >= end {
				continue
			}
			part := Range{First: first, Count: uint32(end - uint64(first))}
			// Adjacent extents of the parent are one range here.
			if n := len(out); n > 0 && out[n-1].end() == uint64(first) && first > r.First {
				out[n-1].Count += part.Count
				continue
			}
			out = append(out, part)
		}
	}
	return out
}
