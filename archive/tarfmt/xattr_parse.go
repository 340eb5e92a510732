package tarfmt

import (
	"bytes"
	"encoding/base64"
	"errors"
	"slices"
	"strconv"
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
	return addTo(&p.archived, unescapeURL(string(key)), raw)
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
	written := make(map[string]bool, len(p.archived))
	for _, x := range p.archived {
		written[x.Key+"="+string(x.Value)] = true
	}
	out := make([]Xattr, 0, len(p.xattrs)+len(p.archived))
	for _, x := range p.xattrs {
		if len(written) > 0 && written[x.Key+"="+string(x.Value)] {
			continue
		}
		x.Key = unescapeGNU(x.Key)
		out = append(out, x)
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

// unescapeGNU undoes escapeKey. As in GNU tar, every other "%" stands for itself.
func unescapeGNU(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	return strings.NewReplacer("%25", "%", "%3D", "=").Replace(s)
}

// unescapeURL replaces each %XX by the byte it stands for, as libarchive encodes attribute names.
func unescapeURL(s string) string {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				out = append(out, byte(c))
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}
