// Package tarfmt holds one invariant: what a Header says is what the bytes say, with nothing rounded, renamed or guessed.
//
// It writes the deterministic POSIX.1-2001 pax stream of docs/FORMAT.md §1 (Append) and reads nearly everything that
// was ever called tar (Reader): v7, ustar, old and new GNU, star, pax, and every GNU sparse format. It does not touch
// files, does not compress, and does not judge names: "../x", absolute names and duplicates are the extractor's business.
package tarfmt

import "math"

// BlockSize is the unit of a tar stream in bytes: headers are blocks, data are padded to whole blocks.
const BlockSize = 512

// Trailer is the end-of-archive mark: two zero blocks.
var Trailer [2 * BlockSize]byte

// Type is the kind of an inode, as in the typeflag field of ustar.
type Type byte

// The types that Append writes and Next returns. Sockets have no tar type.
const (
	Reg     Type = '0' // regular file
	Link    Type = '1' // hard link to an earlier entry
	Symlink Type = '2'
	Char    Type = '3' // character device
	Block   Type = '4' // block device
	Dir     Type = '5'
	Fifo    Type = '6'
)

// Time is a point in time: Sec seconds after (or, negative, before) the epoch, plus Nsec nanoseconds, 0 to 999999999.
type Time struct {
	Sec  int64
	Nsec uint32
}

// Xattr is one extended attribute: its full kernel name ("user.x", never encoded) and its raw value.
type Xattr struct {
	Key   string
	Value []byte
}

// Segment is a run of data in a sparse file. Bytes outside of all segments are holes and read as zeros.
type Segment struct{ Offset, Length int64 }

// Header describes one entry. Ids are those of the archive, that is inside ids.
type Header struct {
	Name string // bytes as in the archive: a prefix "./" and a final "/" are kept
	Link string // target of a symlink or hard link, bytes as in the archive
	Type Type
	Mode uint32 // the low 12 bits of st_mode

	UID, GID uint32 // 0 to 4294967294
	Size     int64  // logical size in bytes, holes counted; 0 for everything but regular files
	ModTime  Time

	DevMajor, DevMinor uint32 // only for Char and Block

	// Xattrs are sorted by key, without duplicates. Append refuses ACL attributes (system.posix_acl_*), because
	// ACLs travel as text; Next hands them on as found, for archives of tools that store the binary value.
	Xattrs []Xattr
	// ACL and DefaultACL are the texts found in or meant for SCHILY.acl.access and SCHILY.acl.default.
	ACL, DefaultACL string

	// Sparse lists the data segments of a sparse file: ascending, not overlapping, not empty, inside Size.
	// Nil means dense, empty but not nil means one single hole. Append also wants all but the last to be multiples of
	// BlockSize long; Coalesce makes them so.
	Sparse []Segment

	Comment string // the pax comment of this entry; see docs/FORMAT.md §6
}

// Padding returns how many zero bytes follow n bytes of stored data up to the next block border.
func Padding(n int64) int64 { return -n & (BlockSize - 1) }

// Stored returns the length in bytes of the entry's data in the stream as Append announces it: the content, or for
// a sparse file the map and the data segments. Padding is not counted.
func (h *Header) Stored() int64 {
	switch {
	case h.Type != Reg:
		return 0
	case h.Sparse == nil:
		return h.Size
	}
	return h.sparseMapSize() + dataLength(h.Sparse)
}

// dataLength sums up segments that checkSegments has accepted (or will: a sum that overflows stays at the maximum).
func dataLength(segs []Segment) int64 {
	var n int64
	for _, s := range segs {
		if s.Length > math.MaxInt64-n {
			return math.MaxInt64
		}
		n += s.Length
	}
	return n
}
