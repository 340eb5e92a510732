package facl

import (
	"fmt"
	"strings"

	"github.com/nsferry/nsferry/acl"
)

// row is an entry as -t shows it: of the access ACL, the default ACL, or both.
type row struct {
	tag, name string
	perms     [2]string
}

// table writes both ACLs side by side; rights that the mask takes away are in capitals.
func (g *getter) table(f *file, acls pair) {
	const noPerms = "   "
	width := 8
	var rows []row
	i, j := 0, 0
	a, d := acls[acl.Access], acls[acl.Default]
	for i < len(a) || j < len(d) {
		var e acl.Entry
		r := row{perms: [2]string{noPerms, noPerms}}
		order := 0
		switch {
		case i == len(a):
			order = 1
		case j == len(d):
			order = -1
		default:
			order = before(a[i], d[j])
		}
		if order <= 0 {
			e = a[i]
			r.perms[0] = capitals(e, a)
			i++
		}
		if order >= 0 {
			e = d[j]
			r.perms[1] = capitals(e, d)
			j++
		}
		r.tag, r.name = g.rowHead(f, e)
		width = max(width, len(r.name))
		rows = append(rows, r)
	}
	for _, r := range rows {
		fmt.Fprintf(g.out, "%-5s  %-*s  %s  %s\n", r.tag, width, r.name, r.perms[0], r.perms[1])
	}
}

// before orders entries of two ACLs: negative when x is first, 0 when they are for the same subject.
func before(x, y acl.Entry) int {
	if x.Tag != y.Tag {
		return int(x.Tag) - int(y.Tag)
	}
	switch {
	case x.ID < y.ID:
		return -1
	case x.ID > y.ID:
		return 1
	}
	return 0
}

// rowHead returns the first two columns; the file's own owner and group are named, and told by capitals.
func (g *getter) rowHead(f *file, e acl.Entry) (tag, name string) {
	switch e.Tag {
	case acl.UserObj:
		return "USER", g.owner(false, f.st.Uid)
	case acl.GroupObj:
		return "GROUP", g.owner(true, f.st.Gid)
	}
	return e.Tag.String(), g.entryName(e, g.numeric)
}

// capitals writes the permissions of an entry, in capitals what the mask of its ACL does not let through.
func capitals(e acl.Entry, a acl.ACL) string {
	text := perms(e.Perm)
	mask, masked := find(a, acl.Mask)
	if !masked || e.Tag == acl.UserObj || e.Tag == acl.Mask || e.Tag == acl.Other {
		return text
	}
	var b strings.Builder
	for i := range text {
		if mask&(acl.PermRead>>i) == 0 {
			b.WriteString(strings.ToUpper(text[i : i+1]))
		} else {
			b.WriteByte(text[i])
		}
	}
	return b.String()
}
