package tarfmt

import (
	"bytes"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
)

// addXattr takes in a SCHILY.xattr record. An empty value is an empty attribute, not a deletion.
func (p *paxState) addXattr(key, value []byte) error {
	return addTo(&p.xattrs, string(key), bytes.Clone(value))
}

// addArchived takes in a LIBARCHIVE.xattr record: key URL-encoded, value base64, with or without padding.
func (p *paxState) addArchived(key, value []byte) error {
	raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(string(value), "="))
	if err != nil {
		return err
	}
	return addTo(&p.archived, unescape(string(key), anyHex), raw)
}

func addTo(xs *[]Xattr, key string, value []byte) error {
	if key == "" || strings.IndexByte(key, 0) >= 0 {
		return errors.New("xattr key is empty or holds a NUL")
	}
	if value == nil {
		value = []byte{}
	}
	*xs = append(*xs, Xattr{key, value})
	return nil
}

// joinXattrs returns the attributes sorted, the last one of equal keys. libarchive writes each attribute twice, and in its
// SCHILY record the key is not encoded: one with "=" ends too early there. Such a record is recognised by its bytes
// and dropped; all other SCHILY keys are GNU tar's, %-encoded.
func (p *paxState) joinXattrs() []Xattr {
	if len(p.xattrs)+len(p.archived) == 0 {
		return nil
	}
	out := make([]Xattr, 0, len(p.xattrs)+len(p.archived))
	for _, x := range p.xattrs {
		if !slices.ContainsFunc(p.archived, x.sameRecord) {
			x.Key = unescape(x.Key, gnuOnly)
			out = append(out, x)
		}
	}
	out = append(out, p.archived...)
	slices.SortStableFunc(out, func(a, b Xattr) int { return strings.Compare(a.Key, b.Key) })
	last := out[:0]
	for i, x := range out {
		if i+1 == len(out) || out[i+1].Key != x.Key {
			last = append(last, x)
		}
	}
	return last
}

// sameRecord tells whether x and y give the same bytes when written as KEY=VALUE.
func (x Xattr) sameRecord(y Xattr) bool {
	if len(x.Key)+len(x.Value) != len(y.Key)+len(y.Value) {
		return false
	}
	if len(x.Key) == len(y.Key) {
		return x.Key == y.Key && bytes.Equal(x.Value, y.Value)
	}
	return x.Key+"="+string(x.Value) == y.Key+"="+string(y.Value)
}

// gnuOnly admits the two escapes of GNU tar; it leaves every other "%" alone.
func gnuOnly(c byte) bool { return c == '%' || c == '=' }

// anyHex admits every escape.
func anyHex(byte) bool { return true }

// unescape replaces %XX where admit takes the byte it stands for.
func unescape(s string, admit func(byte) bool) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			hi, lo := unhex(s[i+1]), unhex(s[i+2])
			if hi >= 0 && lo >= 0 && admit(byte(hi<<4|lo)) {
				out = append(out, byte(hi<<4|lo))
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}

func unhex(c byte) int {
	return strings.IndexByte("0123456789abcdef", c|0x20&^(c>>2&0x20)) // digits unchanged, letters lower case
}
