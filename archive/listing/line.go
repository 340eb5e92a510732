package listing

import (
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
	dst = fmt.Appendf(dst, "%-8s ", n.Type)
	dst = appendName(dst, n.Name)
	switch n.Type {
	case Hardlink:
		return appendName(append(dst, ' '), n.Target)
	case Symlink:
		dst = fmt.Appendf(dst, " %d:%d ", n.UID, n.GID)
		dst = appendName(dst, n.Target)
	case Char, Block:
		dst = fmt.Appendf(dst, " %d:%d %03o %d:%d", n.UID, n.GID, n.Mode, n.Major, n.Minor)
	default:
		dst = fmt.Appendf(dst, " %d:%d %03o", n.UID, n.GID, n.Mode)
	}
	dst = n.appendAttrs(dst)
	if n.Type == File {
		dst = n.appendContent(dst)
	}
	return dst
}

func (n Node) appendAttrs(dst []byte) []byte {
	if n.MTime != nil {
		dst = append(dst, " mtime="+n.MTime.String()...)
	}
	if n.ACL != "" {
		dst = append(dst, " acl="+n.ACL...)
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
		dst = fmt.Appendf(dst, " size=%d", n.Size)
	}
	if n.Fill != nil {
		dst = fmt.Appendf(dst, " fill=%d", *n.Fill)
	}
	if n.SHA256 != "" {
		dst = append(dst, " sha256="+n.SHA256...)
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
func (t Time) String() string {
	sign, sec, nsec := "", t.Sec, t.Nsec
	if sec < 0 && nsec > 0 {
		sec, nsec = sec+1, 1e9-nsec
		if sec == 0 {
			sign = "-"
		}
	}
	s := sign + strconv.FormatInt(sec, 10)
	if nsec == 0 {
		return s
	}
	return s + "." + strings.TrimRight(fmt.Sprintf("%09d", nsec), "0")
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
	for _, r := range s {
		if !unicode.IsPrint(r) || unicode.IsSpace(r) || r == '"' || r == '\\' {
			return false
		}
	}
	return true
}

// Quote returns a name as lines have it: as it is when all of it is visible, else quoted as in Go.
func Quote(name string) string { return string(appendName(nil, name)) }
