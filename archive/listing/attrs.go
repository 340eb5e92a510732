package listing

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/nsferry/nsferry/acl"
)

func (f *fields) attrs(n *Node) error {
	seen := map[string]bool{}
	for f.skip(); f.rest != ""; f.skip() {
		word, err := f.next()
		if err != nil {
			return err
		}
		key, value, ok := cutAttr(word)
		if word[0] == '"' {
			key, value = "content", word
		} else if !ok {
			return fmt.Errorf("%s is not KEY=VALUE", word)
		}
		if seen[key] {
			return fmt.Errorf("%s is given twice", key)
		}
		seen[key] = true
		if err := n.set(key, value, seen); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	slices.SortFunc(n.Xattrs, func(a, b Xattr) int { return cmp.Compare(a.Key, b.Key) })
	return nil
}

// cutAttr splits KEY=VALUE, where KEY may be xattr:"…=…".
func cutAttr(word string) (key, value string, ok bool) {
	if rest, is := strings.CutPrefix(word, `xattr:"`); is {
		if quoted, err := strconv.QuotedPrefix(`"` + rest); err == nil {
			key = "xattr:" + quoted
			value, ok = strings.CutPrefix(word[len(key):], "=")
			return key, value, ok
		}
	}
	return strings.Cut(word, "=")
}

// set puts one attribute into the node.
func (n *Node) set(key, value string, seen map[string]bool) (err error) {
	if name, ok := strings.CutPrefix(key, "xattr:"); ok {
		return n.addXattr(name, value)
	}
	switch key {
	case "mtime":
		n.MTime, err = ParseTime(value)
	case "acl":
		n.ACL, err = parseACL(value)
	case "default":
		n.Default, err = parseACL(value)
	case "cap":
		n.Cap, err = parseCap(value)
	case "content":
		var s string
		s, err = unquote(value)
		n.Content, n.Size = []byte(s), int64(len(s))
	case "size":
		n.Size, err = parseLength(value)
	case "fill":
		n.Fill = new(uint64)
		*n.Fill, err = strconv.ParseUint(value, 10, 64)
	case "sha256":
		n.SHA256 = value
		if raw, err := hex.DecodeString(value); err != nil || len(raw) != 32 || strings.ToLower(value) != value {
			return errors.New("not 64 lower-case hex digits")
		}
	case "sparse":
		n.Sparse, err = parseSegments(value)
	default:
		err = errors.New("no such attribute")
	}
	switch {
	case err != nil:
		return err
	case key == "default" && n.Type != Dir:
		return errors.New("only directories have it")
	case slices.Contains([]string{"content", "size", "fill", "sha256", "sparse"}, key) && n.Type != File:
		return errors.New("only files have it")
	case seen["content"] && (seen["size"] || seen["fill"]):
		return errors.New("content is given twice")
	}
	return nil
}

// parseACL reads an ACL in any of setfacl's forms and returns the short one.
func parseACL(text string) (string, error) {
	a, err := acl.Parse(text, nil)
	if err == nil {
		err = a.Validate()
	}
	return a.Short(), err
}

func (n *Node) addXattr(name, value string) (err error) {
	if name != "" && name[0] == '"' {
		if name, err = unquote(name); err != nil {
			return err
		}
	}
	x := Xattr{Key: name}
	digits, isHex := strings.CutPrefix(value, "0x")
	switch {
	case name == "" || strings.Contains(name, "\x00"):
		return errors.New("bad key")
	case isHex:
		x.Value, err = hex.DecodeString(digits)
	case value != "" && value[0] == '"':
		var s string
		s, err = unquote(value)
		x.Value = []byte(s)
	default:
		return errors.New(`the value is neither 0xHEX nor "TEXT"`)
	}
	if slices.ContainsFunc(n.Xattrs, func(o Xattr) bool { return o.Key == x.Key }) {
		return errors.New("given twice")
	}
	n.Xattrs = append(n.Xattrs, x)
	return err
}

// ParseTime reads decimal seconds with up to nine digits of fraction.
func ParseTime(s string) (*Time, error) {
	whole, fraction, dotted := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || len(fraction) > 9 || dotted && fraction == "" {
		return nil, fmt.Errorf("bad time: %s", s)
	}
	nsec, err := strconv.ParseUint((fraction + "000000000")[:9], 10, 32)
	if err != nil {
		return nil, fmt.Errorf("bad time: %s", s)
	}
	if nsec > 0 && whole[0] == '-' {
		if sec == math.MinInt64 {
			return nil, fmt.Errorf("bad time: %s", s)
		}
		sec, nsec = sec-1, 1e9-nsec
	}
	return &Time{Sec: sec, Nsec: uint32(nsec)}, nil
}

func parseLength(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("bad length: %s", s)
	}
	return int64(n), nil
}

func parseSegments(s string) ([]Segment, error) {
	segments := []Segment{}
	if s == "" {
		return segments, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		left, right, _ := strings.Cut(part, "+")
		off, errOff := parseLength(left)
		length, errLen := parseLength(right)
		if errOff != nil || errLen != nil || length == 0 || off > math.MaxInt64-length {
			return nil, fmt.Errorf("bad segment: %s", part)
		}
		segments = append(segments, Segment{off, length})
	}
	return segments, nil
}

// checkContent refuses content that contradicts itself.
func (n *Node) checkContent() error {
	end := int64(0)
	for _, s := range n.Sparse {
		if s.Offset < end {
			return errors.New("sparse: segments overlap or are out of order")
		}
		end = s.Offset + s.Length
		if end > n.Size {
			return fmt.Errorf("sparse: data beyond the size %d", n.Size)
		}
	}
	if n.Content == nil || n.Sparse == nil {
		return nil
	}
	data := int64(0)
	for _, s := range append(slices.Clip(n.Sparse), Segment{Offset: n.Size}) {
		if len(bytes.Trim(n.Content[data:s.Offset], "\x00")) > 0 {
			return errors.New("sparse: there is text in a hole")
		}
		data = s.Offset + s.Length
	}
	return nil
}
