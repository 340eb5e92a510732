package idshift

import (
	"fmt"

	"github.com/nsferry/nsferry/acl"
)

// UnmappedError says that an id has no image. Inside tells which side ID is of: an outside id that From does not map, or
// an inside id that To does not map.
type UnmappedError struct {
	Kind   Kind
	ID     uint32
	Inside bool
}

// Error names the id and the side on which it stands.
func (e *UnmappedError) Error() string {
	if e.Inside {
		return fmt.Sprintf("inside %s %d has no outside id in the map", e.Kind, e.ID)
	}
	return fmt.Sprintf("outside %s %d has no inside id in the map", e.Kind, e.ID)
}

// Shift moves ids from the outside ids of one mapping to the outside ids of another, by way of the inside ids that both
// have in common: what belongs to inside id 5 of From afterwards belongs to inside id 5 of To. Mapping.Inside and
// Mapping.Outside are the shifts between one mapping's two sides.
//
// Laws: s.Inverse() undoes s wherever s gives an image (for capabilities see Capability); different ids have different
// images; what has no image is an *UnmappedError.
type Shift struct {
	From, To Mapping
}

// Inverse returns the shift in the other direction.
func (s Shift) Inverse() Shift { return Shift{From: s.To, To: s.From} }

// Owner returns the image of one id.
func (s Shift) Owner(k Kind, id uint32) (uint32, error) {
	in, ok := s.From.Of(k).ToInside(id)
	if !ok {
		return 0, &UnmappedError{Kind: k, ID: id}
	}
	out, ok := s.To.Of(k).ToOutside(in)
	if !ok {
		return 0, &UnmappedError{Kind: k, ID: in, Inside: true}
	}
	return out, nil
}

// ACL returns a copy of the ACL, in canonical order, with the images of the ids of named entries.
func (s Shift) ACL(a acl.ACL) (acl.ACL, error) {
	if a == nil {
		return nil, nil
	}
	out := make(acl.ACL, len(a))
	for i, e := range a {
		var err error
		switch e.Tag {
		case acl.User:
			e.ID, err = s.Owner(UID, e.ID)
		case acl.Group:
			e.ID, err = s.Owner(GID, e.ID)
		}
		if err != nil {
			return nil, fmt.Errorf("acl: %w", err)
		}
		out[i] = e
	}
	out.Sort()
	return out, nil
}

// Capability returns the value of security.capability as a file has it on To's outside, given the one on From's outside, as
// the kernel translates it (cap_inode_getsecurity, cap_inode_setxattr): a root id that is inside uid 0 of From
// becomes inside uid 0 of To, and where that is outside uid 0 the value is of revision 2. So Mapping.Inside always gives
// revision 2, and Mapping.Outside revision 3 in a real namespace.
//
// A revision 2 value on From's outside was written by real root and counts in every namespace; it is taken as one of
// inner root, as a reader inside sees it. Going there and back such a value comes home as revision 3. A root id that is
// another id inside is an *UnmappedError: no archive can hold it.
func (s Shift) Capability(value []byte) ([]byte, error) {
	c, err := ParseCapability(value)
	if err != nil {
		return nil, err
	}
	if c.Namespaced {
		if in, ok := s.From.UID.ToInside(c.RootID); !ok || in != 0 {
			return nil, fmt.Errorf("capability: root id: %w", &UnmappedError{Kind: UID, ID: c.RootID})
		}
	}
	root, ok := s.To.UID.ToOutside(0)
	switch {
	case !ok:
		return nil, fmt.Errorf("capability: root id: %w", &UnmappedError{Kind: UID, ID: 0, Inside: true})
	case root == 0:
		return c.Rev2(), nil
	}
	return c.Rev3(root), nil
}
