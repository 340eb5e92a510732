package acl

import (
	"fmt"
	"strconv"
	"strings"
)

// Names turns user and group names in a text into ids, e.g. from a rootfs's own /etc/passwd.
type Names interface {
	User(name string) (uint32, error)
	Group(name string) (uint32, error)
}

// SyntaxError tells where a text stopped being an ACL. Offset counts bytes from 0; Text is what stands there.
type SyntaxError struct {
	Offset int
	Text   string
	Reason string
}

// Error returns position, text and reason in one line.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("acl text, byte %d, %q: %s", e.Offset, e.Text, e.Reason)
}

// Parse reads an access ACL, or a default ACL written without "default:" (as in tar archives), from text. It takes what
// getfacl, setfacl, GNU tar, bsdtar and star write: long or short keywords, one entry a line or separated by commas, blanks
// around fields, comments, permissions as letters or one octal digit, and a trailing numeric id ("user:joe:rwx:1000"), which
// wins over the name. A qualifier of digits is an id (setfacl(1)); names need a Names, which may be nil otherwise.
//
// The result is in canonical order and holds what was written: no mask is added, and an incomplete ACL such as an argument
// of setfacl -m is no syntax error. Call Validate where a whole one is needed. All errors are a *SyntaxError.
func Parse(text string, names Names) (ACL, error) {
	p := parser{names: names}
	if err := p.parse(text); err != nil {
		return nil, err
	}
	p.access.Sort()
	return p.access, nil
}

// ParseBoth reads a text whose entries may begin with "default:" or "d:", such as the output of getfacl, and returns both
// ACLs; one without entries is nil. It is otherwise like Parse.
func ParseBoth(text string, names Names) (access, def ACL, err error) {
	p := parser{names: names, defaults: true}
	if err := p.parse(text); err != nil {
		return nil, nil, err
	}
	p.access.Sort()
	p.def.Sort()
	return p.access, p.def, nil
}

// parser collects the entries of one text. defaults says whether entries of a default ACL may occur.
type parser struct {
	names       Names
	defaults    bool
	access, def ACL
}

// field is a part of the text and the offset where it stands.
type field struct {
	text   string
	offset int
}

// bad makes the error for this part of the text.
func (f field) bad(reason string) error {
	return &SyntaxError{Offset: f.offset, Text: f.text, Reason: reason}
}

// trim cuts blanks off both ends; the carriage return is one, for texts that went through other systems.
func (f field) trim() field {
	const blank = " \t\r"
	t := strings.TrimLeft(f.text, blank)
	return field{strings.TrimRight(t, blank), f.offset + len(f.text) - len(t)}
}

// parse splits the text into lines, cuts comments off, and splits what is left at commas.
func (p *parser) parse(text string) error {
	for offset := 0; offset < len(text); {
		line, _, _ := strings.Cut(text[offset:], "\n")
		if err := p.line(field{line, offset}); err != nil {
			return err
		}
		offset += len(line) + 1
	}
	return nil
}

// line reads the entries of one line. A "#" begins a comment only at the start or after a blank, because names may contain
// it and getfacl does not quote it. A comma may end the line, but not stand alone.
func (p *parser) line(f field) error {
	for i := range len(f.text) {
		if f.text[i] == '#' && (i == 0 || strings.IndexByte(" \t,", f.text[i-1]) >= 0) {
			f.text = f.text[:i]
			break
		}
	}
	if f = f.trim(); f.text == "" {
		return nil
	}
	for {
		head, tail, more := strings.Cut(f.text, ",")
		e := field{head, f.offset}.trim()
		if e.text == "" {
			return e.bad("empty entry")
		}
		if err := p.entry(e); err != nil {
			return err
		}
		f = field{tail, f.offset + len(head) + 1}
		if !more || strings.Trim(tail, " \t\r") == "" {
			return nil
		}
	}
}

// entry reads one entry: [default:]tag:[qualifier]:permissions[:id], mask and other also without the empty qualifier (as
// setfacl and Solaris write them), and setfacl's bare ID:permissions for a user.
func (p *parser) entry(f field) error {
	parts := split(f)
	to := &p.access
	if parts[0].text == "d" || parts[0].text == "default" {
		if !p.defaults {
			return f.bad("entry of a default ACL in the text of a single ACL")
		}
		if parts = parts[1:]; len(parts) == 0 {
			return f.bad("entry without a tag")
		}
		to = &p.def
	}
	obj, named := UserObj, User
	switch parts[0].text {
	case "u", "user":
	case "g", "group":
		obj, named = GroupObj, Group
	case "m", "mask":
		obj, named = Mask, 0
	case "o", "other":
		obj, named = Other, 0
	default:
		if len(parts) != 2 || parts[0].text == "" {
			return parts[0].bad("not one of user, group, mask, other")
		}
		parts = append([]field{{"user", parts[0].offset}}, parts...)
	}
	parts = parts[1:]
	if named == 0 && len(parts) == 1 {
		parts = append([]field{{"", parts[0].offset}}, parts...)
	}
	if len(parts) < 2 {
		return f.bad("permissions are missing")
	}
	e := Entry{Tag: obj}
	qualifier, perm, rest := parts[0], parts[1], parts[2:]
	if qualifier.text != "" {
		if named == 0 {
			return qualifier.bad("mask and other have no name")
		}
		e.Tag = named
	}
	if len(rest) > 1 || (len(rest) == 1 && !e.Tag.named()) {
		at := rest[0].offset
		return field{f.text[at-f.offset:], at}.bad("more fields than an entry has")
	}
	if err := p.id(&e, qualifier, rest); err != nil {
		return err
	}
	var err error
	if e.Perm, err = permissions(perm); err != nil {
		return err
	}
	*to = append(*to, e)
	return nil
}

// split cuts an entry at its colons. getfacl writes a colon within a name as \072, so that every colon separates.
func split(f field) []field {
	var parts []field
	for {
		head, tail, more := strings.Cut(f.text, ":")
		parts = append(parts, field{head, f.offset}.trim())
		if !more {
			return parts
		}
		f = field{tail, f.offset + len(head) + 1}
	}
}

// id sets the id of a named entry from the trailing id where there is one, else from the qualifier.
func (p *parser) id(e *Entry, qualifier field, rest []field) error {
	switch {
	case !e.Tag.named():
		return nil
	case len(rest) == 1:
		return number(rest[0], &e.ID)
	case isDigits(qualifier.text):
		return number(qualifier, &e.ID)
	case p.names == nil:
		return qualifier.bad("a name where only numeric ids can be read")
	}
	name, err := unquote(qualifier)
	if err != nil {
		return err
	}
	lookup := p.names.User
	if e.Tag == Group {
		lookup = p.names.Group
	}
	if e.ID, err = lookup(name); err != nil {
		return qualifier.bad(err.Error())
	}
	if e.ID == Undefined {
		return qualifier.bad("the name stands for an id that does not exist")
	}
	return nil
}

// isDigits tells whether the text is a decimal number of any length.
func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// number reads a decimal id below Undefined. A leading zero is refused: libacl takes such numbers for octal, libarchive
// for decimal ones.
func number(f field, id *uint32) error {
	n, err := strconv.ParseUint(f.text, 10, 32)
	switch {
	case err != nil || !isDigits(f.text) || n == uint64(Undefined):
		return f.bad("not an id from 0 to 4294967294")
	case len(f.text) > 1 && f.text[0] == '0':
		return f.bad("an id with a leading zero can be read as octal")
	}
	*id = uint32(n)
	return nil
}

// unquote replaces the \ooo (three octal digits) and \\ of getfacl's names by the bytes that they stand for.
func unquote(f field) (string, error) {
	if !strings.Contains(f.text, `\`) {
		return f.text, nil
	}
	var b []byte
	for s := f.text; s != ""; {
		if s[0] != '\\' {
			b, s = append(b, s[0]), s[1:]
			continue
		}
		if strings.HasPrefix(s, `\\`) {
			b, s = append(b, '\\'), s[2:]
			continue
		}
		if len(s) < 4 {
			return "", f.bad("incomplete backslash escape in a name")
		}
		c, err := strconv.ParseUint(s[1:4], 8, 8)
		if err != nil {
			return "", f.bad("not an octal escape after the backslash in a name")
		}
		b, s = append(b, byte(c)), s[4:]
	}
	return string(b), nil
}

// permissions reads letters, each at most once and in any order, with dashes for what is not granted, or one octal digit.
func permissions(f field) (uint16, error) {
	if len(f.text) == 1 && f.text[0] >= '0' && f.text[0] <= '7' {
		return uint16(f.text[0] - '0'), nil
	}
	var perm uint16
	if f.text == "" || len(f.text) > 3 {
		return 0, f.bad("not permissions such as r-x")
	}
	for _, c := range []byte(f.text) {
		var bit uint16
		switch c {
		case 'r':
			bit = PermRead
		case 'w':
			bit = PermWrite
		case 'x':
			bit = PermExecute
		case '-':
			continue
		case 'X':
			return 0, f.bad("X depends on the file and cannot be part of an ACL's text")
		default:
			return 0, f.bad("not permissions such as r-x")
		}
		if perm&bit != 0 {
			return 0, f.bad("a permission is given twice")
		}
		perm |= bit
	}
	return perm, nil
}
