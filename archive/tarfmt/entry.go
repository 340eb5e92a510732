package tarfmt

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// format is a family of header layouts.
type format uint8

const (
	v7    format = iota
	ustar        // with a prefix of 155 bytes
	star         // with a prefix of 131 bytes
	gnu          // without prefix
)

func (b *block) format() format {
	switch string(b[257:263]) {
	case "ustar ":
		return gnu
	case "ustar\x00":
		if string(b[508:]) == "tar\x00" {
			return star
		}
		return ustar
	}
	return v7
}

// text returns a name field up to its first NUL.
func (b *block) text(f field) []byte {
	s := b.field(f)
	if i := bytes.IndexByte(s, 0); i >= 0 {
		return s[:i]
	}
	return s
}

// name joins prefix and name.
func (b *block) name() string {
	var prefix []byte
	switch b.format() {
	case ustar:
		prefix = b.text(fPrefix)
	case star:
		prefix = b.text(field{fPrefix.from, fPrefix.from + 131})
	}
	if len(prefix) == 0 {
		return string(b.text(fName))
	}
	return string(prefix) + "/" + string(b.text(fName))
}

// size returns the stored size: that of the pax record if there is one.
func (b *block) size(p *paxState) (int64, error) {
	if p.has&hasSize != 0 {
		return checkSize(p.size)
	}
	n, err := b.number(fSize)
	if err != nil {
		return 0, fmt.Errorf("size: %w", err)
	}
	return checkSize(n)
}

// checkSize leaves room for sums with padding and offsets.
func checkSize(n int64) (int64, error) {
	if n < 0 || n > 1<<62 {
		return 0, fmt.Errorf("size %d is out of range", n)
	}
	return n, nil
}

// entry makes the Header of the entry whose own block ends r.raw.
func (r *Reader) entry(p *pending) (*Header, error) {
	b := *r.lastBlock()
	h := &Header{Name: firstOf(p.pax.sparse.name, p.pax.path, p.longName)}
	if h.Name == "" {
		if h.Name = b.name(); h.Name == "" {
			return nil, errors.New("entry has no name")
		}
	}
	if p.bad != nil {
		return h, p.bad
	}
	h.Comment = p.pax.comment
	h.ACL, h.DefaultACL = p.pax.acl, p.pax.defaultACL
	h.Xattrs = p.pax.joinXattrs()
	if err := b.attributes(h, &p.pax); err != nil {
		return h, err
	}
	if h.Type == Link || h.Type == Symlink {
		if h.Link = firstOf(p.pax.link, p.longLink); h.Link == "" {
			if h.Link = string(b.text(fLink)); h.Link == "" {
				return h, errors.New("link without a target")
			}
		}
	}
	return h, r.data(h, &p.pax, &b)
}

func firstOf(names ...string) string {
	for _, s := range names {
		if s != "" {
			return s
		}
	}
	return ""
}

// attributes fills in type, mode, owner, time and device number. A field that a pax record replaces is not looked at.
func (b *block) attributes(h *Header, p *paxState) error {
	h.Type = b.inodeType(h.Name)
	mode, err := b.number(fMode)
	if err != nil {
		return fmt.Errorf("mode: %w", err)
	}
	h.Mode = uint32(mode) & 0o7777
	if h.UID, err = b.id(fUID, p.uid, p.has&hasUID); err != nil {
		return fmt.Errorf("uid: %w", err)
	}
	if h.GID, err = b.id(fGID, p.gid, p.has&hasGID); err != nil {
		return fmt.Errorf("gid: %w", err)
	}
	if h.ModTime = p.mtime; p.has&hasMTime == 0 {
		h.ModTime.Nsec = 0
		if h.ModTime.Sec, err = b.number(fMTime); err != nil {
			return fmt.Errorf("mtime: %w", err)
		}
	}
	if h.Type != Char && h.Type != Block {
		return nil
	}
	if h.DevMajor, err = b.id(fDevMajor, p.devMajor, p.has&hasDevMajor); err != nil {
		return fmt.Errorf("device major: %w", err)
	}
	if h.DevMinor, err = b.id(fDevMinor, p.devMinor, p.has&hasDevMinor); err != nil {
		return fmt.Errorf("device minor: %w", err)
	}
	return nil
}

// id returns a number of 32 bits, from pax if present is not 0, and else from field f.
func (b *block) id(f field, pax uint32, present uint16) (uint32, error) {
	if present != 0 {
		return pax, nil
	}
	n, err := b.number(f)
	if err != nil {
		return 0, err
	}
	return id32(n)
}

// inodeType maps the typeflag. Contiguous and unknown types are regular files (POSIX); before ustar, directories were
// files with a name that ends in a slash, and GNU tar still takes them so.
func (b *block) inodeType(name string) Type {
	switch t := Type(b[typeflag]); t {
	case Link, Symlink, Char, Block, Dir, Fifo:
		return t
	case 'D': // GNU directory with a listing of its names as data
		return Dir
	}
	if b[typeflag] != 'S' && strings.HasSuffix(name, "/") {
		return Dir
	}
	return Reg
}

// data decides how many bytes of data follow the headers and sets the sizes.
func (r *Reader) data(h *Header, p *paxState, b *block) error {
	switch {
	case h.Type == Reg:
	case h.Type == Link:
		return r.linkData(p, b)
	case h.Type == Dir && b[typeflag] != '5':
		n, err := b.size(p)
		r.skip = n + Padding(n)
		return err
	default:
		return nil // whatever the size field says: no data (POSIX)
	}
	n, err := b.size(p)
	if err != nil {
		return err
	}
	if p.has&hasStarSize != 0 && p.starLen != n {
		return errors.New("sparse file of star is not supported")
	}
	h.Size, r.left, r.skip = n, n, Padding(n)
	return r.readSparse(h, p, b)
}

// linkData handles hard links of non-zero size. Old tars copied the size of the file without writing its data; pax
// allows data. A size in a pax record is taken at its word; for one in the header the next block decides: a good header,
// or zeros, cannot be data. The data are skipped, since the file they belong to is in the archive already.
func (r *Reader) linkData(p *paxState, b *block) error {
	n, err := b.size(p)
	if err != nil || n == 0 {
		return err
	}
	if p.has&hasSize == 0 {
		next, err := r.in.peek()
		if err != nil {
			return truncated(err)
		}
		if *next == (block{}) || next.verify() == nil {
			return nil
		}
	}
	r.skip = n + Padding(n)
	return nil
}
