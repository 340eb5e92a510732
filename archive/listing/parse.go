package listing

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Parse reads lines, leaving out empty ones and those that begin with "#". The error names the line by its number.
func Parse(text string) ([]Node, error) {
	var nodes []Node
	number := 0
	for line := range strings.SplitSeq(text, "\n") {
		number++
		if trimmed := strings.TrimSpace(line); trimmed == "" || trimmed[0] == '#' {
			continue
		}
		n, err := ParseLine(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// ParseLine reads one line. It takes more than Line writes: any blanks, attributes in any order, text for xattrs.
func ParseLine(line string) (Node, error) {
	f := fields{rest: line}
	n, err := f.node()
	if err != nil {
		return Node{}, fmt.Errorf("tree line %q: %w", line, err)
	}
	return n, nil
}

// fields takes a line apart from its left end.
type fields struct{ rest string }

func (f *fields) node() (n Node, err error) {
	word, err := f.next()
	if err != nil {
		return n, err
	}
	n.Type = Type(word)
	switch n.Type {
	case Dir, File, Hardlink, Symlink, Fifo, Sock, Char, Block:
	default:
		return n, fmt.Errorf("no such type: %s", word)
	}
	if n.Name, err = f.text(); err != nil {
		return n, err
	}
	if err := checkName(n.Name); err != nil {
		return n, err
	}
	if n.Type == Hardlink {
		return n, f.hardlink(&n)
	}
	if n.UID, n.GID, err = f.pair("owner", math.MaxUint32-1); err != nil {
		return n, err
	}
	if n.Type == Symlink {
		n.Target, err = f.text()
		if err == nil && (n.Target == "" || strings.Contains(n.Target, "\x00")) {
			err = fmt.Errorf("bad target %q", n.Target)
		}
	} else {
		n.Mode, err = f.mode()
	}
	if err == nil && (n.Type == Char || n.Type == Block) {
		n.Major, n.Minor, err = f.pair("device number", math.MaxUint32)
	}
	if err != nil {
		return n, err
	}
	if err := f.attrs(&n); err != nil {
		return n, err
	}
	return n, n.checkContent()
}

func (f *fields) hardlink(n *Node) (err error) {
	if n.Target, err = f.text(); err != nil {
		return err
	}
	if f.skip(); f.rest != "" {
		return fmt.Errorf("a hard link has no attributes: %s", f.rest)
	}
	return checkName(n.Target)
}

// checkName refuses what is not the clean name of something in a tree.
func checkName(name string) error {
	if name == "." {
		return nil
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." || strings.Contains(part, "\x00") {
			return fmt.Errorf("bad name %q", name)
		}
	}
	return nil
}

func (f *fields) skip() { f.rest = strings.TrimLeft(f.rest, " \t\r") }

// next returns the next field as written. A quoted string in it may hold blanks.
func (f *fields) next() (string, error) {
	f.skip()
	i := 0
	for i < len(f.rest) && !strings.ContainsRune(" \t\r", rune(f.rest[i])) {
		if f.rest[i] != '"' {
			i++
			continue
		}
		quoted, err := strconv.QuotedPrefix(f.rest[i:])
		if err != nil {
			return "", fmt.Errorf("bad quoting: %s", f.rest[i:])
		}
		i += len(quoted)
	}
	if i == 0 {
		return "", errors.New("something is missing at the end")
	}
	word := f.rest[:i]
	f.rest = f.rest[i:]
	return word, nil
}

// text returns the next field with its quotes undone.
func (f *fields) text() (string, error) {
	word, err := f.next()
	if err != nil || word[0] != '"' {
		if err == nil && strings.ContainsAny(word, `"\`) {
			err = fmt.Errorf("quotes and backslashes stand in quotes: %s", word)
		}
		return word, err
	}
	return unquote(word)
}

func unquote(word string) (string, error) {
	s, err := strconv.Unquote(word)
	if err != nil {
		return "", fmt.Errorf("bad quoting: %s", word)
	}
	return s, nil
}

// pair reads two numbers with a colon between them, each at most limit.
func (f *fields) pair(what string, limit uint64) (uint32, uint32, error) {
	word, err := f.next()
	if err != nil {
		return 0, 0, err
	}
	left, right, _ := strings.Cut(word, ":")
	a, errA := strconv.ParseUint(left, 10, 32)
	b, errB := strconv.ParseUint(right, 10, 32)
	if errA != nil || errB != nil || a > limit || b > limit {
		return 0, 0, fmt.Errorf("bad %s: %s", what, word)
	}
	return uint32(a), uint32(b), nil
}

func (f *fields) mode() (uint32, error) {
	word, err := f.next()
	if err != nil {
		return 0, err
	}
	m, err := strconv.ParseUint(word, 8, 12)
	if err != nil {
		return 0, fmt.Errorf("bad mode: %s", word)
	}
	return uint32(m), nil
}
