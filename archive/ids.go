package archive

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nsferry/nsferry/acl"
	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/idshift"
)

// IDs says how the ids that system calls show and take relate to the inside ids of an archive.
type IDs struct {
	// Plain is the model's map. An inside id that it lacks has no place in a tree of that model, even where a handoff map
	// would let it through.
	Plain idshift.Mapping
	// Arithmetic is set outside of the namespace: system calls then show and take Plain's outside ids. Otherwise the
	// kernel translates, and they show and take inside ids.
	Arithmetic bool
}

// overflowID is what the kernel shows for an id without a mapping (user_namespaces(7)); it is also nobody's.
const overflowID = 65534

// inside returns the inside id of what a system call showed.
func (i IDs) inside(k idshift.Kind, seen uint32) (uint32, error) {
	if i.Arithmetic {
		return i.Plain.Inside().Owner(k, seen)
	}
	_, err := i.Plain.Outside().Owner(k, seen)
	return seen, err
}

// seen returns the id to give to a system call for an inside id.
func (i IDs) seen(k idshift.Kind, inside uint32) (uint32, error) {
	out, err := i.Plain.Outside().Owner(k, inside)
	if i.Arithmetic {
		return out, err
	}
	return inside, err
}

// implied is what directories get that an archive does not name, as tar makes them for uid 0; nil when ids 0 have no place in the map.
func (i IDs) implied() *tree.Meta {
	uid, uerr := i.seen(idshift.UID, 0)
	gid, gerr := i.seen(idshift.GID, 0)
	if uerr != nil || gerr != nil {
		return nil
	}
	return &tree.Meta{Mode: 0o755, UID: uid, GID: gid}
}

// aclInside translates an ACL as the kernel showed it; its ids become inside ids. from is what it was shifted by.
func (i IDs) aclInside(a acl.ACL) (inside acl.ACL, from idshift.Shift, err error) {
	if i.Arithmetic {
		from = i.Plain.Inside()
		a, err = from.ACL(a)
		return a, from, err
	}
	from = i.Plain.Outside()
	_, err = from.ACL(a)
	return a, from, err
}

// aclSeen returns the attribute to give to the kernel for an ACL with inside ids.
func (i IDs) aclSeen(a acl.ACL) ([]byte, error) {
	out, err := i.Plain.Outside().ACL(a)
	if err != nil {
		return nil, err
	}
	if i.Arithmetic {
		a = out
	}
	return a.Encode(), nil
}

// capInside returns the revision 2 value of a capability attribute as the kernel showed it.
func (i IDs) capInside(value []byte) ([]byte, error) {
	if i.Arithmetic {
		return i.Plain.Inside().Capability(value)
	}
	c, err := idshift.ParseCapability(value)
	if err != nil {
		return nil, err
	}
	if c.Namespaced && c.RootID != 0 {
		return nil, &idshift.UnmappedError{Kind: idshift.UID, ID: c.RootID}
	}
	return c.Rev2(), nil
}

// capSeen returns the capability attribute to write for a revision 2 value: in a namespace the kernel makes it revision 3 by
// itself (capabilities(7)), outside we do.
func (i IDs) capSeen(value []byte) ([]byte, error) {
	if i.Arithmetic {
		return i.Plain.Outside().Capability(value)
	}
	return value, nil
}

// misfits collects every id that has no image, so that one message names them all.
type misfits struct {
	ids map[misfit]*found
}

type misfit struct {
	kind idshift.Kind
	id   uint32
}

type found struct {
	count int64
	first string
}

// note records that err (an UnmappedError, else it is returned) was met at path.
func (m *misfits) note(path string, err error) error {
	if err == nil {
		return nil
	}
	var u *idshift.UnmappedError
	if !errors.As(err, &u) {
		return err
	}
	if m.ids == nil {
		m.ids = make(map[misfit]*found)
	}
	key := misfit{u.Kind, u.ID}
	if f := m.ids[key]; f != nil {
		f.count++
		return nil
	}
	if len(m.ids) == maxMisfits {
		return fmt.Errorf("more than %d ids have no place in the map, the last one %v %d", maxMisfits, u.Kind, u.ID)
	}
	m.ids[key] = &found{1, quote(path)}
	return nil
}

// noteACL records every id of a that s has no image for.
func (m *misfits) noteACL(path string, a acl.ACL, s idshift.Shift) error {
	for _, e := range a {
		var err error
		switch e.Tag {
		case acl.User:
			_, err = s.Owner(idshift.UID, e.ID)
		case acl.Group:
			_, err = s.Owner(idshift.GID, e.ID)
		}
		if err := m.note(path, err); err != nil {
			return err
		}
	}
	return nil
}

// maxMisfits bounds how many are collected: an archive or a tree that has more does not lack a line in /etc/subuid.
const maxMisfits = 10000

func (m *misfits) any() bool { return len(m.ids) > 0 }

// maxNamed bounds how many ids a message lists.
const maxNamed = 20

// MisfitError lists the ids for which the map has no place.
type MisfitError struct {
	IDs   []string // "uid 70000 (3 ×, first ./srv/x)", sorted
	Map   idshift.Mapping
	Total int
}

func (e *MisfitError) Error() string {
	more := ""
	if e.Total > len(e.IDs) {
		more = fmt.Sprintf(" and %d more", e.Total-len(e.IDs))
	}
	return fmt.Sprintf("%d ids have no place in the map (uid %v, gid %v): %s%s; use a larger sub-id range, another --map, or --unmapped nobody",
		e.Total, e.Map.UID, e.Map.GID, strings.Join(e.IDs, ", "), more)
}

func (m *misfits) err(plain idshift.Mapping) error {
	if !m.any() {
		return nil
	}
	keys := make([]misfit, 0, len(m.ids))
	for k := range m.ids {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b misfit) int {
		if a.kind != b.kind {
			return int(a.kind) - int(b.kind)
		}
		return int(int64(a.id) - int64(b.id))
	})
	e := &MisfitError{Map: plain, Total: len(keys)}
	for _, k := range keys[:min(len(keys), maxNamed)] {
		f := m.ids[k]
		e.IDs = append(e.IDs, fmt.Sprintf("%v %d (%d ×, first %s)", k.kind, k.id, f.count, f.first))
	}
	return e
}
