package toc

import (
	"fmt"
	"math"
	"strings"

	"github.com/nsferry/nsferry/archive/zframe"
)

// seen notes which fields a line has, to refuse one that is there twice.
type seen uint32

// fields calls set for each field of the line's object. set returns the field's number, having read its value, or -1
// for a field that it does not know.
func (s *scanner) fields(set func(key []byte) int) (have seen) {
	s.want('{')
	for first := true; ; {
		key, ok := s.key(&first)
		if !ok {
			break
		}
		bit := set(key)
		if bit < 0 {
			s.skip()
			continue
		}
		if have&(1<<bit) != 0 {
			s.fail("field %q is there twice", key)
		}
		have |= 1 << bit
	}
	s.end()
	return have
}

func parseHeader(line []byte) (h Header, err error) {
	s := scanner{line: line}
	version := int64(0)
	s.fields(func(key []byte) int {
		switch string(key) {
		case "nsferry":
			version = s.integer(1, math.MaxInt64)
			if s.err == nil && version != Version {
				s.fail("version %d of the format; this nsferry reads version %d", version, Version)
			}
			return 0
		case "encoder":
			h.Encoder = s.text()
			return 1
		case "entries":
			h.Entries = s.integer(1, math.MaxInt64)
			return 2
		case "frames":
			h.Frames = s.integer(1, zframe.MaxFrames)
			return 3
		case "raw":
			h.Raw = s.integer(1, math.MaxInt64)
			return 4
		case "end":
			h.End = s.integer(1, math.MaxInt64)
			return 5
		case "policy":
			h.Policy = s.policy()
			return 6
		}
		return -1
	})
	if s.err == nil && (version == 0 || h.Encoder == "") {
		s.fail("version or encoder is missing")
	}
	return h, s.err
}

func (s *scanner) policy() map[string]string {
	out := map[string]string{}
	s.want('{')
	for first := true; ; {
		raw, ok := s.key(&first)
		if !ok {
			return out
		}
		key := s.unescape(raw)
		if _, twice := out[key]; twice {
			s.fail("policy %q is there twice", key)
		}
		out[key] = s.text()
	}
}

func parseFrame(line []byte) (number int64, f zframe.Frame, err error) {
	s := scanner{line: line}
	have := s.fields(func(key []byte) int {
		switch string(key) {
		case "F":
			number = s.integer(0, zframe.MaxFrames)
			return 0
		case "i":
			f.Identity = s.digest()
			return 1
		case "r":
			f.Raw = s.integer(1, zframe.MaxRaw)
			return 2
		case "c":
			f.Stored = s.integer(1, zframe.MaxStored)
			return 3
		case "h":
			f.Sum = s.digest()
			return 4
		}
		return -1
	})
	if s.err == nil && have != 1<<5-1 {
		s.fail("a field of the frame is missing")
	}
	return number, f, s.err
}

// The fields of an entry, as bits of seen.
const (
	fieldName = iota
	fieldType
	fieldMode
	fieldUID
	fieldGID
	fieldSize
	fieldTime
	fieldLink
	fieldDigest
	fieldDev
	fieldXattrs
	fieldACL
	fieldDefault
	fieldSparse
	fieldFrame
	fieldOffset
	fieldHeader
)

func parseEntry(line []byte, e *Entry) error {
	*e = Entry{}
	s := scanner{line: line}
	have := s.fields(func(key []byte) int { return s.entryField(e, key) })
	if s.err != nil {
		return s.err
	}
	return e.check(have)
}

// entryField reads the value of one field into e. Ids are 32-bit without the last, which is no id (chown(2)).
func (s *scanner) entryField(e *Entry, key []byte) int {
	switch string(key) {
	case "n":
		e.Name = s.text()
		return fieldName
	case "t":
		if raw := s.quoted(); len(raw) == 1 && strings.IndexByte("fhlcbdp", raw[0]) >= 0 {
			e.Type = Type(raw[0])
		} else {
			s.fail("want a type")
		}
		return fieldType
	case "m":
		e.Mode = uint32(s.integer(0, 0o7777))
		return fieldMode
	case "u":
		e.UID = uint32(s.integer(0, math.MaxUint32-1))
		return fieldUID
	case "g":
		e.GID = uint32(s.integer(0, math.MaxUint32-1))
		return fieldGID
	case "s":
		e.Size = s.integer(0, math.MaxInt64)
		return fieldSize
	case "mt":
		e.ModTime = s.time()
		return fieldTime
	case "l":
		e.Link = s.text()
		return fieldLink
	case "d":
		e.Digest = s.digest()
		return fieldDigest
	case "f":
		e.Frame = int(s.integer(0, zframe.MaxFrames-1))
		return fieldFrame
	case "o":
		e.Offset = s.integer(0, zframe.MaxRaw)
		return fieldOffset
	case "hl":
		e.HeaderLen = s.integer(0, zframe.MaxRaw)
		return fieldHeader
	}
	return s.rareField(e, key)
}

func (s *scanner) rareField(e *Entry, key []byte) int {
	switch string(key) {
	case "dev":
		dev := s.integers()
		if len(dev) != 2 || max(dev[0], dev[1]) > math.MaxUint32 {
			s.fail("want two device numbers")
			return fieldDev
		}
		e.DevMajor, e.DevMinor = uint32(dev[0]), uint32(dev[1])
		return fieldDev
	case "x":
		s.want('{')
		for first := true; ; {
			raw, ok := s.key(&first)
			if !ok {
				return fieldXattrs
			}
			e.Xattrs = append(e.Xattrs, Xattr{s.unescape(raw), s.value()})
			if n := len(e.Xattrs); n > 1 && e.Xattrs[n-2].Key >= e.Xattrs[n-1].Key {
				s.fail("extended attributes are not sorted")
			}
		}
	case "a":
		e.ACL = s.text()
		return fieldACL
	case "ad":
		e.DefaultACL = s.text()
		return fieldDefault
	case "sp":
		list := s.integers()
		if len(list)%2 != 0 {
			s.fail("want pairs of offset and length")
			return fieldSparse
		}
		e.Sparse = make([]Segment, len(list)/2)
		for i := range e.Sparse {
			e.Sparse[i] = Segment{list[2*i], list[2*i+1]}
		}
		return fieldSparse
	}
	return -1
}

// check holds an entry to what its type may have.
func (e *Entry) check(have seen) error {
	has := func(field int) bool { return have&(1<<field) != 0 }
	switch {
	case !has(fieldType) || !has(fieldHeader):
		return fmt.Errorf("type or header length is missing")
	case !validName(e.Name):
		return fmt.Errorf("name %q is not a clean relative path", Escape(e.Name))
	case has(fieldDigest) != (e.Type == File):
		return fmt.Errorf("entry of type %c: digest is missing or too much", e.Type)
	case (e.Size != 0 || e.Sparse != nil) && e.Type != File:
		return fmt.Errorf("entry of type %c has content", e.Type)
	case (e.Link != "") != (e.Type == Symlink || e.Type == HardLink):
		return fmt.Errorf("entry of type %c: link target is missing or too much", e.Type)
	case e.Type == HardLink && !validName(e.Link):
		return fmt.Errorf("hard link to %q, which is not a clean relative path", Escape(e.Link))
	case has(fieldDev) && e.Type != Char && e.Type != Block:
		return fmt.Errorf("entry of type %c has a device number", e.Type)
	case e.Offset%tarBlock != 0 || e.HeaderLen%tarBlock != 0 || e.HeaderLen == 0:
		return fmt.Errorf("headers of %d bytes at %d are not whole tar blocks", e.HeaderLen, e.Offset)
	}
	end := int64(0)
	for _, s := range e.Sparse {
		if s.Offset < end || s.Length > e.Size-s.Offset {
			return fmt.Errorf("data segment of %d bytes at %d", s.Length, s.Offset)
		}
		end = s.Offset + s.Length
	}
	return nil
}

// validName tells whether name is "." or a path of components that are neither empty nor "." nor "..", without NUL.
func validName(name string) bool {
	if name == "." {
		return true
	}
	start := 0
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			if name[i] == 0 {
				return false
			}
			continue
		}
		switch name[start:i] {
		case "", ".", "..":
			return false
		}
		start = i + 1
	}
	return true
}
