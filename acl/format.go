package acl

import "strconv"

// Text returns the ACL as tar archives hold it (SCHILY.acl.access): long keywords, numeric ids, commas, canonical order:
// "user::rwx,user:1000:r-x,group::r-x,mask::r-x,other::---".
func (a ACL) Text() string { return a.format(Tag.String) }

// Short returns the ACL in setfacl's short form, otherwise like Text: "u::rwx,u:1000:r-x,g::r-x,m::r-x,o::---".
func (a ACL) Short() string { return a.format(func(t Tag) string { return t.String()[:1] }) }

// format joins the entries, each with the keyword that the function gives for its tag.
func (a ACL) format(keyword func(Tag) string) string {
	var b []byte
	for i, e := range a.sorted() {
		if i > 0 {
			b = append(b, ',')
		}
		b = e.append(b, keyword(e.Tag))
	}
	return string(b)
}

// append adds "keyword:id:rwx" to b, without an id for the tags that have none.
func (e Entry) append(b []byte, keyword string) []byte {
	b = append(b, keyword...)
	b = append(b, ':')
	if e.Tag.named() {
		b = strconv.AppendUint(b, uint64(e.ID), 10)
	}
	b = append(b, ':')
	for i, c := range []byte("rwx") {
		if e.Perm&(PermRead>>i) == 0 {
			c = '-'
		}
		b = append(b, c)
	}
	return b
}
