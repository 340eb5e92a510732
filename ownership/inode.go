package ownership

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/acl"
	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/idshift"
)

// privileged are the mode bits that chown(2) drops, for whoever asks.
const privileged = unix.S_ISUID | unix.S_ISGID

// wish is what an inode shall have: owner, group and all attributes that hold ids, as this process writes them.
type wish struct {
	UID, GID uint32
	Bits     uint32       `json:",omitempty"` // of privileged, of what is no directory
	Attrs    []tree.Xattr `json:",omitempty"`

	changes bool // the inode has something else now
	both    bool // an id that both maps hold is among it
	into    bool // it gets such an id
	late    bool // an id that only the target map holds is among it
}

// delicate tells that looking at the inode after a kill would not say what it shall have: bits and capabilities are gone between
// two system calls, and an id of both maps does not tell whether it is the old or the new one. Such inodes are recorded first.
func (w *wish) delicate() bool {
	if w.both || w.into || w.Bits != 0 {
		return true
	}
	for _, x := range w.Attrs {
		if x.Key == tree.XattrCapability {
			return true
		}
	}
	return false
}

// decide says what the inode at path shall have, whose attributes are attrs. Each id that it cannot decide on goes to refuse.
func (v *view) decide(path string, st *unix.Statx_t, attrs []tree.Xattr, refuse func(error)) (w wish, err error) {
	id := func(k idshift.Kind, seen uint32) uint32 {
		d, err := v.image(k, seen)
		if err != nil {
			refuse(err)
			w.both = w.both || errors.Is(err, errBoth)
			return seen
		}
		w.changes = w.changes || d.moves
		w.both = w.both || d.both
		w.into = w.into || d.into
		w.late = w.late || d.late
		return d.id
	}
	w.UID, w.GID = id(idshift.UID, st.Uid), id(idshift.GID, st.Gid)
	if t := st.Mode & unix.S_IFMT; t != unix.S_IFDIR && t != unix.S_IFLNK {
		w.Bits = uint32(st.Mode) & privileged
	}
	for _, x := range attrs {
		var value []byte
		if x.Key == tree.XattrCapability {
			value, err = v.decideCapability(x.Value, &w, refuse)
		} else {
			value, err = decideACL(x.Value, id)
		}
		if err != nil {
			return w, fmt.Errorf("%s: %s: %w", path, x.Key, err)
		}
		w.Attrs = append(w.Attrs, tree.Xattr{Key: x.Key, Value: value})
	}
	return w, nil
}

// decideACL passes the ids of an ACL through id.
func decideACL(value []byte, id func(idshift.Kind, uint32) uint32) ([]byte, error) {
	a, err := acl.Decode(value)
	if err != nil {
		return nil, err
	}
	for i, e := range a {
		switch e.Tag {
		case acl.User:
			a[i].ID = id(idshift.UID, e.ID)
		case acl.Group:
			a[i].ID = id(idshift.GID, e.ID)
		}
	}
	a.Sort()
	if err := a.Validate(); err != nil {
		return nil, fmt.Errorf("after the shift: %w", err) // two of its ids become one
	}
	return a.Encode(), nil
}

func (v *view) decideCapability(value []byte, w *wish, refuse func(error)) ([]byte, error) {
	c, err := idshift.ParseCapability(value)
	if err != nil {
		return nil, err
	}
	root, rev2, moves, err := v.capabilityRoot(c)
	switch {
	case err != nil:
		refuse(err)
		return value, nil
	case !moves:
		return value, nil
	}
	w.changes = true
	if rev2 {
		return c.Rev2(), nil
	}
	return c.Rev3(root), nil
}

// errChanged is an inode that was written to since it was looked at: it does not get privileges that were another content's.
var errChanged = fmt.Errorf("its setuid bits or capabilities are not restored: %w", tree.ErrChanged)

// grant makes the inode as w says. seen is the inode as it was when w was decided: privileges go back only to the same content.
// The order is that of FACTS §5.2: owner, mode, attributes. Content and times are not touched.
func (w *wish) grant(h *tree.Handle, attrs []tree.Xattr, seen *tree.Handle) (changed bool, err error) {
	if h.Stat.Uid != w.UID || h.Stat.Gid != w.GID {
		changed = true
		if err := h.SetOwner(w.UID, w.GID); err != nil {
			return false, err
		}
		if w.delicate() {
			if err := h.Refresh(); err != nil {
				return true, err
			}
			if attrs, err = h.Ownership(); err != nil {
				return true, err
			}
		}
	}
	risky := false
	if missing := w.Bits &^ uint32(h.Stat.Mode); missing != 0 {
		changed, risky = true, true
		if !sameContent(h, seen) {
			return true, fmt.Errorf("%s: %w", h.Path, errChanged)
		}
		if err := h.SetMode(uint32(h.Stat.Mode) | missing); err != nil {
			return true, err
		}
	}
	for _, x := range w.Attrs {
		if has(attrs, x) {
			continue
		}
		changed = true
		if x.Key == tree.XattrCapability {
			risky = true
			if !sameContent(h, seen) {
				return true, fmt.Errorf("%s: %w", h.Path, errChanged)
			}
		}
		if err := h.SetXattr(x); err != nil {
			return true, err
		}
	}
	if risky {
		err = takeBack(h, seen)
	}
	return changed, err
}

// takeBack removes privileges again if the content was changed just before they were given; who writes to the file
// from now on loses them by the kernel's own rule (inode(7)).
func takeBack(h, seen *tree.Handle) error {
	if err := h.Refresh(); err != nil || sameContent(h, seen) {
		return err
	}
	return errors.Join(fmt.Errorf("%s: %w", h.Path, errChanged),
		h.SetMode(uint32(h.Stat.Mode)&^privileged), h.RemoveXattr(tree.XattrCapability))
}

func sameContent(a, b *tree.Handle) bool {
	return a.Stat.Size == b.Stat.Size && a.Stat.Mtime.Sec == b.Stat.Mtime.Sec && a.Stat.Mtime.Nsec == b.Stat.Mtime.Nsec
}

// has tells whether the inode has the attribute as it shall be. A capability that went in with the root of this namespace
// comes out without root id (capabilities(7)).
func has(attrs []tree.Xattr, want tree.Xattr) bool {
	for _, x := range attrs {
		if x.Key == want.Key {
			return bytes.Equal(x.Value, want.Value)
		}
	}
	return false
}
