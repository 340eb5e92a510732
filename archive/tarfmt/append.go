package tarfmt

import (
	"errors"
	"fmt"
	"math"
	"strings"
)

// Limits of the ustar fields: 100 bytes of name, and octal digits that leave room for the closing NUL.
const (
	nameLen   = 100
	maxOctal7 = 1<<21 - 1
	maxOctal  = 1<<33 - 1
)

// Append appends the entry's header blocks (GNU long names, pax header, ustar header) to dst: docs/FORMAT.md §1. Stored
// data and padding have to follow. It refuses what that format cannot hold or forbids, and then returns dst unchanged.
// Equal headers give equal bytes.
func (h *Header) Append(dst []byte) (out []byte, err error) {
	if err := h.check(); err != nil {
		return dst, fmt.Errorf("tar entry %q: %w", h.Name, err)
	}
	longName, longLink := len(h.Name) > nameLen, len(h.Link) > nameLen
	if longName && !isASCII(h.Name) {
		dst, longName = appendLong(dst, 'L', h.Name), false
	}
	if longLink && !isASCII(h.Link) {
		dst, longLink = appendLong(dst, 'K', h.Link), false
	}
	dst = h.appendPax(dst, longName, longLink)

	var b block
	b.set(h)
	return append(dst, b[:]...), nil
}

// isASCII tells whether a name may go into a pax record. Those are UTF-8 by definition: readers convert them to the
// charset of their locale or complain (bsdtar fails for every other byte in the C locale), and GNU tar warns of the
// remedy, hdrcharset=BINARY. GNU long names are plain bytes to everybody.
func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// check refuses headers that Append could not write faithfully.
func (h *Header) check() error {
	switch {
	case h.Name == "" || strings.IndexByte(h.Name, 0) >= 0:
		return errors.New("name is empty or holds a NUL")
	case strings.IndexByte(h.Link, 0) >= 0:
		return errors.New("link target holds a NUL")
	case (h.Link != "") != (h.Type == Link || h.Type == Symlink):
		return fmt.Errorf("link target %q does not go with type %q", h.Link, h.Type)
	case h.Mode > 0o7777:
		return fmt.Errorf("mode %o has more than 12 bits", h.Mode)
	case h.UID == math.MaxUint32 || h.GID == math.MaxUint32:
		return errors.New("id 4294967295 is not an id")
	case h.ModTime.Sec == math.MinInt64:
		return errors.New("mtime is out of range")
	case h.ModTime.Nsec > 999999999:
		return fmt.Errorf("mtime has %d nanoseconds", h.ModTime.Nsec)
	case h.Size < 0:
		return fmt.Errorf("size %d is negative", h.Size)
	case strings.IndexByte(h.ACL, 0) >= 0 || strings.IndexByte(h.DefaultACL, 0) >= 0:
		return errors.New("ACL text holds a NUL")
	}
	if err := h.checkType(); err != nil {
		return err
	}
	return checkXattrs(h.Xattrs)
}

// checkType refuses values that do not go with the entry's type.
func (h *Header) checkType() error {
	switch h.Type {
	case Reg:
		if err := checkWritable(h.Sparse, h.Size); err != nil {
			return err
		}
		if n := h.Stored(); n < 0 || n > math.MaxInt64-2*BlockSize {
			return errors.New("stored size overflows")
		}
		return h.checkDevice(false)
	case Link:
		if h.Xattrs != nil || h.ACL != "" || h.DefaultACL != "" || h.Comment != "" {
			return errors.New("hard link with metadata of its own")
		}
	case Char, Block:
		return errors.Join(h.checkEmpty(), h.checkDevice(true))
	case Symlink, Dir, Fifo:
	default:
		return fmt.Errorf("type %q is unknown", h.Type)
	}
	return errors.Join(h.checkEmpty(), h.checkDevice(false))
}

func (h *Header) checkEmpty() error {
	if h.Size != 0 || h.Sparse != nil {
		return fmt.Errorf("type %q cannot hold data", h.Type)
	}
	return nil
}

func (h *Header) checkDevice(device bool) error {
	switch {
	case !device && (h.DevMajor != 0 || h.DevMinor != 0):
		return fmt.Errorf("type %q cannot have a device number", h.Type)
	case h.DevMajor > maxOctal7 || h.DevMinor > maxOctal7:
		return fmt.Errorf("device number %d:%d does not fit", h.DevMajor, h.DevMinor)
	}
	return nil
}

func checkXattrs(xs []Xattr) error {
	for i, x := range xs {
		switch {
		case x.Key == "" || strings.IndexByte(x.Key, 0) >= 0:
			return fmt.Errorf("xattr key %q is empty or holds a NUL", x.Key)
		case strings.HasPrefix(x.Key, "system.posix_acl_"):
			return fmt.Errorf("xattr %s has to be given as ACL text", x.Key)
		case i > 0 && xs[i-1].Key >= x.Key:
			return fmt.Errorf("xattr %q is out of order or twice there", x.Key)
		}
	}
	return nil
}
