package listing

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Line is the one text of a node, without a newline. ParseLine reads it back to an equal node.
func (n Node) Line() string { return string(n.AppendLine(nil)) }

// AppendLine appends Line to dst.
func (n Node) AppendLine(dst []byte) []byte {
	dst = append(dst, n.Type...)
	for i := len(n.Type); i < 8; i++ {
		dst = append(dst, ' ')
	}
	dst = appendName(append(dst, ' '), n.Name)
	switch n.Type {
	case Hardlink:
		return appendName(append(dst, ' '), n.Target)
	case Symlink:
		dst = append(n.appendOwner(dst), ' ')
		dst = appendName(dst, n.Target)
	case Char, Block:
		dst = append(n.appendMode(n.appendOwner(dst)), ' ')
		dst = appendPair(dst, uint64(n.Major), ':', uint64(n.Minor))
	default:
		dst = n.appendMode(n.appendOwner(dst))
	}
	dst = n.appendAttrs(dst)
	if n.Type == File {
		dst = n.appendContent(dst)
	}
	return dst
}

func (n Node) appendOwner(dst []byte) []byte {
	return appendPair(append(dst, ' '), uint64(n.UID), ':', uint64(n.GID))
}

// appendMode appends the mode in octal, three digits at least.
func (n Node) appendMode(dst []byte) []byte {
	dst = append(dst, ' ')
	if n.Mode < 0o100 {
		dst = append(dst, '0')
	}
	if n.Mode < 0o10 {
		dst = append(dst, '0')
	}
	return strconv.AppendUint(dst, uint64(n.Mode), 8)
}

func appendPair(dst []byte, a uint64, sep byte, b uint64) []byte {
	dst = append(strconv.AppendUint(dst, a, 10), sep)
	return strconv.AppendUint(dst, b, 10)
}

func (n Node) appendAttrs(dst []byte) []byte {
	if n.MTime != nil {
		dst = n.MTime.append(append(dst, " mtime="...))
	}
	if n.ACL != "" {
		dst = append(append(dst, " acl="...), n.ACL...)
	}
	if n.Default != "" {
		dst = append(dst, " default="+n.Default...)
	}
	if n.Cap != nil {
		dst = append(dst, " cap="+capText(n.Cap)...)
	}
	for _, x := range n.Xattrs {
		dst = append(dst, " xattr:"...)
		if visible(x.Key) && !strings.Contains(x.Key, "=") {
			dst = append(dst, x.Key...)
		} else {
			dst = strconv.AppendQuote(dst, x.Key)
		}
		dst = append(dst, "=0x"...)
		dst = hex.AppendEncode(dst, x.Value)
	}
	return dst
}

func (n Node) appendContent(dst []byte) []byte {
	if n.Content != nil {
		dst = strconv.AppendQuote(append(dst, ' '), string(n.Content))
	} else {
		dst = strconv.AppendInt(append(dst, " size="...), n.Size, 10)
	}
	if n.Fill != nil {
		dst = fmt.Appendf(dst, " fill=%d", *n.Fill)
	}
	if n.SHA256 != "" {
		dst = append(append(dst, " sha256="...), n.SHA256...)
	}
	if n.Sparse != nil {
		dst = append(dst, " sparse="...)
		for i, s := range n.Sparse {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = fmt.Appendf(dst, "%d+%d", s.Offset, s.Length)
		}
	}
	return dst
}

// String is the time as in pax: decimal seconds, the fraction without trailing zeros. -0.5 is half a second before 1970.
func (t Time) String() string { return string(t.append(nil)) }

func (t Time) append(dst []byte) []byte {
	sec, nsec := t.Sec, t.Nsec
	if sec < 0 && nsec > 0 {
		sec, nsec = sec+1, 1e9-nsec
		if sec == 0 {
			dst = append(dst, '-')
		}
	}
	dst = strconv.AppendInt(dst, sec, 10)
	if nsec == 0 {
		return dst
	}
	point := len(dst)
	dst = strconv.AppendUint(dst, 1e9+uint64(nsec), 10) // the 1 keeps the leading zeros
	dst[point] = '.'
	return bytes.TrimRight(dst, "0")
}

// Text is the lines of nodes, each ended by a newline.
func Text(nodes []Node) string {
	var b []byte
	for _, n := range nodes {
		b = append(n.AppendLine(b), '\n')
	}
	return string(b)
}

// appendName appends a name or a link target, quoted unless it is visible throughout.
func appendName(dst []byte, name string) []byte {
	if visible(name) {
		return append(dst, name...)
	}
	return strconv.AppendQuote(dst, name)
}

// visible tells whether s can stand in a line as it is: valid UTF-8, not empty, nothing but visible characters, and
// neither quotes nor backslashes.
func visible(s string) bool {
	if s == "" || !utf8.ValidString(s) {
		return false
	}
	for i, r := range s {
		if r < utf8.RuneSelf && plain[s[i]] {
			continue
		}
		if !unicode.IsPrint(r) || unicode.IsSpace(r) || r == '"' || r == '\\' {
			return false
		}
	}
	return true
}

// plain are the ASCII bytes that are visible and need no quotes.
var plain = func() (t [utf8.RuneSelf]bool) {
	for c := '!'; c <= '~'; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// Quote returns a name as lines have it: as it is when all of it is visible, else quoted as in Go.
func Quote(name string) string { return string(appendName(nil, name)) }
