//go:build linux

package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Explanation says why a key is a miss, and what there is instead.
type Explanation struct {
	Key     string   `json:"key"`
	Hit     bool     `json:"hit"`
	Reason  string   `json:"reason,omitempty"`
	Moved   []string `json:"moved,omitempty"` // earlier entries of this key that were odd
	Nearest []Near   `json:"nearest,omitempty"`
}

// Near is an entry whose key is much like the one asked for.
type Near struct {
	Key     string   `json:"key"`
	Used    int64    `json:"used"`    // last use, seconds since the epoch
	Differs []string `json:"differs"` // "PV: 1.0 is asked for, 1.1 is there", a line for each part
}

// mostNear is how many entries are told.
const mostNear = 5

// Explain looks the key up, and for those that are most like it.
func (s *Store) Explain(ctx context.Context, key Key) (x Explanation, err error) {
	x.Key = key.text
	o, err := s.Peek(ctx, key)
	var miss *MissError
	switch {
	case err == nil:
		x.Hit = true
		return x, o.Close()
	case !errors.As(err, &miss):
		return x, err
	}
	x.Reason = miss.Reason
	if x.Moved, err = filepath.Glob(filepath.Join(globEscape(s.path(quarantineDir)), "*", globEscape(key.Name()))); err != nil {
		return x, err
	}
	all, err := s.List()
	if err != nil {
		return x, err
	}
	all = slices.DeleteFunc(all, func(e Entry) bool { return e.Key.text == key.text || !key.near(e.Key) })
	slices.SortStableFunc(all, func(a, b Entry) int { return key.distance(a.Key) - key.distance(b.Key) })
	for _, e := range all[:min(len(all), mostNear)] {
		x.Nearest = append(x.Nearest, Near{Key: e.Key.text, Used: e.Used.Unix(), Differs: key.differences(e.Key)})
	}
	return x, nil
}

func globEscape(s string) string {
	return strings.NewReplacer("*", `\*`, "?", `\?`, "[", `\[`, `\`, `\\`).Replace(s)
}

// parts are the named parts of the key, those first that say most about what it is.
func (s SState) parts() [][2]string {
	return [][2]string{{"PN", s.PN}, {"task", s.Task}, {"arch", s.Arch}, {"package arch", s.PkgArch}, {"version", s.Version}, {"PV", s.PV}, {"PR", s.PR}, {"unihash", s.Unihash}}
}

// near tells whether the other key may be of interest to somebody who looked for this one.
func (k Key) near(other Key) bool {
	a, ok := k.SState()
	b, same := other.SState()
	if ok != same {
		return false
	}
	if ok {
		return a.PN == b.PN || strings.EqualFold(a.PN, b.PN)
	}
	return 3*edits(k.text, other.text) <= max(len(k.text), len(other.text))+3
}

// distance is small for keys that are alike.
func (k Key) distance(other Key) int {
	a, ok := k.SState()
	b, _ := other.SState()
	if !ok {
		return edits(k.text, other.text)
	}
	sum := 0
	parts, others := a.parts(), b.parts()
	for i := range parts {
		if parts[i] != others[i] {
			sum += 1 << (len(parts) - i)
		}
	}
	return sum
}

// differences says which parts are others.
func (k Key) differences(other Key) (lines []string) {
	a, ok := k.SState()
	b, _ := other.SState()
	if !ok {
		return []string{fmt.Sprintf("name: %s is asked for, %s is there", k.text, other.text)}
	}
	parts, others := a.parts(), b.parts()
	for i, p := range parts {
		if p != others[i] {
			lines = append(lines, fmt.Sprintf("%s: %q is asked for, %q is there", p[0], p[1], others[i][1]))
		}
	}
	return lines
}

// edits is the number of bytes to insert, remove or change to make one string of the other (Levenshtein).
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := corner
			if a[i] != b[j] {
				cost++
			}
			corner = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
