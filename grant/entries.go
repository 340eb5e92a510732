package grant

import (
	"slices"

	"github.com/nsferry/nsferry/acl"
)

const permAll = acl.PermRead | acl.PermWrite | acl.PermExecute

// granted returns s with the uses' entries in its ACLs. Nobody else gains: entries that an old mask had cut keep what
// they had in effect before the mask is widened, and the owning group keeps its rights, though the mode's group bits then show
// the mask.
func (s state) granted(uses []Use) state {
	a, d := s.effective(), slices.Clone(s.Default)
	changed := false
	for _, u := range merged(uses) {
		if u.Perm == 0 {
			continue
		}
		changed = true
		a = allow(a, u.UID, s.UID, u.Perm)
		if u.Default {
			if d == nil {
				d = acl.FromMode(s.effective().Mode()) // as setfacl -d does
				d = withGroup(d, groupOf(s.effective()))
			}
			d = allow(d, u.UID, acl.Undefined, u.Perm)
		}
	}
	if !changed {
		return s
	}
	s.Default = d
	s.Mode = s.Mode&^0o777 | a.Mode()
	if s.Access = a; a.Minimal() {
		s.Access = nil
	}
	return s
}

// taken returns s with uid as the owner, who may do everything: what is left where there are no ACLs.
func (s state) taken(uid uint32) state {
	s.UID, s.Mode = uid, s.Mode|0o700
	return s
}

// allow adds perm to what uid may do by a. An owner's rights are in the entry for the owner (acl(5)).
func allow(a acl.ACL, uid, owner uint32, perm uint16) acl.ACL {
	if uid == owner {
		a[slices.IndexFunc(a, func(e acl.Entry) bool { return e.Tag == acl.UserObj })].Perm |= perm
		return a
	}
	a = cut(a)
	i := slices.IndexFunc(a, func(e acl.Entry) bool { return e.Tag == acl.User && e.ID == uid })
	if i < 0 {
		a, i = append(a, acl.Entry{Tag: acl.User, ID: uid}), len(a)
	}
	a[i].Perm |= perm
	a = a.CalcMask()
	return a
}

// cut takes out of every entry what the mask takes out of its effect.
func cut(a acl.ACL) acl.ACL {
	mask, ok := maskOf(a)
	if !ok {
		return a
	}
	for i := range a {
		switch a[i].Tag {
		case acl.User, acl.GroupObj, acl.Group:
			a[i].Perm &= mask
		}
	}
	return a
}

func maskOf(a acl.ACL) (uint16, bool) {
	for _, e := range a {
		if e.Tag == acl.Mask {
			return e.Perm, true
		}
	}
	return permAll, false
}

// groupOf is what the owning group may do in effect.
func groupOf(a acl.ACL) uint16 {
	mask, _ := maskOf(a)
	for _, e := range a {
		if e.Tag == acl.GroupObj {
			return e.Perm & mask
		}
	}
	return 0
}

func withGroup(a acl.ACL, perm uint16) acl.ACL {
	for i := range a {
		if a[i].Tag == acl.GroupObj {
			a[i].Perm = perm
		}
	}
	return a
}

// without returns s less what the uses have put into it. It is for a directory that somebody has changed since: what he
// did stays, so a mask that a chmod has narrowed stays as narrow. before is what the entries were; when no named entry is
// left and there was no mask, the mask goes and its bits are the group's again.
func (s state) without(uses []Use, before state) state {
	s.Access = strip(s.Access, before.Access, uses, true)
	if s.Access.Minimal() {
		s.Mode = s.Mode&^0o777 | s.Access.Mode()
		s.Access = nil
	} else if s.Access != nil {
		s.Mode = s.Mode&^0o777 | s.Access.Mode()
	}
	if before.Default == nil && !anyForeign(s.Default, uses) {
		s.Default = nil
	} else {
		s.Default = strip(s.Default, before.Default, uses, false)
	}
	return s
}

// anyForeign tells whether the ACL names somebody whom the uses do not.
func anyForeign(a acl.ACL, uses []Use) bool {
	return slices.ContainsFunc(a, func(e acl.Entry) bool {
		return e.Tag == acl.Group || e.Tag == acl.User && !gives(uses, e.ID)
	})
}

// gives tells whether one of the uses puts an entry for uid into ACLs.
func gives(uses []Use, uid uint32) bool {
	return slices.ContainsFunc(uses, func(u Use) bool { return u.Perm != 0 && u.UID == uid })
}

// strip takes the uses' entries out of a, or gives them back what they were.
func strip(a, before acl.ACL, uses []Use, unmask bool) acl.ACL {
	if a == nil {
		return nil
	}
	out := slices.DeleteFunc(slices.Clone(a), func(e acl.Entry) bool {
		return e.Tag == acl.User && gives(uses, e.ID) &&
			!slices.ContainsFunc(before, func(b acl.Entry) bool { return b.Tag == acl.User && b.ID == e.ID })
	})
	for i, e := range out {
		for _, b := range before {
			if e.Tag == acl.User && b.Tag == acl.User && b.ID == e.ID && gives(uses, e.ID) {
				out[i].Perm = b.Perm
			}
		}
	}
	named := slices.ContainsFunc(out, func(e acl.Entry) bool { return e.Tag == acl.User || e.Tag == acl.Group })
	_, hadMask := maskOf(before)
	if unmask && !named && !hadMask {
		out = cut(out)
		out = slices.DeleteFunc(out, func(e acl.Entry) bool { return e.Tag == acl.Mask })
	}
	return out
}

// merged joins uses of one uid.
func merged(uses []Use) []Use {
	var out []Use
	for _, u := range uses {
		if i := slices.IndexFunc(out, func(o Use) bool { return o.UID == u.UID }); i >= 0 {
			out[i].Perm |= u.Perm
			out[i].Default = out[i].Default || u.Default
		} else {
			out = append(out, u)
		}
	}
	return out
}
