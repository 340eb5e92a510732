package idshift

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// ParseProcMap reads /proc/PID/uid_map or gid_map: lines of inside, outside and count in columns (user_namespaces(7)). The
// outside ids are those of the namespace of whoever opened the file. The lines stay as they are, see Map.Under. A map not yet
// written is empty.
func ParseProcMap(r io.Reader) (Map, error) {
	var ext []Extent
	s := bufio.NewScanner(r)
	for s.Scan() {
		e, err := parseExtent(s.Text(), strings.Fields(s.Text()))
		if err != nil {
			return Map{}, err
		}
		ext = append(ext, e)
	}
	if err := s.Err(); err != nil {
		return Map{}, fmt.Errorf("read id map: %w", err)
	}
	return exactMap(ext)
}

// ParseSpec reads the value of --map: a comma separated list of [u:|g:]INSIDE:OUTSIDE:COUNT, where an extent without a prefix
// is for both kinds. A list that leaves one kind without ids is an error.
func ParseSpec(spec string) (Mapping, error) {
	var uid, gid []Extent
	for s := range strings.SplitSeq(spec, ",") {
		ids, kind := strings.TrimSpace(s), ""
		if p, rest, ok := strings.Cut(ids, ":"); ok && (p == "u" || p == "g") {
			ids, kind = rest, p
		}
		e, err := parseExtent(s, strings.Split(ids, ":"))
		if err != nil {
			return Mapping{}, err
		}
		if kind != "g" {
			uid = append(uid, e)
		}
		if kind != "u" {
			gid = append(gid, e)
		}
	}
	var m Mapping
	var err error
	if m.UID, err = specMap(spec, UID, uid); err != nil {
		return Mapping{}, err
	}
	if m.GID, err = specMap(spec, GID, gid); err != nil {
		return Mapping{}, err
	}
	return m, nil
}

// specMap builds the map of one kind from its part of the spec.
func specMap(spec string, k Kind, ext []Extent) (Map, error) {
	if len(ext) == 0 {
		return Map{}, fmt.Errorf("map %q: nothing for %ss", spec, k)
	}
	m, err := NewMap(ext...)
	if err != nil {
		return Map{}, fmt.Errorf("%s %w", k, err)
	}
	return m, nil
}

// parseExtent reads the three numbers inside, outside and count; text is what the error shows.
func parseExtent(text string, f []string) (Extent, error) {
	if len(f) != 3 {
		return Extent{}, fmt.Errorf("map %q: not INSIDE:OUTSIDE:COUNT", text)
	}
	var n [3]uint32
	for i := range f {
		var err error
		if n[i], err = parseID(f[i]); err != nil {
			return Extent{}, fmt.Errorf("map %q: %w", text, err)
		}
	}
	return Extent{Inside: n[0], Outside: n[1], Count: n[2]}, nil
}

// parseID reads a decimal number of 32 bits: digits only, no sign, no prefix. Whether 4294967295 is allowed is the caller's
// affair, since it can be a count.
func parseID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number from 0 to 4294967295", s)
	}
	return uint32(n), nil
}
