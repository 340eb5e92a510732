package facl

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/nsferry/nsferry/acl"
	"golang.org/x/sys/unix"
)

const modeDir = unix.S_IFDIR

// block is what a backup holds about one file.
type block struct {
	Path         string
	Named        bool
	Owner, Group string // names or numbers, as the text has them; empty: not told
	Flags        uint32 // setuid, setgid, sticky as mode bits
	Entries      []change
}

// errFlags says that a flags comment is not like "-s-".
var errFlags = errors.New("malformed flags comment")

// restore sets what a backup made by getfacl says, file by file. The backup's owners are restored where they differ.
func (s *setter) restore(path string) error {
	in, name, done, err := s.input(path)
	if err != nil {
		s.complain(path, err)
		return errReported
	}
	defer done()
	defer func(walk walkMode) { s.walk = walk }(s.walk)
	s.walk.recursive = false // a backup names every file
	in.n = 0
	for {
		b, err := s.block(in)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			s.say("%s: %s in line %d", name, reason(err), in.n)
			s.status = statusFailed
			return nil
		}
		s.restoring = &b
		s.status = max(s.status, s.node(s.dirfd(), b.Path, b.Path, nil, func(path string, f *file, err error) int {
			if err != nil {
				return s.complain(path, err)
			}
			return s.put(f, b)
		}))
		s.restoring = nil
	}
}

// block reads the comments and entries of one file: up to a blank line behind entries or to the next file's comment. The
// end of the backup is io.EOF.
func (s *setter) block(in *lineReader) (block, error) {
	var b block
	for {
		line, err := in.next()
		if errors.Is(err, io.EOF) && b.Named {
			return b, nil
		}
		if err != nil {
			return b, err
		}
		text := strings.TrimLeft(line, blank)
		switch {
		case text == "" && b.Named:
			return b, nil
		case text == "":
		case text[0] != '#':
			if !b.Named {
				return b, errors.New("an entry before any file comment")
			}
			p := &entryParser{s: s.session, text: line}
			if b.Entries, err = p.line(b.Entries); err != nil {
				return b, err
			}
		case len(b.Entries) > 0 && isComment(text, "file:"):
			in.unread(line)
			return b, nil
		case len(b.Entries) == 0:
			if err := b.comment(text); err != nil {
				return b, err
			}
		}
	}
}

// isComment tells whether a line is the comment with this key.
func isComment(line, key string) bool {
	return strings.HasPrefix(strings.TrimLeft(line[1:], blank), key)
}

// comment reads a line that begins with "#"; one that says nothing about the file is passed over.
func (b *block) comment(line string) error {
	line = strings.TrimLeft(line[1:], blank)
	key, value, _ := strings.Cut(line, ":")
	value = strings.TrimLeft(value, blank)
	switch key {
	case "file":
		b.Path, b.Named = unquote(value), true
	case "owner":
		b.Owner = unquote(strings.TrimRight(value, blank))
	case "group":
		b.Group = unquote(strings.TrimRight(value, blank))
	case "flags":
		value = strings.TrimRight(value, blank)
		if len(value) != 3 {
			return errFlags
		}
		for i, bit := range []uint32{unix.S_ISUID, unix.S_ISGID, unix.S_ISVTX} {
			switch value[i] {
			case "sst"[i]:
				b.Flags |= bit
			case '-':
			default:
				return errFlags
			}
		}
	}
	return nil
}

// put restores one file: owners, then ACLs, then the flags, which a change of owner clears.
func (s *setter) put(f *file, b block) int {
	status := statusDone
	uid, gid := -1, -1
	for _, o := range []struct {
		name  string
		group bool
		now   uint32
		to    *int
	}{{b.Owner, false, f.st.Uid, &uid}, {b.Group, true, f.st.Gid, &gid}} {
		if o.name == "" {
			continue
		}
		p := &entryParser{s: s.session}
		id, bad := p.id(o.name, o.group)
		if bad != "" {
			what := "owner"
			if o.group {
				what = "group"
			}
			status = s.complain(f.path, fmt.Errorf("no such %s: %s", what, o.name))
		} else if id != o.now && !s.overflowed(o.group, id, o.now) {
			*o.to = int(id)
		}
	}
	if (uid >= 0 || gid >= 0) && !s.test {
		if err := f.chown(uid, gid); err != nil {
			if s.denied(err) {
				return statusDenied
			}
			status = s.complain(f.path, fmt.Errorf("cannot change owner/group: %s", reason(err)))
		}
	}
	changes := append([]change{{Do: dropAll}, {Do: dropAll, Kind: acl.Default}}, b.Entries...)
	if changed := s.change(f, changes); changed != statusDone {
		return changed
	}
	if s.test {
		return status
	}
	if err := unix.Fstat(f.fd, &f.st); err != nil {
		return s.complain(f.path, err)
	}
	if mode := f.st.Mode & 0o7777; mode&0o7000 != b.Flags {
		if err := f.chmod(mode&0o777 | b.Flags); err != nil {
			return s.complain(f.path, err)
		}
	}
	return status
}

// overflowed tells whether a backup's owner only stands for one that its text could not name, and that the file still has:
// then it stays.
func (s *setter) overflowed(group bool, id, now uint32) bool {
	nobody, ok := s.ids.ToProcess(group, overflowID)
	_, named := s.ids.ToText(group, now)
	return ok && id == nobody && !named
}
