// Package audit tells who owns what below a directory, and what there is wrong with it: it looks with the rights of inner
// root, names outside ids, and changes nothing.
package audit

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/nsferry/nsferry/idshift"
	"github.com/nsferry/nsferry/idshift/userns"
)

// Halves is the table of this package's inner halves, for userns.Main.
func Halves() []userns.Registered { return []userns.Registered{auditHalf, sizeHalf} }

// Severity says what a finding calls for.
type Severity string

const (
	Problem Severity = "problem" // somebody gets what he should not, or something is broken
	Note    Severity = "note"    // worth knowing; may be meant so
)

// Finding is one thing that should not be so. Its id is stable; docs/AUDIT.md lists all.
type Finding struct {
	ID       string   `json:"id"`
	Severity Severity `json:"severity"`
	Path     string   `json:"path"`
	What     string   `json:"what"`
	Why      string   `json:"why"`
	Mend     string   `json:"mend"` // a command
}

// Owner counts the inodes of one outside id.
type Owner struct {
	Kind    string            `json:"kind"`              // "uid" or "gid"
	ID      uint32            `json:"id"`                // outside
	Unknown bool              `json:"unknown,omitempty"` // it has no number inside, and none outside that could be seen
	Who     Class             `json:"who"`
	Inside  map[string]uint32 `json:"inside,omitempty"` // model → inside id
	Inodes  int64             `json:"inodes"`
	Bytes   int64             `json:"bytes"` // allocated
}

// Class is whose an id is.
type Class string

const (
	Caller  Class = "caller"
	SubID   Class = "sub-id"
	Mapped  Class = "mapped"  // root's: in the map that he works with
	Foreign Class = "foreign" // in no range of the caller's
)

// Rootfs is a tree that looks like the root of a system.
type Rootfs struct {
	Path  string `json:"path"`
	Model string `json:"model"` // "caller" where its root belongs to the caller, else "base"
}

// Report is what an audit found. More counts, by id, findings beyond Options.Most.
type Report struct {
	Owners   []Owner          `json:"owners"`
	Trees    []Rootfs         `json:"trees,omitempty"`
	Findings []Finding        `json:"findings"`
	More     map[string]int64 `json:"more,omitempty"`
	Problems int64            `json:"problems"`
	Inodes   int64            `json:"inodes"`
}

// Options bound an audit. Most is the number of findings of one id that are told one by one; 0 is no bound.
type Options struct{ Most int }

// Audit examines the tree at dir, across no mount.
func Audit(ctx context.Context, e *userns.Env, dir string, o Options) (Report, error) {
	root, rest, err := userns.OpenTree(dir)
	if err != nil {
		return Report{}, err
	}
	defer root.Close()
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Report{}, err
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real
	}
	open, err := openTo(e, abs)
	if err != nil {
		return Report{}, err
	}
	a := args{Rest: rest, Dir: abs, Most: o.Most, Open: open, Ids: newIds(e)}
	r, err := auditHalf.Run(ctx, e, a, nil, root)
	if err != nil {
		return r, fmt.Errorf("audit %s: %w", dir, err)
	}
	r.trueIDs()
	return r, nil
}

// ids are the maps that a half needs to name ids.
type ids struct {
	Seen   idshift.Mapping            // inside, as the half sees ids → outside
	Caller [2]uint32                  // outside uid and gid
	Models map[string]idshift.Mapping // inside → outside
	Direct bool                       // the half sees outside ids
	Plain  idshift.Mapping
}

func newIds(e *userns.Env) ids {
	i := ids{Seen: e.Handoff, Caller: [2]uint32{e.Caller.UID, e.Caller.GID}, Direct: e.Direct, Plain: e.Plain, Models: map[string]idshift.Mapping{}}
	for _, m := range []idshift.Model{"base", "caller", "identity"} {
		if p, err := idshift.Plan(m, e.Caller); err == nil {
			i.Models[string(m)] = p
		}
	}
	return i
}

// outside is the true id of one that the half sees.
func (i ids) outside(k idshift.Kind, id uint32) uint32 {
	if i.Direct {
		return id
	}
	out, _ := i.Seen.Of(k).ToOutside(id)
	return out
}

// class tells whose an outside id is.
func (i ids) class(k idshift.Kind, id uint32) Class {
	if id == i.Caller[k] {
		return Caller
	}
	for _, m := range mappings(i.Models) {
		if _, ok := m.Of(k).ToInside(id); ok {
			return SubID
		}
	}
	seen := i.Seen // in a namespace: the handoff map, which has all of the range
	if i.Direct {
		seen = i.Plain
	}
	if _, ok := seen.Of(k).ToInside(id); ok && i.Direct {
		return Mapped
	} else if ok {
		return SubID
	}
	return Foreign
}

func mappings(m map[string]idshift.Mapping) (all []idshift.Mapping) {
	for _, name := range []string{"base", "caller", "identity"} {
		if v, ok := m[name]; ok {
			all = append(all, v)
		}
	}
	return all
}

// models names the inside ids of an outside one.
func (i ids) models(k idshift.Kind, id uint32) map[string]uint32 {
	var out map[string]uint32
	for name, m := range i.Models {
		if in, ok := m.Of(k).ToInside(id); ok {
			if out == nil {
				out = map[string]uint32{}
			}
			out[name] = in
		}
	}
	return out
}

// trueIDs names the id in findings of foreign owners, which has no number inside, by looking from outside, where the path can be
// reached.
func (r *Report) trueIDs() {
	for i := range r.Findings {
		f := &r.Findings[i]
		if f.ID != "owner.foreign" {
			continue
		}
		if st, err := lstat(f.Path); err == nil {
			f.What += fmt.Sprintf(": %d:%d", st.Uid, st.Gid)
		}
	}
}

// sortOwners puts uids first, and the largest owners before.
func (r *Report) sortOwners() {
	slices.SortFunc(r.Owners, func(a, b Owner) int {
		if a.Kind != b.Kind {
			return -len(a.Kind) + len(b.Kind) - int(a.Kind[0]) + int(b.Kind[0])
		}
		if a.Inodes != b.Inodes {
			return int(b.Inodes - a.Inodes)
		}
		return int(int64(a.ID) - int64(b.ID))
	})
}
