//go:build linux

// Package statindex keeps one promise: what it says of an inode is what was found there, or it says nothing.
//
// An [Index] tells, for an inode whose stat is exactly what it was, the digest of its content and which attributes it
// does not have, so that nobody has to open it. docs/INDEX.md specifies the file and says when a record is believed; the
// rule against inodes that changed while they were looked at ("racily clean") is applied by the [Writer], so that a
// record that is there may be believed.
//
// Who reads a tree (a save) makes the Writer first, then walks, and adds each inode with the stat that the walk saw and what it
// then read or looked up in the old index:
//
//	old, reason := statindex.Read(oldFile, root) // nil, and why: slower, no error
//	w, reason := statindex.NewWriter(root, statindex.Options{Origin: key})
//	for each inode {
//		rec, ok := old.Lookup(&stat)
//		if !ok {
//			rec = … // read the file, list its attributes, check that stat is still the same
//		}
//		w.Add(&stat, rec)
//	}
//	_, err := w.WriteTo(newFile)
//
// Who makes a tree (a restore, a refresh) knows contents without reading them. It makes the Writer when the tree is complete and adds
// what each inode's stat is then; what was finished less than a few clock ticks before goes without a record.
// A nil Index and a nil Writer work: nothing is known, nothing is kept.
package statindex

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"

	"golang.org/x/sys/unix"
)

// Record is what is known of an inode.
type Record struct {
	Flags  Flags
	Digest [32]byte // sha256 of a file's content, if Flags has Digest
}

// Flags say what of a Record is known. A flag that is not set means: not known.
type Flags uint32

// The flags.
const (
	Digest   Flags = 1 << iota // the digest
	NoXattrs                   // it has no extended attribute, and so neither ACL nor capability
	NoHoles                    // it has no hole of 64 KiB or more
	allFlags = Digest | NoXattrs | NoHoles
)

// Has tells whether all of f are set.
func (r Record) Has(f Flags) bool { return r.Flags&f == f }

// Index is what is known of a tree. It is safe for concurrent use.
type Index struct {
	head   header
	inos   []uint64
	table  []byte // of records
	frames map[frameSum]uint32
}

// Read reads the index in f, which must be one of the tree at root. There is no error that a caller must report: without an
// Index, which then is nil, everything is read again, and the error is the reason.
func Read(f, root *os.File) (*Index, error) {
	x, err := load(f)
	if err != nil {
		return nil, err
	}
	here, err := placeOf(root)
	switch {
	case err != nil:
		return nil, err
	case here.dev != x.head.dev || here.ino != x.head.ino:
		return nil, errors.New("the index is of another tree")
	case here.view != x.head.view:
		return nil, errors.New("the index was made with other rights or in another id map")
	}
	return x, nil
}

// Origin returns the origin that the index in f records, whatever tree it is of.
func Origin(f *os.File) (string, error) {
	x, err := load(f)
	if err != nil {
		return "", err
	}
	return x.head.origin, nil
}

// Lookup returns what is known of the inode with this stat.
func (x *Index) Lookup(st *unix.Statx_t) (Record, bool) {
	if x == nil || devOf(st) != x.head.dev {
		return Record{}, false
	}
	i, ok := slices.BinarySearch(x.inos, st.Ino)
	if !ok {
		return Record{}, false
	}
	s, r := decodeRecord(x.table[i*recordLen:])
	if s != statOf(st) {
		return Record{}, false
	}
	return r, true
}

// Frame returns the CRC-32C of the stored bytes of a frame that has this sha256, if it is one of the archive that the tree went to last. Ten
// times as fast as the sha256, it tells whether a frame of that sum was damaged by accident.
func (x *Index) Frame(sum [32]byte) (crc uint32, known bool) {
	if x != nil {
		crc, known = x.frames[frameSum(sum[:])]
	}
	return crc, known
}

// Len returns the number of records.
func (x *Index) Len() int {
	if x == nil {
		return 0
	}
	return len(x.inos)
}

// place is where an index belongs: a tree's root, and who looks at it.
type place struct {
	dev, ino uint64
	view     [8]byte
}

func placeOf(root *os.File) (p place, err error) {
	var st unix.Statx_t
	if err := unix.Statx(int(root.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &st); err != nil {
		return p, &os.PathError{Op: "statx", Path: root.Name(), Err: err}
	}
	p.dev, p.ino = devOf(&st), st.Ino
	p.view, err = view()
	return p, err
}

func devOf(st *unix.Statx_t) uint64 { return uint64(st.Dev_major)<<32 | uint64(st.Dev_minor) }

var capEff = regexp.MustCompile(`(?m)^CapEff:\s*([0-9a-f]{16})$`)

// view tells apart processes to which the kernel shows different attributes: trusted.* takes CAP_SYS_ADMIN in the initial
// user namespace (xattr(7)).
func view() (v [8]byte, err error) {
	h := sha256.New()
	for _, name := range [2]string{"uid_map", "gid_map"} {
		text, err := os.ReadFile("/proc/self/" + name)
		if err != nil {
			return v, err
		}
		h.Write(text)
	}
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return v, err
	}
	m := capEff.FindSubmatch(status)
	if m == nil {
		return v, fmt.Errorf("/proc/thread-self/status has no CapEff")
	}
	h.Write(m[1])
	copy(v[:], h.Sum(nil))
	return v, nil
}
