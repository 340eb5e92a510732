package acl

import "slices"

// FromMode returns the minimal ACL that says the same as the low 9 bits of mode.
func FromMode(mode uint32) ACL {
	return ACL{
		{Tag: UserObj, Perm: uint16(mode >> 6 & 7)},
		{Tag: GroupObj, Perm: uint16(mode >> 3 & 7)},
		{Tag: Other, Perm: uint16(mode & 7)},
	}
}

// Minimal tells whether the ACL has only entries for owner, group and others, so that a file's mode alone can hold it. An
// ACL with a mask is not minimal even if nobody is named: its mask and group bits may differ.
func (a ACL) Minimal() bool {
	for _, e := range a {
		if e.Tag != UserObj && e.Tag != GroupObj && e.Tag != Other {
			return false
		}
	}
	return len(a) > 0
}

// Mode returns the 9 permission bits that a file has after this access ACL was set on it: the group bits show the mask
// where there is one (acl(5), "correspondence between ACL entries and file permission bits").
func (a ACL) Mode() uint32 {
	var owner, group, mask, other uint16
	masked := false
	for _, e := range a {
		switch e.Tag {
		case UserObj:
			owner = e.Perm
		case GroupObj:
			group = e.Perm
		case Mask:
			mask, masked = e.Perm, true
		case Other:
			other = e.Perm
		}
	}
	if masked {
		group = mask
	}
	return uint32(owner&7)<<6 | uint32(group&7)<<3 | uint32(other&7)
}

// WithMode returns a copy of the ACL as chmod(2) to mode leaves it: owner and others are replaced, and the group bits
// go to the mask, or to the owning group where there is no mask. A chmod after a grant therefore cuts the grant.
func (a ACL) WithMode(mode uint32) ACL {
	out := slices.Clone(a)
	out.Sort()
	group := GroupObj
	if slices.ContainsFunc(out, func(e Entry) bool { return e.Tag == Mask }) {
		group = Mask
	}
	for i := range out {
		switch e := &out[i]; e.Tag {
		case UserObj:
			e.Perm = uint16(mode >> 6 & 7)
		case group:
			e.Perm = uint16(mode >> 3 & 7)
		case Other:
			e.Perm = uint16(mode & 7)
		}
	}
	return out
}

// Subject is a process as far as an access check is concerned: its file system ids and all its groups.
type Subject struct {
	UID    uint32
	GID    uint32
	Groups []uint32
}

// in tells whether the subject is a member of the group.
func (s Subject) in(gid uint32) bool { return s.GID == gid || slices.Contains(s.Groups, gid) }

// Permits runs the access check algorithm of acl(5): whether a file with this (valid) ACL, owner and group grants the
// subject all bits of want. Capabilities are not part of it.
func (a ACL) Permits(s Subject, owner, group uint32, want uint16) bool {
	mask := permAll
	var user, other *Entry
	for i := range a {
		switch e := &a[i]; e.Tag {
		case UserObj:
			if s.UID == owner {
				return e.Perm&want == want
			}
		case User:
			if e.ID == s.UID {
				user = e
			}
		case Mask:
			mask = e.Perm
		case Other:
			other = e
		}
	}
	if user != nil {
		return user.Perm&mask&want == want
	}
	member := false
	for _, e := range a {
		if (e.Tag == GroupObj && s.in(group)) || (e.Tag == Group && s.in(e.ID)) {
			// One entry has to grant everything: bits of several groups do not add up.
			if e.Perm&mask&want == want {
				return true
			}
			member = true
		}
	}
	return !member && other != nil && other.Perm&want == want
}
