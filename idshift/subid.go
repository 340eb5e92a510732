package idshift

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
)

// firstSubID is SUB_UID_MIN and SUB_GID_MIN of login.defs(5) unless changed.
const firstSubID = 100000

// subID is a line "owner:first:count" of a sub-id file; owner is a user's name or uid, in /etc/subgid too (subgid(5)).
type subID struct {
	owner string
	line  int
	Range
	// bad says what is wrong with the line; the range is then empty.
	bad error
}

// parseSubIDs reads a sub-id file. Blank lines and lines that begin with "#" are left out; a line end may be CRLF. A line
// that cannot be read comes back with its owner, as far as it has one, because only the owner's lines matter.
func parseSubIDs(r io.Reader) ([]subID, error) {
	var out []subID
	s := bufio.NewScanner(r)
	for n := 1; s.Scan(); n++ {
		text := strings.TrimSpace(s.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		f := strings.Split(text, ":")
		id := subID{owner: f[0], line: n}
		if len(f) != 3 {
			id.bad = fmt.Errorf("%q is not OWNER:FIRST:COUNT", text)
		} else {
			id.Range, id.bad = parseRange(f[1], f[2])
		}
		out = append(out, id)
	}
	return out, s.Err()
}

// parseRange reads two decimal numbers and refuses a range that is empty or goes beyond the last id.
func parseRange(first, count string) (Range, error) {
	var r Range
	var err error
	if r.First, err = parseID(first); err != nil {
		return Range{}, err
	}
	if r.Count, err = parseID(count); err != nil {
		return Range{}, err
	}
	switch {
	case r.Count == 0:
		return Range{}, fmt.Errorf("a range of 0 ids")
	case r.end() > uint64(maxID)+1:
		return Range{}, fmt.Errorf("%d ids from %d on go beyond id %d", r.Count, r.First, maxID)
	}
	return r, nil
}

// own returns the ranges of the lines whose owner is among names, in order, each id once, and notes on lines that overlap. A
// bad line of one of names is an error with its place; those of others, and lines that show no owner, do not matter.
func own(file string, lines []subID, names []string) (ranges []Range, notes []string, err error) {
	for i, l := range lines {
		if !slices.Contains(names, l.owner) {
			continue
		}
		if l.bad != nil {
			return nil, nil, fmt.Errorf("%s:%d: %w", file, l.line, l.bad)
		}
		for j, o := range lines {
			first, end := max(l.First, o.First), min(l.end(), o.end())
			mine := slices.Contains(names, o.owner)
			if i == j || o.bad != nil || uint64(first) >= end || (mine && j > i) {
				continue
			}
			what := "which are counted once"
			if !mine {
				what = fmt.Sprintf("which belong to %q as well: each can change the other's files", o.owner)
			}
			notes = append(notes, fmt.Sprintf("%s:%d: shares ids %d to %d with line %d, %s", file, l.line, first, end-1, o.line, what))
		}
		ranges = append(ranges, without(l.Range, ranges)...)
	}
	return ranges, notes, nil
}

// freeID returns the first id from firstSubID on that begins usualCount ids which no line names; 0 when there are none.
func freeID(lines []subID) uint32 {
	lines = slices.Clone(lines)
	slices.SortFunc(lines, func(x, y subID) int { return cmp.Compare(x.First, y.First) })
	at := uint64(firstSubID)
	for _, l := range lines {
		if uint64(l.First) < at+usualCount && l.end() > at {
			at = l.end()
		}
	}
	if at+usualCount > uint64(maxID)+1 {
		return 0
	}
	return uint32(at)
}
