// Package toc keeps one promise: a table of contents is read exactly as it was written, or an error names the line.
//
// It is the typed form of FORMAT §3: a [Header], one [Entry] for each entry of the tar stream, one zframe.Frame for each
// frame. A [Writer] makes the tail of an archive, a [Reader] streams it. The tar stream is the truth; who
// extracts never asks the table of contents.
package toc

import "github.com/nsferry/nsferry/archive/zframe"

// Version is the version of the format that is written and read.
const Version = 1

// MaxLine bounds a line in bytes. Only sparse maps and extended attributes can make one long.
const MaxLine = 16 << 20

const tarBlock = 512 // headers are whole tar blocks

// Header is the first line.
type Header struct {
	Encoder string            // Encoder.Name of the frames
	Entries int64             // number of entry lines
	Frames  int64             // number of frame lines
	Raw     int64             // bytes of tar stream
	End     int64             // stored offset at which the table's frame starts
	Policy  map[string]string // policies in force when the archive was made; at most names and words, no paths
}

// Type is the type of an entry.
type Type byte

// The types of entries.
const (
	File     Type = 'f'
	HardLink Type = 'h'
	Symlink  Type = 'l'
	Char     Type = 'c'
	Block    Type = 'b'
	Dir      Type = 'd'
	Fifo     Type = 'p'
)

// Entry is one entry of the tar stream. Names and values are bytes, no longer escaped.
type Entry struct {
	Name       string // without "./" and trailing "/"; the root is "."
	Type       Type
	Mode       uint32 // the low 12 bits
	UID, GID   uint32 // inside ids
	Size       int64  // logical, files only
	ModTime    Time
	Link       string   // target of a symlink; for a hard link the Name of the entry that has the inode
	Digest     [32]byte // sha256 of the content, files only
	DevMajor   uint32
	DevMinor   uint32
	Xattrs     []Xattr // sorted by key
	ACL        string  // text as in the tar header
	DefaultACL string
	Sparse     []Segment // data segments; nil: dense; empty, not nil: one hole
	Frame      int       // frame in which the entry's headers start
	Offset     int64     // where in that frame, raw
	HeaderLen  int64     // bytes of headers, pax included, sparse map not
}

// Time is a moment: Sec seconds since the epoch, and Nsec nanoseconds after that, also for a negative Sec.
type Time struct {
	Sec  int64
	Nsec uint32
}

// Xattr is one extended attribute.
type Xattr struct {
	Key   string
	Value []byte
}

// Segment is a run of data in a sparse file.
type Segment struct{ Offset, Length int64 }

// Contents is a whole table of contents in memory.
type Contents struct {
	Header  Header
	Entries []Entry
	Frames  []zframe.Frame
}

// compareNames orders two names as the tar stream does: component by component, bytewise. Names hold no NUL.
func compareNames(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return int(rank(a[i])) - int(rank(b[i]))
		}
	}
	return len(a) - len(b)
}

// rank lets the end of a component come before all its continuations.
func rank(c byte) byte {
	if c == '/' {
		return 0
	}
	return c
}
