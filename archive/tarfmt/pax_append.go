package tarfmt

import (
	"slices"
	"strconv"
	"strings"
)

// appendLong appends a GNU long name ('L') or long link ('K') header and its block(s) with the NUL-terminated name.
func appendLong(dst []byte, flag byte, name string) []byte {
	b := auxiliary("././@LongLink", flag, len(name)+1)
	dst = append(dst, b[:]...)
	dst = append(append(dst, name...), 0)
	return append(dst, Trailer[:Padding(int64(len(name)+1))]...)
}

// appendPax appends the pax header, or nothing when no record is needed. longName and longLink tell whether
// path and linkpath have to be among the records.
func (h *Header) appendPax(dst []byte, longName, longLink bool) []byte {
	start := len(dst)
	dst = append(dst, Trailer[:BlockSize]...)
	body := len(dst)
	if h.Type == Link {
		dst = h.appendNames(dst, longName, longLink)
	} else {
		dst = h.appendRecords(dst, longName, longLink)
	}
	size := len(dst) - body
	if size == 0 {
		return dst[:start]
	}
	b := auxiliary("././@PaxHeader", 'x', size)
	copy(dst[start:], b[:])
	return append(dst, Trailer[:Padding(int64(size))]...)
}

func (h *Header) appendNames(dst []byte, longName, longLink bool) []byte {
	if longLink {
		dst = appendRecord(dst, "linkpath", "", h.Link)
	}
	if longName {
		dst = appendRecord(dst, "path", "", h.Name)
	}
	return dst
}

// appendRecords appends all records the entry needs, ordered by key (xattrs by their plain key).
func (h *Header) appendRecords(dst []byte, longName, longLink bool) []byte {
	if h.Sparse != nil {
		dst = appendRecord(dst, "GNU.sparse.major", "", "1")
		dst = appendRecord(dst, "GNU.sparse.minor", "", "0")
		dst = appendInt(dst, "GNU.sparse.realsize", h.Size)
	}
	if h.ACL != "" {
		dst = appendRecord(dst, "SCHILY.acl.access", "", h.ACL)
	}
	if h.DefaultACL != "" {
		dst = appendRecord(dst, "SCHILY.acl.default", "", h.DefaultACL)
	}
	for _, x := range h.Xattrs {
		dst = appendRecord(dst, "SCHILY.xattr.", escapeKey(x.Key), x.Value)
	}
	if h.Comment != "" {
		dst = appendRecord(dst, "comment", "", h.Comment)
	}
	if h.GID > maxOctal7 {
		dst = appendInt(dst, "gid", int64(h.GID))
	}
	if longLink {
		dst = appendRecord(dst, "linkpath", "", h.Link)
	}
	if t := h.ModTime; t.Nsec != 0 || t.Sec < 0 || t.Sec > maxOctal {
		var buf [32]byte
		dst = appendRecord(dst, "mtime", "", t.append(buf[:0]))
	}
	if longName {
		dst = appendRecord(dst, "path", "", h.Name)
	}
	if n := h.Stored(); n > maxOctal {
		dst = appendInt(dst, "size", n)
	}
	if h.UID > maxOctal7 {
		dst = appendInt(dst, "uid", int64(h.UID))
	}
	return dst
}

func appendInt(dst []byte, key string, n int64) []byte {
	var buf [20]byte
	return appendRecord(dst, key, "", strconv.AppendInt(buf[:0], n, 10))
}

// appendRecord appends "LENGTH KEY=VALUE\n", where LENGTH counts its own digits too. The key comes in two parts.
func appendRecord[V string | []byte](dst []byte, key, key2 string, value V) []byte {
	rest := len(key) + len(key2) + len(value) + 3 // space, "=", newline
	n := rest + decimals(int64(rest))
	if d := decimals(int64(n)); d != n-rest {
		n = rest + d
	}
	dst = strconv.AppendInt(slices.Grow(dst, n), int64(n), 10)
	dst = append(dst, ' ')
	dst = append(dst, key...)
	dst = append(dst, key2...)
	dst = append(dst, '=')
	dst = append(dst, value...)
	return append(dst, '\n')
}

// escapeKey writes "%" and "=" of an xattr key as GNU tar does: a record's key ends at its first "=".
func escapeKey(key string) string {
	if !strings.ContainsAny(key, "%=") {
		return key
	}
	return strings.ReplaceAll(strings.ReplaceAll(key, "%", "%25"), "=", "%3D")
}
