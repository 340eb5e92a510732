package grant

import (
	"fmt"
	"slices"

	"github.com/nsferry/nsferry/acl"
	"github.com/nsferry/nsferry/idshift/userns"
)

// Holding says whether a grant still holds. Broken is empty when it does.
type Holding struct {
	Path   string   `json:"path"`
	Holds  bool     `json:"holds"`
	Broken []string `json:"broken,omitempty"` // each with its cause
	Record bool     `json:"recorded"`
}

// Check looks whether the grantees, those of the record and the also-ids, can still use the directories. It changes
// nothing.
func Check(e *userns.Env, dirs []string, also []uint32) ([]Holding, error) {
	st, err := openStore()
	if err != nil {
		return nil, err
	}
	defer st.close()
	s := &session{env: e, store: st}
	var all []Holding
	for _, dir := range dirs {
		h, err := s.check(dir, also)
		if err != nil {
			return nil, fmt.Errorf("grant --check %s: %w", dir, err)
		}
		all = append(all, h)
	}
	return all, nil
}

func (s *session) check(dir string, also []uint32) (h Holding, err error) {
	if h.Path, err = resolve(dir); err != nil {
		return h, err
	}
	d, err := openDirectory(h.Path)
	if err != nil {
		return h, err
	}
	defer d.Close()
	ids := slices.Clone(also)
	wantDefault := false
	if r := s.store.find(d.id, h.Path); r != nil && len(r.usesOf(r.Path)) > 0 {
		h.Record = true
		for _, u := range r.usesOf(r.Path) {
			if u.Inside != 0 && !slices.Contains(ids, u.Inside) {
				ids = append(ids, u.Inside)
			}
			wantDefault = wantDefault || u.Default
		}
	}
	who, err := grantees(s.env, ids)
	if err != nil {
		return h, err
	}
	blocks, err := s.closed(h.Path, h.Path, who)
	if err != nil {
		return h, err
	}
	for _, b := range blocks {
		if b.open {
			continue
		}
		h.Broken = append(h.Broken, fmt.Sprintf("uid %d (inner %d) cannot search %s (mode %03o)", b.who.UID, b.who.Inside, b.dir, b.state.Mode&0o777))
	}
	for _, w := range who {
		if why := d.now.denies(w, s.env); why != "" {
			h.Broken = append(h.Broken, why)
		}
		if wantDefault && !named(d.now.Default, w.UID) {
			h.Broken = append(h.Broken, fmt.Sprintf("the default ACL does not let uid %d (inner %d) in", w.UID, w.Inside))
		}
	}
	h.Holds = len(h.Broken) == 0
	return h, nil
}

// denies tells why the grantee may not do everything in a directory of this state; empty when he may.
func (s state) denies(w Grantee, e *userns.Env) string {
	a := s.effective()
	if a.Permits(w.subject(), s.UID, s.GID, permAll) {
		return ""
	}
	_, uid := e.Plain.UID.ToInside(s.UID)
	_, gid := e.Plain.GID.ToInside(s.GID)
	if w.Inside == 0 && uid && gid {
		return ""
	}
	if mask, ok := maskOf(a); ok && named(a, w.UID) {
		return fmt.Sprintf("uid %d (inner %d) has an entry, and the mask cuts it to %s: a chmod to %03o came after the grant; grant again",
			w.UID, w.Inside, permText(mask), s.Mode&0o777)
	}
	return fmt.Sprintf("uid %d (inner %d) has no entry in the ACL %s", w.UID, w.Inside, a.Short())
}

// named tells whether the ACL gives the user everything, before the mask.
func named(a acl.ACL, uid uint32) bool {
	return slices.ContainsFunc(a, func(e acl.Entry) bool { return e.Tag == acl.User && e.ID == uid && e.Perm == permAll })
}

func permText(p uint16) string {
	text := []byte("rwx")
	for i := range text {
		if p&(acl.PermRead>>i) == 0 {
			text[i] = '-'
		}
	}
	return string(text)
}

// Error makes a grant that does not hold the reason of a failure.
func (h Holding) Error() string {
	text := h.Path + ": the grant does not hold"
	for _, b := range h.Broken {
		text += "\n" + b
	}
	return text
}
