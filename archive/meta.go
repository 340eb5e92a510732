package archive

import (
	"errors"
	"fmt"

	"github.com/nsferry/nsferry/acl"
	"github.com/nsferry/nsferry/archive/tarfmt"
	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/archive/zframe/toc"
	"github.com/nsferry/nsferry/idshift"

	"golang.org/x/sys/unix"
)

// meta translates a header's metadata to what system calls take. Unmapped ids are collected.
func (x *extractor) meta(h *tarfmt.Header) (m tree.Meta, err error) {
	m = tree.Meta{Mode: h.Mode, ModTime: unix.Timespec{Sec: h.ModTime.Sec, Nsec: int64(h.ModTime.Nsec)}}
	if h.Type == tarfmt.Link {
		return m, nil // the inode has its metadata already
	}
	ids := [2]*uint32{&m.UID, &m.GID}
	for k, inside := range [2]uint32{h.UID, h.GID} {
		if *ids[k], err = x.id(h, idshift.Kind(k), inside); err != nil {
			return m, err
		}
	}
	if err := x.acls(h, &m); err != nil {
		return m, err
	}
	return m, x.xattrs(h, &m)
}

func (x *extractor) id(h *tarfmt.Header, k idshift.Kind, inside uint32) (uint32, error) {
	id, err := x.IDs.seen(k, inside)
	if err == nil || x.Policy.Unmapped != Nobody {
		return id, x.bad.note(h.Name, err)
	}
	x.sum.skip("owner without a place in the map (now 65534)")
	return x.IDs.seen(k, overflowID)
}

// acls translates the ACLs.
func (x *extractor) acls(h *tarfmt.Header, m *tree.Meta) error {
	return x.Policy.acls(h, x.sum, func(key string, a acl.ACL) error {
		if key == tree.XattrAccess && a.Minimal() {
			m.Mode = m.Mode&^0o777 | a.Mode()
			return nil
		}
		value, err := x.IDs.aclSeen(a)
		var unmapped *idshift.UnmappedError
		if errors.As(err, &unmapped) && x.Policy.Unmapped == Nobody {
			value, err = x.IDs.aclSeen(x.sum.drop(a, x.IDs.Plain.Outside()))
		}
		if errors.As(err, &unmapped) {
			return x.bad.noteACL(h.Name, a, x.IDs.Plain.Outside())
		}
		if err != nil {
			return err
		}
		m.Xattrs = append(m.Xattrs, tree.Xattr{Key: key, Value: value})
		return nil
	})
}

// acls calls put for the ACLs of an entry that are to be carried, and are valid. They come as text or, from some tools, as
// the kernel's value in an attribute.
func (p Policy) acls(h *tarfmt.Header, sum *Summary, put func(key string, a acl.ACL) error) error {
	for _, t := range [2]struct{ key, text string }{{tree.XattrAccess, h.ACL}, {tree.XattrDefault, h.DefaultACL}} {
		a, err := aclOf(t.text, t.key, h.Xattrs)
		switch {
		case err != nil:
			return err
		case a == nil || h.Type == tarfmt.Symlink:
			continue
		case !p.Xattrs.takes(t.key):
			sum.skipAttribute(t.key)
			continue
		case t.key == tree.XattrDefault && h.Type != tarfmt.Dir:
			return errors.New("a default ACL on something that is no directory")
		}
		if t.key != tree.XattrAccess || !a.Minimal() {
			if err := a.Validate(); err != nil {
				return err
			}
		}
		if err := put(t.key, a); err != nil {
			return err
		}
	}
	return nil
}

// aclOf returns an entry's ACL, nil for none.
func aclOf[X toc.Xattr | tarfmt.Xattr](text, key string, xattrs []X) (acl.ACL, error) {
	if text != "" {
		return acl.Parse(text, debianNames{})
	}
	for _, x := range xattrs {
		if a := toc.Xattr(x); a.Key == key {
			return acl.Decode(a.Value)
		}
	}
	return nil, nil
}

// maxNames is XATTR_LIST_MAX (xattr(7)): some filesystems take more names than that, and nobody can list them then.
const maxNames = 64 << 10

func (x *extractor) xattrs(h *tarfmt.Header, m *tree.Meta) error {
	return x.Policy.xattrs(h, x.sum, func(a tarfmt.Xattr) error {
		if a.Key == tree.XattrCapability {
			var err error
			if a.Value, err = x.capability(a.Value); err != nil {
				return x.bad.note(h.Name, err)
			}
		}
		m.Xattrs = append(m.Xattrs, tree.Xattr(a))
		return nil
	})
}

// xattrs calls put for the attributes of an entry that are to be carried, ACLs apart.
func (p Policy) xattrs(h *tarfmt.Header, sum *Summary, put func(tarfmt.Xattr) error) error {
	names := 0
	for _, a := range h.Xattrs {
		if names += len(a.Key) + 1; names > maxNames {
			return fmt.Errorf("the names of its attributes take more than %d bytes", maxNames)
		}
		if a.Key == tree.XattrAccess || a.Key == tree.XattrDefault {
			continue // see acls
		}
		if !p.Xattrs.takes(a.Key) {
			sum.skipAttribute(a.Key)
			continue
		}
		if err := put(a); err != nil {
			return err
		}
	}
	return nil
}

// capability takes any revision: archives made by others may hold revision 3 with the root id of their maker's namespace, which
// means the same as revision 2 inside.
func (x *extractor) capability(value []byte) ([]byte, error) {
	c, err := idshift.ParseCapability(value)
	if err != nil {
		return nil, err
	}
	return x.IDs.capSeen(c.Rev2())
}
