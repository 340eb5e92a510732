//go:build linux

package treetest

import (
	"slices"
	"strings"

	"github.com/nsferry/nsferry/archive/listing"
)

// Diff returns "" when a and b are the same tree, else the lines that differ: "-" before those of a, "+" before those of b.
// Order does not matter, nor which name of an inode has its line, nor in which form content is told. What only one
// side tells is not compared: mtimes, and the content of files that have a size only.
func Diff(a, b []listing.Node) string {
	left, right := canonical(a), canonical(b)
	var out strings.Builder
	for len(left) > 0 || len(right) > 0 {
		order := 0
		switch {
		case len(left) == 0:
			order = 1
		case len(right) == 0:
			order = -1
		default:
			order = listing.CompareNames(left[0].Name, right[0].Name)
		}
		if order == 0 {
			if l, r := common(left[0], right[0]); l != r {
				out.WriteString("-" + left[0].Line() + "\n+" + right[0].Line() + "\n")
			}
			left, right = left[1:], right[1:]
			continue
		}
		if order < 0 {
			out.WriteString("-" + left[0].Line() + "\n")
			left = left[1:]
			continue
		}
		out.WriteString("+" + right[0].Line() + "\n")
		right = right[1:]
	}
	return out.String()
}

// common returns the lines of both without what only one of them tells.
func common(l, r listing.Node) (string, string) {
	if l.MTime == nil || r.MTime == nil {
		l.MTime, r.MTime = nil, nil
	}
	l.SHA256, r.SHA256 = digest(l), digest(r)
	if l.SHA256 == "" || r.SHA256 == "" {
		l.SHA256, r.SHA256 = "", ""
	}
	for _, n := range []*listing.Node{&l, &r} {
		n.Content, n.Fill = nil, nil
		if n.Size == 0 || len(n.Sparse) == 1 && n.Sparse[0].Length == n.Size {
			n.Sparse = nil
		}
	}
	return l.Line(), r.Line()
}

// canonical returns the nodes in order, each inode's line at its first name.
func canonical(nodes []listing.Node) []listing.Node {
	byName := map[string]listing.Node{}
	for _, n := range nodes {
		byName[n.Name] = n
	}
	sorted := slices.Clone(nodes)
	slices.SortStableFunc(sorted, func(x, y listing.Node) int { return listing.CompareNames(x.Name, y.Name) })
	first := map[string]string{} // name that has the inode's line → first name of the inode
	for i, n := range sorted {
		owner := n
		for hops := 0; owner.Type == listing.Hardlink && hops < len(nodes); hops++ {
			next, ok := byName[owner.Target]
			if !ok {
				break
			}
			owner = next
		}
		if owner.Type == listing.Hardlink {
			continue // to nowhere: the line stays as it is and differs from any good one
		}
		if name, again := first[owner.Name]; again {
			sorted[i] = listing.Node{Type: listing.Hardlink, Name: n.Name, Target: name}
			continue
		}
		first[owner.Name] = n.Name
		owner.Name = n.Name
		sorted[i] = owner
	}
	return sorted
}
