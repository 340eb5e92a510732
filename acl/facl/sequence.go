package facl

import (
	"fmt"
	"slices"

	"github.com/nsferry/nsferry/acl"
)

// verb is what a change does.
type verb uint8

const (
	setEntry     verb = iota // add the entry, or replace its permissions
	dropEntry                // remove the entry, if it is there
	dropExtended             // leave the three base entries only
	dropAll                  // leave nothing
)

// change is one operation on one of the two ACLs of a file. Ids are those of the process.
type change struct {
	Do           verb
	Kind         acl.Kind
	Entry        acl.Entry // setEntry and dropEntry
	IfExecutable bool      // setEntry: X, execute too for a directory or where somebody may execute
}

// maskRule says when masks are calculated.
type maskRule int8

const (
	maskUnlessGiven maskRule = iota // the default: not where the changes name the mask
	maskNever                       // -n
	maskAlways                      // --mask
)

// pair is the access and the default ACL of a file; a nil default ACL is none.
type pair [2]acl.ACL

// malformedError says which ACL the changes would have made, and from which entry on (counted from 1) it is none.
type malformedError struct {
	kind  acl.Kind
	acl   acl.ACL
	entry int
}

func (e *malformedError) Error() string {
	return fmt.Sprintf("malformed %s ACL, missing or wrong entry at entry %d", e.kind, e.entry)
}

// apply makes all changes in their order, then adds the entries that setfacl(1) adds ("automatically created entries"), and
// checks. The arguments are not changed.
func apply(changes []change, old pair, directory bool, rule maskRule) (pair, error) {
	now := pair{slices.Clone(old[acl.Access]), slices.Clone(old[acl.Default])}
	var touched, masked [2]bool
	for _, c := range changes {
		a := &now[c.Kind]
		touched[c.Kind] = true
		switch c.Do {
		case setEntry, dropEntry:
			masked[c.Kind] = masked[c.Kind] || c.Entry.Tag == acl.Mask
			*a = c.one(*a, directory)
		case dropExtended:
			*a = base(*a)
		case dropAll:
			*a = nil
		}
	}
	now[acl.Default] = complete(now[acl.Default], now[acl.Access])
	for kind := range now {
		if touched[kind] {
			now[kind] = withMask(now[kind], masked[kind], rule)
		}
		now[kind].Sort()
		if n := wrongEntry(now[kind]); n > 0 && (kind == int(acl.Access) || len(now[kind]) > 0) {
			return pair{}, &malformedError{acl.Kind(kind), now[kind], n}
		}
	}
	return now, nil
}

// one adds, replaces or removes a single entry.
func (c change) one(a acl.ACL, directory bool) acl.ACL {
	i := slices.IndexFunc(a, func(e acl.Entry) bool { return e.Tag == c.Entry.Tag && e.ID == c.Entry.ID })
	if c.Do == dropEntry {
		if i >= 0 {
			a = slices.Delete(a, i, i+1)
		}
		return a
	}
	e := c.Entry
	if c.IfExecutable && (directory || slices.ContainsFunc(a, func(e acl.Entry) bool { return e.Perm&acl.PermExecute != 0 })) {
		e.Perm |= acl.PermExecute
	}
	if i < 0 {
		return append(a, e)
	}
	a[i] = e
	return a
}

// find returns the permissions of the first entry with a tag.
func find(a acl.ACL, t acl.Tag) (uint16, bool) {
	i := slices.IndexFunc(a, func(e acl.Entry) bool { return e.Tag == t })
	if i < 0 {
		return 0, false
	}
	return a[i].Perm, true
}

// base returns the base entries; what the mask cut off the group's stays off.
func base(a acl.ACL) acl.ACL {
	mask, masked := find(a, acl.Mask)
	var out acl.ACL
	for _, e := range a {
		switch e.Tag {
		case acl.GroupObj:
			if masked {
				e.Perm &= mask
			}
			out = append(out, e)
		case acl.UserObj, acl.Other:
			out = append(out, e)
		}
	}
	return out
}

// complete adds what a default ACL lacks of the base entries, from the access ACL.
func complete(def, access acl.ACL) acl.ACL {
	if len(def) == 0 {
		return def
	}
	for _, t := range []acl.Tag{acl.UserObj, acl.GroupObj, acl.Other} {
		if _, ok := find(def, t); ok {
			continue
		}
		if perm, ok := find(access, t); ok {
			def = append(def, acl.Entry{Tag: t, Perm: perm})
		}
	}
	return def
}

// withMask adds the mask where one is needed, and calculates it. given says that the changes name the mask.
func withMask(a acl.ACL, given bool, rule maskRule) acl.ACL {
	_, has := find(a, acl.Mask)
	needs := slices.ContainsFunc(a, func(e acl.Entry) bool { return e.Tag == acl.User || e.Tag == acl.Group })
	if given && rule != maskAlways || !has && !needs {
		return a
	}
	if group, ok := find(a, acl.GroupObj); ok && !has {
		a = append(a, acl.Entry{Tag: acl.Mask, Perm: group})
	}
	if rule == maskNever {
		return a
	}
	return a.CalcMask()
}

// wrongEntry returns the number, from 1, of the first entry of a sorted ACL that cannot be where it is; 0 if it is valid.
func wrongEntry(a acl.ACL) int {
	i := 0
	run := func(t acl.Tag) bool {
		start := i
		for i < len(a) && a[i].Tag == t {
			i++
		}
		return i > start
	}
	if !run(acl.UserObj) {
		return i + 1
	}
	named := run(acl.User)
	if !run(acl.GroupObj) {
		return i + 1
	}
	named = run(acl.Group) || named
	if !run(acl.Mask) && named || !run(acl.Other) {
		return i + 1
	}
	return 0
}
