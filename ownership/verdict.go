package ownership

import (
	"errors"
	"fmt"

	"github.com/nsferry/nsferry/idshift"
)

// reading says which map an id belongs to that both maps hold as different inside ids. An id that only one of them holds, or
// both alike, never needs it.
type reading string

const (
	undecided reading = ""     // nothing tells: such an id is refused
	asFrom    reading = "from" // the tree has not been shifted
	asTo      reading = "to"   // the tree has been shifted
)

// view is the change as the inner half sees it: ids come in and go out as system calls show them.
type view struct {
	From, To idshift.Mapping
	Seen     idshift.Mapping // of the half's namespace: what it sees → outside
	// RealRoot is set outside of every namespace, where a capability without a root id counts everywhere.
	RealRoot bool
	Reading  reading
}

// verdict is what becomes of an id.
type verdict struct {
	id    uint32 // as seen
	moves bool
	both  bool // only the reading decided
	into  bool // it becomes an id that only the reading would decide on
	late  bool // it is an id of To alone: shifted before, or never in From
}

// image decides on one id. The error is an *idshift.UnmappedError, or errBoth.
func (v *view) image(k idshift.Kind, seen uint32) (verdict, error) {
	out, ok := v.Seen.Of(k).ToOutside(seen)
	if !ok {
		return verdict{}, &idshift.UnmappedError{Kind: k, ID: seen}
	}
	d, image, err := v.outside(k, out)
	if err != nil || !d.moves {
		d.id = seen
		return d, err
	}
	d.into = v.ambiguous(k, image)
	if d.id, ok = v.Seen.Of(k).ToInside(image); !ok {
		return d, &idshift.UnmappedError{Kind: k, ID: image}
	}
	return d, nil
}

// ambiguous tells whether both maps hold the outside id, for different inside ids.
func (v *view) ambiguous(k idshift.Kind, out uint32) bool {
	in, inFrom := v.From.Of(k).ToInside(out)
	was, inTo := v.To.Of(k).ToInside(out)
	return inFrom && inTo && in != was
}

// errBoth is an id that both maps hold, and nothing tells which one is meant.
var errBoth = errors.New("both maps have this id, and nothing tells which one is meant")

// outside is image for outside ids.
func (v *view) outside(k idshift.Kind, out uint32) (d verdict, image uint32, err error) {
	in, inFrom := v.From.Of(k).ToInside(out)
	_, inTo := v.To.Of(k).ToInside(out)
	image, hasImage := v.To.Of(k).ToOutside(in)
	switch {
	case !inFrom && !inTo:
		return d, 0, &idshift.UnmappedError{Kind: k, ID: out}
	case !inFrom:
		d.late = true
		return d, out, nil
	case hasImage && image == out:
		return d, out, nil
	case inTo:
		d.both = true
		switch v.Reading {
		case asTo:
			return d, out, nil
		case undecided:
			return d, 0, fmt.Errorf("%v %d: %w", k, out, errBoth)
		}
	}
	if !hasImage {
		return d, 0, &idshift.UnmappedError{Kind: k, ID: in, Inside: true}
	}
	d.moves = true
	return d, image, nil
}

// readRoot tells from the owner and group of a tree's root directory which map the tree has. The root directory is the last
// inode that Shift changes, in one system call, so it tells that of a whole tree also after a kill. An id that is inside uid 0
// of one map only settles it, then one that only one map holds.
func (v *view) readRoot(uid, gid uint32) reading {
	a, b := v.readID(idshift.UID, uid), v.readID(idshift.GID, gid)
	switch {
	case a == undecided:
		return b
	case b == undecided || a == b:
		return a
	}
	return undecided
}

func (v *view) readID(k idshift.Kind, seen uint32) reading {
	out, ok := v.Seen.Of(k).ToOutside(seen)
	if !ok {
		return undecided
	}
	from0, okFrom := v.From.Of(k).ToOutside(0)
	to0, okTo := v.To.Of(k).ToOutside(0)
	_, inFrom := v.From.Of(k).ToInside(out)
	_, inTo := v.To.Of(k).ToInside(out)
	switch {
	case okFrom && okTo && from0 == to0 && out == from0:
		return undecided
	case okTo && out == to0:
		return asTo
	case okFrom && out == from0:
		return asFrom
	case inFrom && !inTo:
		return asFrom
	case inTo && !inFrom:
		return asTo
	}
	return undecided
}

// capabilityRoot decides on the root id of a capability, and returns the one to write, as seen; rev2 asks for none.
func (v *view) capabilityRoot(c idshift.Capability) (root uint32, rev2, moves bool, err error) {
	from0, okFrom := v.From.UID.ToOutside(0)
	to0, okTo := v.To.UID.ToOutside(0)
	if !okTo {
		return 0, false, false, &idshift.UnmappedError{Kind: idshift.UID, Inside: true}
	}
	was, global := uint32(0), !c.Namespaced && v.RealRoot
	if !global {
		seen := uint32(0) // without a root id: the root of the reader's namespace (capabilities(7))
		if c.Namespaced {
			seen = c.RootID
		}
		var ok bool
		if was, ok = v.Seen.UID.ToOutside(seen); !ok {
			return 0, false, false, &idshift.UnmappedError{Kind: idshift.UID, ID: seen}
		}
	}
	switch {
	case was == to0 && !global, global && to0 == 0:
		return 0, false, false, nil
	case global, okFrom && was == from0:
	default:
		return 0, false, false, &idshift.UnmappedError{Kind: idshift.UID, ID: was}
	}
	if v.RealRoot && to0 == 0 {
		return 0, true, true, nil
	}
	root, ok := v.Seen.UID.ToInside(to0)
	if !ok {
		return 0, false, false, &idshift.UnmappedError{Kind: idshift.UID, ID: to0}
	}
	return root, root == 0 && !v.RealRoot, true, nil
}
