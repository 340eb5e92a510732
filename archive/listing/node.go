// Package listing holds the text form of a tree: one inode, one line, and every line says all that is known of its
// inode, so that equal lines mean equal inodes.
//
// The grammar is in docs/TREE.md; in short, each line is a type, a name, and what the type needs:
//
//	dir      NAME UID:GID MODE          [ATTR…]
//	file     NAME UID:GID MODE          [ATTR…] [CONTENT]
//	symlink  NAME UID:GID TARGET        [ATTR…]
//	hardlink NAME TARGET
//	fifo     NAME UID:GID MODE          [ATTR…]
//	sock     NAME UID:GID MODE          [ATTR…]
//	char     NAME UID:GID MODE MAJ:MIN  [ATTR…]
//	block    NAME UID:GID MODE MAJ:MIN  [ATTR…]
//
//	ATTR     mtime=SEC[.FRACTION]  acl=SHORT  default=SHORT  cap=TEXT|0xHEX  xattr:KEY=0xHEX|"TEXT"
//	CONTENT  "TEXT" | size=N [fill=SEED] [sha256=HEX] [sparse=OFF+LEN,…]
//
// Fields are separated by blanks. NAME, TARGET and KEY are bytes, quoted as in Go where they hold anything but
// visible characters. `nsferry ls` prints these lines; package treetest builds trees from them and dumps trees to them.
package listing

import "cmp"

// Type is the first word of a line.
type Type string

const (
	Dir      Type = "dir"
	File     Type = "file"
	Hardlink Type = "hardlink" // a later name of an inode that has its line already
	Symlink  Type = "symlink"
	Fifo     Type = "fifo"
	Sock     Type = "sock"
	Char     Type = "char"
	Block    Type = "block"
)

// Time is a point in time as in struct timespec; Nsec is below 10^9 and counts forward also before 1970.
type Time struct {
	Sec  int64
	Nsec uint32
}

// Xattr is an extended attribute that is neither an ACL nor a capability.
type Xattr struct {
	Key   string // with its namespace: user.x
	Value []byte
}

// Segment is a stretch of data in a sparse file, in bytes.
type Segment struct{ Offset, Length int64 }

// Node is one inode, or one more name of an inode. Its ids are whatever its source has: inside ids in an archive, those
// that the process sees in a tree. The zero value of a field means that the inode has none of it, except where
// a pointer or slice says otherwise.
type Node struct {
	Type     Type
	Name     string // bytes; relative to the root, clean, "." for the root itself
	UID, GID uint32
	Mode     uint32 // low 12 bits; 0 for symlinks and hard links
	Target   string // bytes: of a symlink; of a hard link another name of the inode in the form of Name
	Major    uint32 // of devices
	Minor    uint32

	MTime   *Time  // nil: not told
	ACL     string // access ACL in short form (acl.Short); "" when the mode says it all
	Default string // default ACL of a directory, likewise
	Cap     []byte // value of security.capability, revision 2; nil for none
	Xattrs  []Xattr

	Size    int64     // of files, in bytes; Content, when not nil, has this length
	Content []byte    // of files; nil: not told
	Fill    *uint64   // seed of content that Build makes up (package treetest); nil for none
	SHA256  string    // of the content, 64 lower-case hex digits; "" when not told
	Sparse  []Segment // the data segments; nil: no holes; empty but not nil: nothing but a hole
}

// CompareNames orders names as an archive does: component by component, bytewise, a directory before what is in it.
func CompareNames(a, b string) int {
	switch {
	case a == b:
		return 0
	case a == ".":
		return -1
	case b == ".":
		return 1
	}
	for i := 0; i < len(a) && i < len(b); i++ {
		if a[i] == b[i] {
			continue
		}
		switch {
		case a[i] == '/':
			return -1
		case b[i] == '/':
			return 1
		}
		return cmp.Compare(a[i], b[i])
	}
	return cmp.Compare(len(a), len(b))
}
