package archive

import (
	"errors"
	"fmt"
	"slices"

	"github.com/nsferry/nsferry/acl"
	"github.com/nsferry/nsferry/archive/statindex"
	"github.com/nsferry/nsferry/archive/tarfmt"
	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/idshift"

	"golang.org/x/sys/unix"
)

// leastHole is the shortest hole that is kept, and what holes must save for a file to be stored as sparse (FORMAT §1).
const leastHole = 64 << 10

// ScanOptions say what of a tree belongs to it.
type ScanOptions struct {
	IDs    IDs
	Policy Policy
	// Exclude are paths that are left out.
	Exclude Excludes
	// CrossMounts also takes what is mounted in the tree. Otherwise a directory on which something is mounted is empty, and
	// mounted files are left out; both are counted.
	CrossMounts bool
	// ClampMTime, when not nil, is the latest modification time, in seconds since the epoch: later ones are set to it.
	ClampMTime *int64
	// Index is what is known of the tree's inodes; nil: nothing.
	Index *statindex.Index `json:"-"`
}

// scanner turns what a walk comes by into headers with inside ids.
type scanner struct {
	ScanOptions
	root  *tree.Root
	links map[hardLink]string // the names that carry an inode
	bad   misfits
	sum   *Summary
	known statindex.Record // of the entry whose header was made last, from the index
	found statindex.Flags  // and what was seen besides
	owned [2]owned         // the entry's before, for most have the same
}

// owned is an id that was translated.
type owned struct {
	seen, inside uint32
	known        bool
}

type hardLink struct{ dev, ino uint64 }

func newScanner(root *tree.Root, o ScanOptions, sum *Summary) *scanner {
	return &scanner{ScanOptions: o, root: root, links: make(map[hardLink]string), sum: sum}
}

// header returns the header of e, or nil when it is left out. Unmapped ids are collected, not returned: the walk goes
// on to find them all, and the caller asks misfit at the end.
func (s *scanner) header(e *tree.Entry) (*tarfmt.Header, error) {
	if e.Path != "." && s.Exclude.match(e.Path) {
		return nil, tree.ErrSkipDir
	}
	s.known, _ = s.Index.Lookup(&e.Stat)
	s.found = s.known.Flags &^ statindex.Digest
	typ, keep, err := s.classify(e)
	if err != nil || !keep {
		return nil, err
	}
	h := &tarfmt.Header{
		Name:    storedName(e.Path, typ),
		Type:    typ,
		Mode:    uint32(e.Stat.Mode) & 0o7777,
		ModTime: tarfmt.Time{Sec: e.Stat.Mtime.Sec, Nsec: e.Stat.Mtime.Nsec},
	}
	s.clamp(&h.ModTime)
	if err := s.owner(h, e); err != nil {
		return nil, err
	}
	if e.Stat.Nlink > 1 && typ != tarfmt.Dir {
		key := hardLink{e.Device(), e.Stat.Ino}
		if first, ok := s.links[key]; ok {
			s.found = 0 // the first name has told
			return asLink(h, first), nil
		}
		s.links[key] = e.Path
	}
	if err := s.attributes(h, e); err != nil {
		return nil, fmt.Errorf("%s: %w", e.Path, err)
	}
	i := markOf(h.Xattrs)
	if i >= 0 || e.Stat.Mtime.Sec == tree.PlaceholderSec && e.Stat.Mtime.Nsec == tree.PlaceholderNsec {
		empty, err := e.Empty()
		if err != nil {
			return nil, err
		}
		if empty {
			s.sum.skip(SkippedPlaceholder)
			return nil, tree.ErrSkipDir
		}
		if i >= 0 { // somebody has filled it since: it is part of the tree
			h.Xattrs = slices.Delete(h.Xattrs, i, i+1)
		}
	}
	return h, s.content(h, e)
}

// clamp applies ClampMTime.
func (o *ScanOptions) clamp(t *tarfmt.Time) {
	if o.ClampMTime != nil && t.Sec >= *o.ClampMTime {
		*t = tarfmt.Time{Sec: *o.ClampMTime}
	}
}

// asLink makes h another name of the inode at first. Its metadata is only what fits into the ustar fields (FORMAT §1).
func asLink(h *tarfmt.Header, first string) *tarfmt.Header {
	const most, mostID = 0o77777777777, 0o7777777
	h.Type, h.Link, h.ModTime.Nsec = tarfmt.Link, "./"+first, 0
	if h.ModTime.Sec < 0 || h.ModTime.Sec > most {
		h.ModTime.Sec = 0
	}
	for _, id := range []*uint32{&h.UID, &h.GID} {
		if *id > mostID {
			*id = 0
		}
	}
	return h
}

// classify maps the inode's type and applies the policies for what tar or the target cannot hold.
func (s *scanner) classify(e *tree.Entry) (typ tarfmt.Type, keep bool, err error) {
	if e.Mount && !s.CrossMounts {
		s.sum.skip("contents of a mount point")
		if e.Type() != unix.S_IFDIR {
			return 0, false, nil
		}
	}
	switch e.Type() {
	case unix.S_IFREG:
		return tarfmt.Reg, true, nil
	case unix.S_IFDIR:
		return tarfmt.Dir, true, nil
	case unix.S_IFLNK:
		return tarfmt.Symlink, true, nil
	case unix.S_IFIFO:
		return tarfmt.Fifo, true, nil
	case unix.S_IFSOCK:
		if s.Policy.Sockets == Store {
			return sockType, true, nil
		}
		if s.Policy.Sockets == Fail {
			return 0, false, fmt.Errorf("%s: tar cannot hold a socket; remove it or use --sockets skip", e.Path)
		}
		s.sum.skip("socket")
		return 0, false, nil
	case unix.S_IFCHR:
		typ = tarfmt.Char
	case unix.S_IFBLK:
		typ = tarfmt.Block
	default:
		return 0, false, fmt.Errorf("%s: unknown file type %#o", e.Path, e.Type())
	}
	whiteout := typ == tarfmt.Char && e.Stat.Rdev_major == 0 && e.Stat.Rdev_minor == 0
	keep, err = s.Policy.device(e.Path, whiteout, s.sum)
	return typ, keep, err
}

const deviceSkipped = "device node" // a reason in Summary.Skipped

// device applies the policy for device nodes.
func (p Policy) device(path string, whiteout bool, sum *Summary) (keep bool, err error) {
	switch {
	case whiteout && p.Devices != NoDevices || p.Devices == Store:
		return true, nil
	case p.Devices == Fail:
		return false, fmt.Errorf("%s: a device node; use --devices skip or store", path)
	}
	sum.skip(deviceSkipped)
	return false, nil
}

func (s *scanner) owner(h *tarfmt.Header, e *tree.Entry) error {
	ids := [2]*uint32{&h.UID, &h.GID}
	for k, seen := range [2]uint32{e.Stat.Uid, e.Stat.Gid} {
		if last := s.owned[k]; last.known && last.seen == seen && seen != overflowID {
			*ids[k] = last.inside
			continue
		}
		kind := idshift.Kind(k)
		id, err := s.IDs.inside(kind, seen)
		if err == nil && seen == overflowID && !s.IDs.Arithmetic && !s.IDs.Plain.Of(kind).IsIdentity() && !e.OwnerIsMapped() {
			err = &idshift.UnmappedError{Kind: kind, ID: seen}
		}
		if err != nil {
			if s.Policy.Unmapped == Nobody {
				s.sum.skip("owner without a place in the map (now 65534)")
				id = overflowID
			} else if err := s.bad.note(h.Name, err); err != nil {
				return err
			}
		}
		s.owned[k] = owned{seen, id, err == nil}
		*ids[k] = id
	}
	return nil
}

// attributes reads xattrs, capability and ACLs.
func (s *scanner) attributes(h *tarfmt.Header, e *tree.Entry) error {
	if s.known.Has(statindex.NoXattrs) {
		return nil
	}
	attrs, err := e.Xattrs()
	if err != nil {
		return err
	}
	if len(attrs) == 0 {
		s.found |= statindex.NoXattrs
	}
	for _, x := range attrs {
		if !s.Policy.Xattrs.takes(x.Key) {
			s.sum.skipAttribute(x.Key)
			continue
		}
		var err error
		switch x.Key {
		case tree.XattrAccess:
			h.ACL, err = s.aclText(h.Name, x.Value)
		case tree.XattrDefault:
			h.DefaultACL, err = s.aclText(h.Name, x.Value)
		case tree.XattrCapability:
			if x.Value, err = s.IDs.capInside(x.Value); err == nil {
				h.Xattrs = append(h.Xattrs, tarfmt.Xattr(x))
			}
		default:
			h.Xattrs = append(h.Xattrs, tarfmt.Xattr(x))
		}
		if err != nil {
			if err := s.bad.note(h.Name, err); err != nil {
				return fmt.Errorf("%s: %w", x.Key, err)
			}
		}
	}
	return nil
}

// aclText returns the text of an ACL attribute of the inode at path, "" when some of its ids have no place.
func (s *scanner) aclText(path string, value []byte) (string, error) {
	a, err := acl.Decode(value)
	if err != nil {
		return "", err
	}
	inside, shift, err := s.IDs.aclInside(a)
	var unmapped *idshift.UnmappedError
	if errors.As(err, &unmapped) && s.Policy.Unmapped == Nobody {
		inside, _, err = s.IDs.aclInside(s.sum.drop(a, shift))
	}
	if errors.As(err, &unmapped) {
		return "", s.bad.noteACL(path, a, shift)
	}
	if err != nil {
		return "", err
	}
	return inside.Text(), nil
}

// content fills in what depends on the type: size and hole map, link target, device numbers.
func (s *scanner) content(h *tarfmt.Header, e *tree.Entry) (err error) {
	switch h.Type {
	case tarfmt.Reg:
		h.Size = int64(e.Stat.Size)
		if h.Size > leastHole && !s.known.Has(statindex.NoHoles) {
			if h.Sparse, err = s.segments(e); h.Sparse == nil && err == nil {
				s.found |= statindex.NoHoles
			}
		}
	case tarfmt.Symlink:
		h.Link, err = e.Readlink()
	case tarfmt.Char, tarfmt.Block:
		h.DevMajor, h.DevMinor = e.Stat.Rdev_major, e.Stat.Rdev_minor
	}
	return err
}

// segments asks for holes whatever st_blocks says: that number differs between filesystems, and archives must not.
func (s *scanner) segments(e *tree.Entry) ([]tarfmt.Segment, error) {
	f, err := tree.OpenFile(s.root, e.Path, &e.Stat)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	segs, err := f.Segments(leastHole)
	if segs == nil || err != nil {
		return nil, err
	}
	out := make([]tarfmt.Segment, len(segs))
	for i, g := range segs {
		out[i] = tarfmt.Segment(g)
	}
	return out, nil
}

// misfit is the error that names all ids without a place, or nil.
func (s *scanner) misfit() error { return s.bad.err(s.IDs.Plain) }

// markOf finds the attribute of a mount target that `run` made and, killed, could not remove.
func markOf(attrs []tarfmt.Xattr) int {
	return slices.IndexFunc(attrs, func(x tarfmt.Xattr) bool { return x.Key == tree.XattrPlaceholder })
}
