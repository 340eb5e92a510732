// Package acl holds POSIX access control lists as values: an ACL is what the text and the xattr say, in canonical order,
// and nothing is looked up, filled in or dropped unless a function says so.
//
// The rules are those of acl(5); the wire format is the kernel's (include/uapi/linux/posix_acl_xattr.h). Ids in an ACL are
// those of the user namespace of whoever wrote the text or read the xattr; moving them to another namespace is
// idshift.Shift's work.
package acl

import (
	"fmt"
	"slices"
)

// Tag says whom an entry is for. The values are those of the xattr (ACL_USER_OBJ and so on in linux/posix_acl.h), and
// their numeric order is the canonical order of entries.
type Tag uint16

// The tags of linux/posix_acl.h. User and Group are the named ones: only their entries have an id.
const (
	UserObj  Tag = 0x01
	User     Tag = 0x02
	GroupObj Tag = 0x04
	Group    Tag = 0x08
	Mask     Tag = 0x10
	Other    Tag = 0x20
)

// Undefined is the id that the kernel shows for a named entry whose id the reader's user namespace does not map
// ((uid_t)-1). It may come out of Decode or Read; Validate refuses it, so it is never written back.
const Undefined uint32 = 0xffffffff

// The permission bits of an entry.
const (
	PermRead    uint16 = 4
	PermWrite   uint16 = 2
	PermExecute uint16 = 1
	permAll            = PermRead | PermWrite | PermExecute
)

// Entry is one line of an ACL. ID is a uid for User, a gid for Group, and 0 for all other tags.
type Entry struct {
	Tag  Tag
	Perm uint16
	ID   uint32
}

// ACL is a list of entries. Its methods accept them in any order; what this package returns is in canonical order. A nil
// ACL means that there is none.
type ACL []Entry

// named tells whether entries with this tag carry an id.
func (t Tag) named() bool { return t == User || t == Group }

// String returns the long keyword of the text form, or the number of a tag that does not exist.
func (t Tag) String() string {
	switch t {
	case UserObj, User:
		return "user"
	case GroupObj, Group:
		return "group"
	case Mask:
		return "mask"
	case Other:
		return "other"
	}
	return fmt.Sprintf("tag 0x%x", uint16(t))
}

// String returns the entry as in the numeric long text, for messages.
func (e Entry) String() string { return string(e.append(nil, e.Tag.String())) }

// compare is the canonical order: by tag, then by id. It is what posix_acl_valid in the kernel demands, and what acl_to_text
// and getfacl show.
func compare(x, y Entry) int {
	if x.Tag != y.Tag {
		return int(x.Tag) - int(y.Tag)
	}
	switch {
	case x.ID < y.ID:
		return -1
	case x.ID > y.ID:
		return 1
	}
	return 0
}

// Sort puts the entries into canonical order, in place.
func (a ACL) Sort() { slices.SortStableFunc(a, compare) }

// sorted returns the ACL in canonical order without changing it; a copy is made only where needed.
func (a ACL) sorted() ACL {
	if slices.IsSortedFunc(a, compare) {
		return a
	}
	a = slices.Clone(a)
	a.Sort()
	return a
}

// Equal tells whether both ACLs have the same entries, in whatever order. No ACL and an ACL without entries are equal.
func (a ACL) Equal(b ACL) bool { return slices.Equal(a.sorted(), b.sorted()) }

// Validate reports the first thing that makes the ACL unfit to be set, by the rules of acl_valid(3): one entry each for
// owner, group and others, at most one per named id, a mask where there are named entries, permissions within rwx.
// Beyond these, Undefined is refused as an id, as the kernel does.
func (a ACL) Validate() error {
	var seen, last Entry
	var tags Tag
	for i, e := range a.sorted() {
		switch e.Tag {
		case UserObj, GroupObj, Mask, Other:
			if e.ID != 0 {
				return fmt.Errorf("acl: %s entry with an id", e.Tag)
			}
		case User, Group:
			if e.ID == Undefined {
				return fmt.Errorf("acl: %s entry for an id that this user namespace does not map", e.Tag)
			}
		default:
			return fmt.Errorf("acl: unknown %s", e.Tag)
		}
		if e.Perm&^permAll != 0 {
			return fmt.Errorf("acl: %s entry with permissions 0%o", e.Tag, e.Perm)
		}
		seen = Entry{Tag: e.Tag, ID: e.ID}
		if i > 0 && seen == last {
			return fmt.Errorf("acl: two entries for %s", e)
		}
		last, tags = seen, tags|e.Tag
	}
	for _, t := range []Tag{UserObj, GroupObj, Other} {
		if tags&t == 0 {
			return fmt.Errorf("acl: the %s:: entry is missing", t)
		}
	}
	if tags&(User|Group) != 0 && tags&Mask == 0 {
		return fmt.Errorf("acl: named entries without a mask entry")
	}
	return nil
}

// CalcMask returns a copy of the ACL whose mask is the union of what named users, the owning group and named groups are
// granted (acl_calc_mask(3)), so that no entry is cut. Like setfacl it adds no mask to an ACL that needs none; one that
// is there is always recomputed.
func (a ACL) CalcMask() ACL {
	out := make(ACL, 0, len(a)+1)
	mask, need := Entry{Tag: Mask}, false
	for _, e := range a {
		switch e.Tag {
		case Mask:
			need = true
			continue
		case User, Group:
			need = true
			mask.Perm |= e.Perm
		case GroupObj:
			mask.Perm |= e.Perm
		}
		out = append(out, e)
	}
	if need {
		out = append(out, mask)
	}
	out.Sort()
	return out
}
