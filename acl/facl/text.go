package facl

import (
	"strconv"
	"strings"

	"github.com/nsferry/nsferry/acl"
)

// textStyle is a way to write an ACL in one line.
type textStyle uint8

const (
	longText         textStyle = iota // user::rwx,user:joe:r--
	shortText                         // u::rwx,u:joe:r--
	shortDefaultText                  // d:u::rwx,d:u:joe:r--
)

// nameSpecial are the bytes that would not survive in the name of an entry.
const nameSpecial = ":, \t\n\r#="

// text writes an ACL with names, as messages and --test have it.
func (s *session) text(a acl.ACL, style textStyle) string {
	var b strings.Builder
	for i, e := range a {
		if i > 0 {
			b.WriteByte(',')
		}
		tag := e.Tag.String()
		switch style {
		case shortDefaultText:
			b.WriteString("d:")
			fallthrough
		case shortText:
			tag = tag[:1]
		}
		b.WriteString(tag + ":" + s.entryName(e, false) + ":" + perms(e.Perm))
	}
	return b.String()
}

// entryName is the qualifier of an entry, empty where it has none.
func (s *session) entryName(e acl.Entry, numeric bool) string {
	switch e.Tag {
	case acl.User:
		return s.name(false, e.ID, numeric, nameSpecial)
	case acl.Group:
		return s.name(true, e.ID, numeric, nameSpecial)
	}
	return ""
}

// name returns the name, or the number, that texts have for an id of the process. One without an image is the number
// that the kernel shows inside for such an id in an ACL.
func (s *session) name(group bool, id uint32, numeric bool, special string) string {
	out, ok := s.ids.ToText(group, id)
	if !ok {
		out = acl.Undefined
	}
	if !numeric {
		lookup := s.Names.UserName
		if group {
			lookup = s.Names.GroupName
		}
		if name, ok := lookup(out); ok {
			return quote(name, special)
		}
	}
	return strconv.FormatUint(uint64(out), 10)
}

// perms writes permission bits as "rwx".
func perms(p uint16) string {
	b := []byte("rwx")
	for i := range b {
		if p&(acl.PermRead>>i) == 0 {
			b[i] = '-'
		}
	}
	return string(b)
}
