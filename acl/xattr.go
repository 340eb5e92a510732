package acl

import (
	"encoding/binary"
	"fmt"
)

// The xattr value: u32 version 2, then per entry u16 tag, u16 permissions, u32 id, all little endian; the id of entries
// without one is 0xffffffff (linux/posix_acl_xattr.h).
const (
	xattrVersion = 2
	xattrHeader  = 4
	xattrEntry   = 8
)

// Decode reads the value of system.posix_acl_access or system.posix_acl_default. The result is in canonical order and may
// hold the id Undefined; it is checked for form only (version, length, tags, permission bits), so call Validate before it is
// set on a file. A value without entries, which the kernel takes for "no ACL", gives nil.
func Decode(xattr []byte) (ACL, error) {
	if len(xattr) < xattrHeader || (len(xattr)-xattrHeader)%xattrEntry != 0 {
		return nil, fmt.Errorf("acl: xattr of %d bytes", len(xattr))
	}
	if v := binary.LittleEndian.Uint32(xattr); v != xattrVersion {
		return nil, fmt.Errorf("acl: xattr version %d", v)
	}
	var a ACL
	for b := xattr[xattrHeader:]; len(b) > 0; b = b[xattrEntry:] {
		e := Entry{
			Tag:  Tag(binary.LittleEndian.Uint16(b)),
			Perm: binary.LittleEndian.Uint16(b[2:]),
		}
		switch e.Tag {
		case User, Group:
			e.ID = binary.LittleEndian.Uint32(b[4:])
		case UserObj, GroupObj, Mask, Other:
		default:
			return nil, fmt.Errorf("acl: xattr entry %d: unknown %s", len(a), e.Tag)
		}
		if e.Perm&^permAll != 0 {
			return nil, fmt.Errorf("acl: xattr entry %d: permissions 0x%x", len(a), e.Perm)
		}
		a = append(a, e)
	}
	a.Sort()
	return a, nil
}

// Encode returns the xattr value of the ACL, in canonical order as the kernel demands.
func (a ACL) Encode() []byte {
	b := make([]byte, 0, xattrHeader+len(a)*xattrEntry)
	b = binary.LittleEndian.AppendUint32(b, xattrVersion)
	for _, e := range a.sorted() {
		id := Undefined
		if e.Tag.named() {
			id = e.ID
		}
		b = binary.LittleEndian.AppendUint16(b, uint16(e.Tag))
		b = binary.LittleEndian.AppendUint16(b, e.Perm)
		b = binary.LittleEndian.AppendUint32(b, id)
	}
	return b
}
