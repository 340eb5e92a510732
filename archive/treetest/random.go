//go:build linux

package treetest

import (
	"math/rand/v2"

	"github.com/nsferry/nsferry/archive/listing"
)

// Random returns a tree of n nodes below "." that depends on the seed only: any names, types, ids below 65535, times,
// xattrs, ACLs, holes and hard links, but no devices, so that inner root can build it.
func Random(seed uint64, n int) []listing.Node {
	g := generator{rand.New(rand.NewPCG(seed, 0)), map[string]bool{}, []string{""}, nil}
	root := listing.Node{Type: listing.Dir, Name: ".", Mode: 0o755, MTime: g.time()}
	nodes := []listing.Node{root}
	for len(nodes) <= n {
		nodes = append(nodes, g.node())
	}
	return nodes
}

type generator struct {
	*rand.Rand
	taken map[string]bool
	dirs  []string // prefixes of names: "" or ending in "/"
	files []string // what can be linked to
}

func (g *generator) node() listing.Node {
	n := listing.Node{Name: g.name(), UID: g.Uint32N(65535), GID: g.Uint32N(65535), Mode: g.Uint32N(0o10000), MTime: g.time()}
	switch k := g.IntN(20); {
	case k < 4:
		n.Type = listing.Dir
		g.dirs = append(g.dirs, n.Name+"/")
		g.acl(&n)
		if g.IntN(4) == 0 {
			n.Default = "u::rwx,u:7:rwx,g::r-x,m::rwx,o::---"
		}
		g.xattrs(&n)
		return n
	case k < 6 && len(g.files) > 0:
		return listing.Node{Type: listing.Hardlink, Name: n.Name, Target: g.files[g.IntN(len(g.files))]}
	case k < 9:
		n.Type, n.Mode, n.Target = listing.Symlink, 0, g.bytes(1+g.IntN(200), false)
	case k == 9:
		n.Type = listing.Fifo
	case k == 10:
		n.Type = listing.Sock
	default:
		n.Type = listing.File
		g.content(&n)
		g.acl(&n)
		g.xattrs(&n)
		if g.IntN(6) == 0 {
			// Revision 2, effective, one permitted capability: vfs_cap_data of linux/capability.h.
			n.Cap = make([]byte, 20)
			n.Cap[0], n.Cap[3], n.Cap[4+g.IntN(4)] = 1, 2, 1<<g.IntN(8)
		}
	}
	g.files = append(g.files, n.Name)
	return n
}

func (g *generator) name() string {
	for {
		name := g.dirs[g.IntN(len(g.dirs))] + g.bytes(1+g.IntN(1+g.IntN(60)), true)
		base := name[len(name)-1:]
		if !g.taken[name] && base != "." && len(name) < 3000 {
			g.taken[name] = true
			return name
		}
	}
}

// bytes returns a text of length bytes, half of the texts plain.
func (g *generator) bytes(length int, isName bool) string {
	const plain = "abcdefghijklmnopqrstuvwxyz-_.0123456789"
	odd := g.IntN(2) == 0
	out := make([]byte, length)
	for i := range out {
		out[i] = plain[g.IntN(len(plain))]
		if odd {
			out[i] = byte(1 + g.IntN(255))
		}
		if isName && out[i] == '/' {
			out[i] = ' '
		}
	}
	return string(out)
}

func (g *generator) time() *listing.Time {
	return &listing.Time{Sec: g.Int64N(1<<33) - 1<<31, Nsec: g.Uint32N(1e9)}
}

func (g *generator) content(n *listing.Node) {
	if g.IntN(3) > 0 {
		n.Content = []byte(g.bytes(g.IntN(100), false))
		n.Size = int64(len(n.Content))
		return
	}
	n.Size = g.Int64N(1 << 20)
	seed := g.Uint64()
	n.Fill = &seed
	if g.IntN(2) > 0 {
		return
	}
	const step = 1 << 16
	n.Sparse = []listing.Segment{}
	for off := g.Int64N(4) * step; off < n.Size; off += (2 + g.Int64N(4)) * step {
		n.Sparse = append(n.Sparse, listing.Segment{Offset: off, Length: min(step, n.Size-off)})
	}
}

// acl gives some nodes an ACL that fits the mode.
func (g *generator) acl(n *listing.Node) {
	if g.IntN(4) > 0 {
		return
	}
	rwx := func(bits uint32) string {
		out := []byte("rwx")
		for i := range out {
			if bits>>(2-i)&1 == 0 {
				out[i] = '-'
			}
		}
		return string(out)
	}
	n.ACL = "u::" + rwx(n.Mode>>6) + ",u:" + []string{"0", "33", "65534"}[g.IntN(3)] + ":rwx,g::" + rwx(g.Uint32N(8)) +
		",m::" + rwx(n.Mode>>3) + ",o::" + rwx(n.Mode)
}

func (g *generator) xattrs(n *listing.Node) {
	for k := range g.IntN(3) {
		n.Xattrs = append(n.Xattrs, listing.Xattr{Key: "user." + string(rune('a'+k)) + g.bytes(g.IntN(20), false),
			Value: []byte(g.bytes(g.IntN(50), false))})
	}
}
