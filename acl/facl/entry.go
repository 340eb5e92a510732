package facl

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/nsferry/nsferry/acl"
)

// blank is what may stand around the fields of an entry.
const blank = " \t\r\n"

// entryError tells where in a text an entry goes wrong. Text is empty when nothing can be added to "Invalid argument".
type entryError struct {
	at   int // bytes from the start of the text
	text string
}

func (e *entryError) Error() string {
	if e.text == "" {
		return "Invalid argument"
	}
	return "Invalid argument: " + e.text
}

// entryParser reads the entries of one text, by the grammar of setfacl(1), "ACL entries".
type entryParser struct {
	s       *session
	text    string
	at      int
	remove  bool // entries of -x: without permissions
	promote bool // entries of -d: "default:" is no part of the grammar, every entry is one of the default ACL
}

// bad makes the error for the current place, or for an earlier one.
func (p *entryParser) bad(at int, format string, args ...any) error {
	return &entryError{at: at, text: fmt.Sprintf(format, args...)}
}

func (p *entryParser) rest() string { return p.text[p.at:] }

func (p *entryParser) skipBlanks() {
	p.at = len(p.text) - len(strings.TrimLeft(p.rest(), blank))
}

// colon skips one colon with the blanks before it.
func (p *entryParser) colon() {
	after, ok := strings.CutPrefix(strings.TrimLeft(p.rest(), blank), ":")
	if ok {
		p.at = len(p.text) - len(after)
	}
}

// keyword skips one of two spellings of a word, if it stands here and ends here, and a colon behind it.
func (p *entryParser) keyword(long, short string) bool {
	for _, word := range []string{long, short} {
		after, ok := strings.CutPrefix(p.rest(), word)
		after = strings.TrimLeft(after, blank)
		if !ok || after != "" && after[0] != ':' && after[0] != ',' {
			continue
		}
		p.at += len(word)
		p.colon()
		return true
	}
	return false
}

// list reads all entries of an argument, separated by commas, to the end of the text.
func (p *entryParser) list() ([]change, error) {
	var all []change
	for p.at < len(p.text) {
		c, err := p.entry()
		if err != nil {
			return nil, err
		}
		all = append(all, c)
		p.skipBlanks()
		if !strings.HasPrefix(p.rest(), ",") {
			break
		}
		p.at++
	}
	if p.at < len(p.text) {
		return nil, p.bad(p.at, "")
	}
	return all, nil
}

// entry reads one entry; what is behind it stays.
func (p *entryParser) entry() (change, error) {
	c := change{Kind: acl.Access, Do: setEntry}
	start := p.at
	p.skipBlanks() // these may stand before "default" only
	if p.promote || !p.keyword("default", "d") {
		p.at = start
	} else {
		c.Kind = acl.Default
	}
	if p.promote {
		c.Kind = acl.Default
	}
	var err error
	switch {
	case p.keyword("group", "g"):
		err = p.qualifier(&c, acl.GroupObj, acl.Group)
	case p.keyword("mask", "m"):
		c.Entry.Tag = acl.Mask
		p.colon()
	case p.keyword("other", "o"):
		c.Entry.Tag = acl.Other
		p.colon()
	default:
		p.keyword("user", "u")
		err = p.qualifier(&c, acl.UserObj, acl.User)
	}
	if err != nil {
		return change{}, err
	}
	if p.remove {
		c.Do = dropEntry
		return c, nil
	}
	return c, p.permissions(&c)
}

// qualifier reads the name or number of a user or group, which may be missing, and the colon behind it.
func (p *entryParser) qualifier(c *change, obj, named acl.Tag) error {
	start := p.at
	p.skipBlanks()
	length := strings.IndexAny(p.rest(), ":,\r\n")
	if length < 0 {
		length = len(p.rest())
	}
	token := strings.TrimRight(p.rest()[:length], blank)
	p.at += length
	if p.at < len(p.text) && p.text[p.at] != ',' {
		p.at++
	}
	c.Entry.Tag = obj
	if token != "" {
		c.Entry.Tag = named
		id, err := p.id(unquote(token), named == acl.Group)
		if err != "" {
			return p.bad(start, "%s", strings.TrimSpace(err))
		}
		c.Entry.ID = id
	}
	return nil
}

// id returns the id, as the process has it, that a name or number means; otherwise an error text that may be blank.
func (p *entryParser) id(token string, group bool) (uint32, string) {
	id, isNumber, ok := parseID(token)
	if isNumber && !ok {
		return 0, "ids are 0 to 4294967294"
	}
	if !isNumber {
		lookup := p.s.Names.UserID
		if group {
			lookup = p.s.Names.GroupID
		}
		if id, ok = lookup(token); !ok {
			return 0, " "
		}
	}
	out, ok := p.s.ids.ToProcess(group, id)
	if !ok {
		kind := "uid"
		if group {
			kind = "gid"
		}
		return 0, fmt.Sprintf("%s %d is not in the map", kind, id)
	}
	return out, ""
}

// parseID reads a number as strtol(3) with base 0 does: decimal, octal with a leading 0, hexadecimal with 0x; with a sign.
// ok is false for a number that is no id. setfacl would wrap it round to another one.
func parseID(token string) (id uint32, isNumber, ok bool) {
	digits := strings.TrimLeft(token, blank)
	sign := ""
	if digits != "" && (digits[0] == '+' || digits[0] == '-') {
		sign, digits = digits[:1], digits[1:]
	}
	base := 10
	switch {
	case strings.HasPrefix(digits, "0x"), strings.HasPrefix(digits, "0X"):
		base, digits = 16, digits[2:]
	case strings.HasPrefix(digits, "0"):
		base = 8
	}
	set := "0123456789abcdefABCDEF"
	if base < 16 {
		set = set[:base]
	}
	if digits == "" || strings.Trim(digits, set) != "" {
		return 0, false, false
	}
	n, err := strconv.ParseUint(digits, base, 32)
	return uint32(n), true, err == nil && uint32(n) != acl.Undefined && (sign != "-" || n == 0)
}

// permissions reads one octal digit, perhaps after zeros, or letters of which none may be there twice, and any number of dashes.
func (p *entryParser) permissions(c *change) error {
	p.skipBlanks()
	text := p.rest()
	if text != "" && text[0] >= '0' && text[0] <= '7' {
		for text[0] == '0' && len(text) > 1 && text[1] >= '0' && text[1] <= '7' {
			text, p.at = text[1:], p.at+1
		}
		c.Entry.Perm = uint16(text[0] - '0')
		p.at++
		return nil
	}
	start := p.at
	for ; p.at < len(p.text); p.at++ {
		var bit uint16
		switch p.text[p.at] {
		case 'r':
			bit = acl.PermRead
		case 'w':
			bit = acl.PermWrite
		case 'x':
			bit = acl.PermExecute
		case 'X':
			if c.IfExecutable {
				return p.bad(p.at, "")
			}
			c.IfExecutable = true
			continue
		case '-':
			continue
		default:
			if p.at == start {
				return p.bad(p.at, "")
			}
			return nil
		}
		if c.Entry.Perm&bit != 0 {
			return p.bad(p.at, "")
		}
		c.Entry.Perm |= bit
	}
	if p.at == start {
		return p.bad(p.at, "")
	}
	return nil
}
