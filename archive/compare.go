package archive

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/nsferry/nsferry/archive/listing"
)

// Difference is what one name has on one side only, or has otherwise on the other.
type Difference struct {
	Name string   `json:"name"`
	Only string   `json:"only,omitempty"` // "a" or "b": the side that has the name
	What []string `json:"what,omitempty"` // "mode 755 → 750", one a property
}

// String is the difference as a line for people.
func (d Difference) String() string {
	name := listing.Quote(d.Name)
	switch d.Only {
	case "a":
		return "- " + name
	case "b":
		return "+ " + name
	}
	return "! " + name + ": " + strings.Join(d.What, "; ")
}

// Compare reports, in order of names, how b differs from a: type, content, owner, mode, times, xattrs, ACLs, capabilities, hard
// links and holes. Both are lists of whole trees or archives in any order; of a name that comes twice the last one counts, as
// when the archive is extracted. Compare reorders its arguments.
func Compare(a, b []listing.Node, report func(Difference) error) error {
	a, b = settled(a), settled(b)
	for len(a) > 0 || len(b) > 0 {
		var d Difference
		switch {
		case len(b) == 0 || len(a) > 0 && listing.CompareNames(a[0].Name, b[0].Name) < 0:
			d, a = Difference{Name: a[0].Name, Only: "a"}, a[1:]
		case len(a) == 0 || listing.CompareNames(a[0].Name, b[0].Name) > 0:
			d, b = Difference{Name: b[0].Name, Only: "b"}, b[1:]
		default:
			d = Difference{Name: a[0].Name, What: properties(&a[0], &b[0])}
			a, b = a[1:], b[1:]
			if d.What == nil {
				continue
			}
		}
		if err := report(d); err != nil {
			return err
		}
	}
	return nil
}

// settled sorts the nodes, drops those that later ones replace, and lets the first name of each group of hard links carry
// the inode: which one does in an archive is its maker's business.
func settled(nodes []listing.Node) []listing.Node {
	slices.SortStableFunc(nodes, func(a, b listing.Node) int { return listing.CompareNames(a.Name, b.Name) })
	out := nodes[:0]
	for i, n := range nodes {
		if i+1 < len(nodes) && nodes[i+1].Name == n.Name {
			continue
		}
		out = append(out, n)
	}
	at := make(map[string]int)
	for i := range out {
		if out[i].Type != listing.Hardlink {
			at[out[i].Name] = i
		}
	}
	for i := range out {
		n := &out[i]
		j, ok := at[n.Target]
		if n.Type != listing.Hardlink || !ok {
			continue
		}
		if i < j { // the name that comes first takes the inode over
			inode := out[j]
			out[j] = listing.Node{Type: listing.Hardlink, Name: inode.Name, Target: n.Name}
			inode.Name = n.Name
			target := n.Target
			out[i] = inode
			at[target] = i
			continue
		}
		n.Target = out[j].Name
	}
	return out
}

// properties lists in what two nodes of one name differ.
func properties(a, b *listing.Node) []string {
	if a.Type != b.Type {
		return []string{fmt.Sprintf("type %s → %s", a.Type, b.Type)}
	}
	var what []string
	differ := func(name string, x, y any) {
		if s, t := fmt.Sprint(x), fmt.Sprint(y); s != t {
			what = append(what, fmt.Sprintf("%s %s → %s", name, orNone(s), orNone(t)))
		}
	}
	differ("target", a.Target, b.Target)
	differ("uid", a.UID, b.UID)
	differ("gid", a.GID, b.GID)
	differ("mode", fmt.Sprintf("%o", a.Mode), fmt.Sprintf("%o", b.Mode))
	if a.MTime != nil && b.MTime != nil {
		differ("mtime", a.MTime, b.MTime)
	}
	differ("device", [2]uint32{a.Major, a.Minor}, [2]uint32{b.Major, b.Minor})
	differ("acl", a.ACL, b.ACL)
	differ("default acl", a.Default, b.Default)
	differ("capability", hex.EncodeToString(a.Cap), hex.EncodeToString(b.Cap))
	differ("xattrs", a.Xattrs, b.Xattrs)
	differ("size", a.Size, b.Size)
	if a.Size == b.Size && a.SHA256 != b.SHA256 {
		what = append(what, "content")
	}
	if a.Size == b.Size && !slices.Equal(holes(a), holes(b)) {
		what = append(what, "holes")
	}
	return what
}

// holes returns the holes that an archive of ours would keep: makers of archives differ in what else they take for one.
func holes(n *listing.Node) []listing.Segment {
	if n.Sparse == nil {
		return nil
	}
	var h []listing.Segment
	end := int64(0)
	for _, s := range append(slices.Clone(n.Sparse), listing.Segment{Offset: n.Size}) {
		if s.Offset-end >= leastHole {
			h = append(h, listing.Segment{Offset: end, Length: s.Offset - end})
		}
		end = s.Offset + s.Length
	}
	return h
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
