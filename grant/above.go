package grant

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/nsferry/nsferry/acl"
	"github.com/nsferry/nsferry/idshift/userns"
)

// block is a directory that a grantee cannot search, or could not if it were not for another grant.
type block struct {
	dir   string
	who   Grantee
	state state
	open  bool // by another grant
}

// closed finds the directories from / down to nearest, the last one that exists, that one of the grantees cannot search by
// its own right. The granted directory itself, target, is none of them.
func (s *session) closed(nearest, target string, who []Grantee) (blocks []block, err error) {
	for _, dir := range chain(nearest) {
		if dir == target {
			break
		}
		d, err := openDirectory(dir)
		if err != nil {
			return nil, err
		}
		bare := d.now
		if r := s.store.find(d.id, dir); r != nil {
			bare, _ = r.undone(d.now)
		}
		for _, w := range who {
			if open := reaches(d.now, w, s.env); !open || !reaches(bare, w, s.env) {
				blocks = append(blocks, block{dir, w, d.now, open})
			}
		}
		d.Close()
	}
	return blocks, nil
}

// chain lists the directories from / to path.
func chain(path string) []string {
	dirs := []string{"/"}
	at := "/"
	for part := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if part != "" {
			at = filepath.Join(at, part)
			dirs = append(dirs, at)
		}
	}
	return dirs
}

// reaches tells whether w may search a directory of state s: by mode and ACL or, as inner root, by its capabilities,
// which count where owner and group are mapped (capabilities(7)).
func reaches(s state, w Grantee, e *userns.Env) bool {
	if w.Inside == 0 {
		_, uid := e.Plain.UID.ToInside(s.UID)
		_, gid := e.Plain.GID.ToInside(s.GID)
		if uid && gid {
			return true
		}
	}
	return s.effective().Permits(w.subject(), s.UID, s.GID, acl.PermExecute)
}

func (g Grantee) subject() acl.Subject { return acl.Subject{UID: g.UID, GID: g.gid} }

// permitted refuses closed directories that shall not, or cannot, be opened. It names the first one.
func (s *session) permitted(above []block, traverse bool) error {
	for _, b := range above {
		if b.open {
			continue
		}
		where := fmt.Sprintf("uid %d (inner %d) cannot search %s, which has owner %d and mode %03o",
			b.who.UID, b.who.Inside, b.dir, b.state.UID, b.state.Mode&0o777)
		if b.state.Access != nil {
			where += " (" + b.state.Access.Short() + ")"
		}
		fix := fmt.Sprintf("setfacl -m u:%d:--x %s", b.who.UID, b.dir)
		_, ours := s.env.Handoff.UID.ToInside(b.state.UID)
		switch {
		case b.state.noACLs:
			return fmt.Errorf("%s, and its filesystem keeps no ACLs; chmod o+x it, or choose another place", where)
		case !ours && b.state.UID != uint32(os.Getuid()) && os.Getuid() != 0:
			return fmt.Errorf("%s; it is not yours: as root: %s", where, fix)
		case !traverse:
			return fmt.Errorf("%s; nothing was changed. Add --traverse to let it through there, and through nothing else", where)
		}
	}
	return nil
}
