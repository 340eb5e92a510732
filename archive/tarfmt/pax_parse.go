package tarfmt

import (
	"bytes"
	"errors"
	"fmt"
	"math"
)

// scope tells a global pax header from that of one entry.
type scope bool

const (
	local  scope = false
	global scope = true
)

// Bits of paxState.has: numeric records in force.
const (
	hasUID = 1 << iota
	hasGID
	hasSize
	hasMTime
	hasDevMajor
	hasDevMinor
	hasRealSize // of GNU.sparse
	hasStarSize // SCHILY.realsize
	hasMajor
	hasBlocks
)

// paxState is the sum of the pax records in force for an entry. Of equal keys the last one counts; an empty value takes
// back what an earlier record or the global header has said, so that the ustar field counts again.
type paxState struct {
	has                     uint16
	path, link, comment     string
	acl, defaultACL         string
	uid, gid                uint32
	devMajor, devMinor      uint32
	size, realSize, starLen int64
	mtime                   Time
	xattrs                  []Xattr // SCHILY.xattr.*, in order, with duplicates
	archived                []Xattr // LIBARCHIVE.xattr.*, likewise
	sparse                  paxSparse
}

// parse takes in the records of one pax header.
func (p *paxState) parse(data []byte, s scope, maxSegments int) error {
	for len(data) > 0 {
		key, value, rest, err := cutRecord(data)
		if err != nil {
			return err
		}
		if err := p.record(key, value, s, maxSegments); err != nil {
			return fmt.Errorf("pax record %q: %w", key, err)
		}
		data = rest
	}
	return nil
}

// cutRecord splits "LENGTH KEY=VALUE\n" off data.
func cutRecord(data []byte) (key, value, rest []byte, err error) {
	bad := errors.New("pax header is malformed")
	space := bytes.IndexByte(data[:min(len(data), 20)], ' ')
	if space < 0 {
		return nil, nil, nil, bad
	}
	n, err := parseDecimal(data[:space])
	if err != nil || n > int64(len(data)) || n < int64(space)+3 || data[n-1] != '\n' {
		return nil, nil, nil, bad
	}
	key, value, ok := bytes.Cut(data[space+1:n-1], []byte{'='})
	if !ok || len(key) == 0 {
		return nil, nil, nil, bad
	}
	return key, value, data[n:], nil
}

// record takes in one record. Unknown keys are ignored, as POSIX wants; among them atime, ctime, uname, gname, hdrcharset
// (names are bytes here), and RHT.security.selinux (a label of the machine that packed).
func (p *paxState) record(key, value []byte, s scope, maxSegments int) error {
	switch string(key) {
	case "path":
		return setText(&p.path, value)
	case "linkpath":
		return setText(&p.link, value)
	case "comment":
		if s == local {
			p.comment = string(value)
		}
	case "SCHILY.acl.access":
		return setText(&p.acl, value)
	case "SCHILY.acl.default":
		return setText(&p.defaultACL, value)
	case "mtime":
		return p.setTime(value)
	case "uid":
		return p.setID(&p.uid, hasUID, value)
	case "gid":
		return p.setID(&p.gid, hasGID, value)
	case "SCHILY.devmajor":
		return p.setID(&p.devMajor, hasDevMajor, value)
	case "SCHILY.devminor":
		return p.setID(&p.devMinor, hasDevMinor, value)
	case "size":
		return p.setInt(&p.size, hasSize, value)
	case "SCHILY.realsize":
		return p.setInt(&p.starLen, hasStarSize, value)
	}
	if name, ok := bytes.CutPrefix(key, []byte("SCHILY.xattr.")); ok {
		return p.addXattr(name, value)
	}
	if name, ok := bytes.CutPrefix(key, []byte("LIBARCHIVE.xattr.")); ok {
		return p.addArchived(name, value)
	}
	if name, ok := bytes.CutPrefix(key, []byte("GNU.sparse.")); ok {
		if s == global {
			return errors.New("not allowed in a global header")
		}
		return p.sparseRecord(name, value, maxSegments)
	}
	return nil
}

func setText(dst *string, value []byte) error {
	if bytes.IndexByte(value, 0) >= 0 {
		return errors.New("value holds a NUL")
	}
	*dst = string(value)
	return nil
}

// empty takes a numeric record back when its value is empty, and else marks it as present.
func (p *paxState) empty(bit uint16, value []byte) bool {
	if len(value) == 0 {
		p.has &^= bit
		return true
	}
	p.has |= bit
	return false
}

func (p *paxState) setInt(dst *int64, bit uint16, value []byte) (err error) {
	if p.empty(bit, value) {
		return nil
	}
	*dst, err = parseDecimal(value)
	return err
}

func (p *paxState) setID(dst *uint32, bit uint16, value []byte) error {
	if p.empty(bit, value) {
		return nil
	}
	n, err := parseDecimal(value)
	if err != nil {
		return fmt.Errorf("%q: %w", value, err)
	}
	*dst, err = id32(n)
	return err
}

func (p *paxState) setTime(value []byte) (err error) {
	if !p.empty(hasMTime, value) {
		p.mtime, err = parseTime(value)
	}
	return err
}

// id32 admits 0 to 4294967294: the last number of 32 bits means "no id" to chown(2).
func id32(n int64) (uint32, error) {
	if n < 0 || n >= math.MaxUint32 {
		return 0, fmt.Errorf("id %d is out of range", n)
	}
	return uint32(n), nil
}
