// Package idshift maps ids across the border of a user namespace: a Map is one-to-one and checked when it is built, and an
// id that it does not hold is an error that names it, never another id.
//
// Inside and outside are those of the namespace that a map belongs to. The package plans maps from the caller's sub-id
// ranges (Plan, Handoff), finds those ranges (LookupCaller), and moves ids by arithmetic where no kernel does it (Shift).
package idshift

// Kind tells user ids from group ids.
type Kind uint8

// The two kinds.
const (
	UID Kind = iota
	GID
)

// String returns "uid" or "gid".
func (k Kind) String() string {
	if k == GID {
		return "gid"
	}
	return "uid"
}

// file returns the sub-id file of the kind; both are keyed by user (subuid(5), subgid(5)).
func (k Kind) file() string {
	if k == GID {
		return "/etc/subgid"
	}
	return "/etc/subuid"
}

const (
	// maxID is the largest id; 4294967295 is (uid_t)-1, "no id".
	maxID uint32 = 4294967294
	// nobody is the id that every plan makes usable: Debian's nobody and nogroup, and the kernel's overflow id.
	nobody uint32 = 65534
)

// Range is one sub-id range, Count outside ids from First on. In a nested namespace these are the ids as seen there.
type Range struct {
	First, Count uint32
}

// end returns the first id behind the range.
func (r Range) end() uint64 { return uint64(r.First) + uint64(r.Count) }

// Caller is who started nsferry: his real ids, and the sub-ids that he may map. All ids are outside ones.
type Caller struct {
	UID, GID uint32
	// Name is the login name, empty when nothing knows one for UID.
	Name string
	// UIDRanges and GIDRanges are in the order of their files and do not overlap; the first one is the base, as for
	// mmdebstrap and sbuild, which read no other.
	UIDRanges, GIDRanges []Range
	// FreeUID and FreeGID begin ranges of 65536 ids that no line of the file names, to be put into advice; 0: unknown.
	FreeUID, FreeGID uint32
	// Source is where the ranges come from if not from the two files: the name in nsswitch.conf's "subid" line.
	Source string
	// Notes are oddities for doctor, one sentence each with file and line, none of which changes what the ranges say.
	Notes []string
}

// id returns the caller's own id of the kind.
func (c Caller) id(k Kind) uint32 {
	if k == GID {
		return c.GID
	}
	return c.UID
}

// ranges returns the caller's sub-id ranges of the kind.
func (c Caller) ranges(k Kind) []Range {
	if k == GID {
		return c.GIDRanges
	}
	return c.UIDRanges
}

// Mapping is an effective map of both kinds, inside to outside.
type Mapping struct {
	UID, GID Map
}

// Identity returns the mapping of the initial namespace: 0 to 4294967294, each to itself.
func Identity() Mapping {
	all, err := NewMap(Extent{Count: maxID + 1})
	if err != nil {
		panic("idshift: internal error: " + err.Error())
	}
	return Mapping{UID: all, GID: all}
}

// Of returns the map of the kind.
func (m Mapping) Of(k Kind) Map {
	if k == GID {
		return m.GID
	}
	return m.UID
}

// Equal tells whether both mappings map the same ids alike.
func (m Mapping) Equal(o Mapping) bool { return m.UID.Equal(o.UID) && m.GID.Equal(o.GID) }

// Inside returns the shift from this mapping's outside ids to its inside ids.
func (m Mapping) Inside() Shift { return Shift{From: m, To: Identity()} }

// Outside returns the shift from this mapping's inside ids to its outside ids.
func (m Mapping) Outside() Shift { return Shift{From: Identity(), To: m} }
