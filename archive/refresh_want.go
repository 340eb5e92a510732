package archive

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nsferry/nsferry/archive/tarfmt"
	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/archive/zframe"
	"github.com/nsferry/nsferry/archive/zframe/toc"

	"golang.org/x/sys/unix"
)

// want is a name that the tree shall have.
type want struct {
	*toc.Entry
	meta    tree.Meta
	carrier int // the want whose inode it names; itself as a rule
	// moved is the name of the entry that has the content of a hard link whose own target is left out.
	moved string
	have  *have // what has the name now
	do    action
}

// action is what a want takes.
type action uint8

const (
	doKeep   action = iota
	doAdjust        // the inode gets other metadata
	doMake          // a new inode
	doLink          // a new name of the carrier's inode
)

// modes are the type bits of entries.
var modes = map[toc.Type]uint32{
	toc.File: unix.S_IFREG, toc.Dir: unix.S_IFDIR, toc.Symlink: unix.S_IFLNK, toc.Fifo: unix.S_IFIFO, toc.Char: unix.S_IFCHR, toc.Block: unix.S_IFBLK,
}

// selector turns entries, in order, into wants.
type selector struct {
	*refresher
	x       *extractor // translates metadata
	paths   map[string]bool
	left    map[string]*toc.Entry // inodes that are not wanted, for their other names
	carried map[string]int        // which other name has one of these now
	absent  map[string]bool       // devices that a policy leaves out
}

// choose fills in wants: what the options leave of the archive's entries.
func (r *refresher) choose(entries []toc.Entry) error {
	s := &selector{
		refresher: r,
		x:         &extractor{ExtractOptions: &ExtractOptions{IDs: r.IDs, Policy: r.Policy}, sum: &r.sum.Summary},
		paths:     make(map[string]bool), left: make(map[string]*toc.Entry), carried: make(map[string]int), absent: make(map[string]bool),
	}
	for _, p := range r.Only {
		path, err := entryPath(p, "")
		if err != nil {
			return err
		}
		s.paths[path] = false
	}
	r.wants, r.at = make([]want, 0, len(entries)), make(map[string]int, len(entries))
	for i := range entries {
		if err := s.take(&entries[i]); err != nil {
			return err
		}
	}
	var missing []string
	for p, found := range s.paths {
		if !found {
			missing = append(missing, quote(p))
		}
	}
	if missing != nil {
		slices.Sort(missing)
		return fmt.Errorf("not in the archive: %s", strings.Join(missing, ", "))
	}
	return s.x.bad.err(r.IDs.Plain)
}

func bad(e *toc.Entry, what string) error {
	return &zframe.CorruptError{Where: "table of contents: " + quote(e.Name), Err: errors.New(what)}
}

func (s *selector) take(e *toc.Entry) error {
	if err := s.named(e); err != nil {
		return err
	}
	if s.Exclude.matchAbove(e.Name) || !s.selected(e) {
		if e.Type != toc.Dir && e.Type != toc.HardLink {
			s.left[e.Name] = e
		}
		return nil
	}
	w := want{Entry: e, carrier: len(s.wants)}
	keep, err := s.device(e)
	if err == nil && keep && e.Type == toc.HardLink {
		keep, err = s.link(&w)
	}
	if err != nil {
		return err
	}
	if !keep {
		s.absent[e.Name] = true
		return nil
	}
	if w.carrier == len(s.wants) {
		if err := s.metadata(&w); err != nil {
			return fmt.Errorf("entry %s: %w", quote(e.Name), err)
		}
	}
	s.at[e.Name] = len(s.wants)
	s.wants = append(s.wants, w)
	s.sum.Entries++
	return nil
}

// named checks the name of e: it has one component more than that of a directory before it, which no name from outside the tree has.
func (s *selector) named(e *toc.Entry) error {
	if e.Name == "." {
		return nil
	}
	dir, base := split(e.Name)
	switch {
	case base == "" || base == "." || base == ".." || len(base) > 255 || strings.IndexByte(base, 0) >= 0:
		return bad(e, "is no name for something in a tree")
	case s.Exclude.matchAbove(dir), len(s.paths) > 0 && !s.leads(dir):
		return nil
	}
	if i, ok := s.at[dir]; !ok || s.wants[i].Type != toc.Dir {
		return bad(e, "comes without its directory")
	}
	return nil
}

// split returns the directory of a clean name, and its last component.
func split(name string) (dir, base string) {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i], name[i+1:]
	}
	return ".", name
}

// leads tells whether name is one of the paths that are asked for, or in one, or leads to one.
func (s *selector) leads(name string) bool {
	for p := range s.paths {
		if p == "." || name == "." || name == p || strings.HasPrefix(name, p+"/") || strings.HasPrefix(p, name+"/") {
			return true
		}
	}
	return false
}

func (s *selector) selected(e *toc.Entry) bool {
	if len(s.paths) == 0 {
		return true
	}
	if _, is := s.paths[e.Name]; is {
		s.paths[e.Name] = true
	}
	return s.leads(e.Name)
}

func (s *selector) device(e *toc.Entry) (keep bool, err error) {
	if e.Type != toc.Char && e.Type != toc.Block {
		return true, nil
	}
	return s.Policy.device(e.Name, e.Type == toc.Char && e.DevMajor == 0 && e.DevMinor == 0, &s.sum.Summary)
}

// link finds the inode of a hard link. Where the entry that carries it is left out, the first of its other names has it.
func (s *selector) link(w *want) (keep bool, err error) {
	target := w.Link
	if s.absent[target] {
		s.sum.skip(deviceSkipped)
		return false, nil
	}
	if i, ok := s.at[target]; ok {
		if s.wants[i].carrier != i || s.wants[i].Type == toc.Dir {
			return false, bad(w.Entry, "is a hard link to what cannot have one")
		}
		w.carrier = i
		return true, nil
	}
	if i, ok := s.carried[target]; ok {
		w.carrier = i
		return true, nil
	}
	from, ok := s.left[target]
	if !ok {
		return false, bad(w.Entry, "is a hard link to what does not come before it")
	}
	e := *from
	e.Name = w.Name
	w.Entry, w.moved = &e, from.Name
	if keep, err = s.device(w.Entry); keep {
		s.carried[target] = w.carrier
	}
	return keep, err
}

func (s *selector) metadata(w *want) error {
	h := tocHeader(w.Entry)
	if w.Type == toc.File {
		s.sum.Files++
		s.sum.Content += w.Size
	}
	var err error
	if w.meta, err = s.x.meta(h); err != nil {
		return err
	}
	slices.SortFunc(w.meta.Xattrs, func(a, b tree.Xattr) int { return strings.Compare(a.Key, b.Key) })
	return nil
}

// headerTypes is the inverse of tocTypes.
var headerTypes = map[toc.Type]tarfmt.Type{
	toc.File: tarfmt.Reg, toc.HardLink: tarfmt.Link, toc.Symlink: tarfmt.Symlink, toc.Char: tarfmt.Char,
	toc.Block: tarfmt.Block, toc.Dir: tarfmt.Dir, toc.Fifo: tarfmt.Fifo,
}

// tocHeader is the metadata of an entry as a header has it.
func tocHeader(e *toc.Entry) *tarfmt.Header {
	h := &tarfmt.Header{
		Name: e.Name, Type: headerTypes[e.Type], Mode: e.Mode, UID: e.UID, GID: e.GID,
		ModTime: tarfmt.Time(e.ModTime), ACL: e.ACL, DefaultACL: e.DefaultACL,
	}
	for _, x := range e.Xattrs {
		h.Xattrs = append(h.Xattrs, tarfmt.Xattr(x))
	}
	return h
}
