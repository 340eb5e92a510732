package grant

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/nsferry/nsferry/acl"
)

// recordVersion is the version of the records' format, docs/GRANTS.md.
const recordVersion = 1

// identity tells a directory from one that has its name, or its inode number, later. Born is empty where the filesystem does
// not tell.
type identity struct {
	Dev  uint64 `json:"dev"`
	Ino  uint64 `json:"ino"`
	Born string `json:"born,omitempty"` // seconds since 1970, nine digits of fraction
}

// same allows for device numbers that change with a reboot, if nothing else speaks against it.
func (i identity) same(o identity, samePath bool) bool {
	return i.Ino == o.Ino && i.Born == o.Born && (i.Dev == o.Dev || samePath && i.Born != "")
}

// Use is one reason for entries in a directory: a grant of the directory For, which is the directory itself or one
// below.
type Use struct {
	For     string `json:"for"`
	Inside  uint32 `json:"inside"`
	UID     uint32 `json:"uid"`
	Perm    uint16 `json:"perm"` // 7: rwx; 1: search; 0: the directory was made, or taken, no more
	Default bool   `json:"default,omitempty"`
}

// record is what is known of one directory that was changed.
type record struct {
	Version int      `json:"nsferry-grant"`
	Path    string   `json:"path"`
	ID      identity `json:"id"`
	Made    bool     `json:"made,omitempty"`
	Taken   bool     `json:"taken,omitempty"`
	Uses    []Use    `json:"uses"`
	Before  state    `json:"before"`
	After   state    `json:"after"`
}

// stateText is a state in JSON: ACLs as text, the mode as chmod(1) has it.
type stateText struct {
	Mode    string `json:"mode"`
	UID     uint32 `json:"uid"`
	GID     uint32 `json:"gid"`
	Access  string `json:"access,omitempty"`
	Default string `json:"default,omitempty"`
}

// MarshalJSON writes the state as docs/GRANTS.md says.
func (s state) MarshalJSON() ([]byte, error) {
	return json.Marshal(stateText{fmt.Sprintf("%04o", s.Mode), s.UID, s.GID, s.Access.Text(), s.Default.Text()})
}

// UnmarshalJSON reads what MarshalJSON wrote, and refuses ACLs that could not be set.
func (s *state) UnmarshalJSON(b []byte) error {
	var t stateText
	if err := json.Unmarshal(b, &t); err != nil {
		return err
	}
	mode, err := strconv.ParseUint(t.Mode, 8, 12)
	if err != nil {
		return fmt.Errorf("mode: %w", err)
	}
	*s = state{Mode: uint32(mode), UID: t.UID, GID: t.GID}
	for text, to := range map[*string]*acl.ACL{&t.Access: &s.Access, &t.Default: &s.Default} {
		if *text == "" {
			continue
		}
		if *to, err = acl.Parse(*text, nil); err == nil {
			err = to.Validate()
		}
		if err != nil {
			return fmt.Errorf("ACL %q: %w", *text, err)
		}
	}
	return nil
}

// usesOf are the record's uses for the grant of dir.
func (r *record) usesOf(dir string) (of []Use) {
	for _, u := range r.Uses {
		if u.For == dir {
			of = append(of, u)
		}
	}
	return of
}

// add adds a use, or widens the one that is there.
func (r *record) add(u Use) {
	i := slices.IndexFunc(r.Uses, func(o Use) bool { return o.For == u.For && o.UID == u.UID && (o.Perm == 0) == (u.Perm == 0) })
	if i < 0 {
		r.Uses = append(r.Uses, u)
		return
	}
	r.Uses[i].Perm |= u.Perm
	r.Uses[i].Default = r.Uses[i].Default || u.Default
}

// drop removes the uses for the grant of dir.
func (r *record) drop(dir string) {
	r.Uses = slices.DeleteFunc(r.Uses, func(u Use) bool { return u.For == dir })
}

// undone is the directory's state as if it had never been granted: what it was before, if nobody has changed it since, and
// else what it is now, less our entries.
func (r *record) undone(now state) (s state, changed bool) {
	now.noACLs = false
	switch {
	case now.equal(r.After), now.equal(r.Before):
		return r.Before, false
	}
	s = now.without(r.Uses, r.Before)
	if r.Taken && now.UID == r.After.UID {
		s.UID = r.Before.UID
	}
	return s, true
}

// quotePath makes any bytes fit for JSON: those that are not UTF-8, "%" and control characters become %XX, as in a table of
// contents (docs/FORMAT.md §3).
func quotePath(p string) string {
	var b strings.Builder
	for i, n := 0, 0; i < len(p); i += n {
		var r rune
		r, n = utf8.DecodeRuneInString(p[i:])
		if r == '%' || r < 0x20 || r == 0x7f || r == utf8.RuneError && n == 1 { // n tells a byte that is no UTF-8 from a true U+FFFD
			fmt.Fprintf(&b, "%%%02X", p[i])
		} else {
			b.WriteString(p[i : i+n])
		}
	}
	return b.String()
}

// unquotePath reverses quotePath.
func unquotePath(q string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(q); i++ {
		if q[i] != '%' {
			b.WriteByte(q[i])
			continue
		}
		if i+3 > len(q) {
			return "", fmt.Errorf("path %q ends within an escape", q)
		}
		n, err := strconv.ParseUint(q[i+1:i+3], 16, 8)
		if err != nil {
			return "", fmt.Errorf("path %q: %w", q, err)
		}
		b.WriteByte(byte(n))
		i += 2
	}
	return b.String(), nil
}
