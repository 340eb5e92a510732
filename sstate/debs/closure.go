package debs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/idshift/userns"
)

// closureHalf returns the names of all packages that the given ones may need, by the lists of a rootfs, its file.
var closureHalf = userns.Half[listsArgs, []string]{Name: "debs-closure", Func: func(_ context.Context, in *userns.Inner, a listsArgs) ([]string, error) {
	root, err := userns.ReopenDir(in.Files[0], a.Rest)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	fd, err := tree.NewRoot(root).OpenDir(aptLists)
	if err != nil {
		return nil, fmt.Errorf("a list of packages needs the lists of apt-get update: %w", err)
	}
	dir := os.NewFile(uintptr(fd), aptLists)
	defer dir.Close()
	return closureOf(dir, a.Names)
}}

// closure is the set that closureHalf finds, or that the lists in a directory of the caller's give.
func closure(ctx context.Context, r *rootfs, lists string, names []string) (map[string]bool, error) {
	var all []string
	var err error
	if lists != "" {
		var dir *os.File
		if dir, err = os.Open(lists); err != nil {
			return nil, err
		}
		defer dir.Close()
		all, err = closureOf(dir, names)
	} else {
		all, _, err = ask(ctx, r, closureHalf, listsArgs{Rest: r.rest, Names: names})
	}
	set := make(map[string]bool, len(all))
	for _, n := range all {
		set[n] = true
	}
	return set, err
}

// closureOf follows dependencies without deciding anything: every alternative, every provider and every version counts. What apt
// will choose is among them; a deb too many costs a link.
func closureOf(dir *os.File, names []string) ([]string, error) {
	g := graph{needs: map[string][]string{}, provides: map[string][]string{}}
	files, err := tree.ReadNames(int(dir.Fd()))
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		if !isList(name) {
			continue
		}
		if _, err := oneList(dir, name, func(r io.Reader) error { return eachPart(r, g.add) }); err != nil {
			return nil, fmt.Errorf("%s/%s: %w", dir.Name(), name, err)
		}
	}
	return g.reach(names), nil
}

// graph is who may need whom, by names.
type graph struct {
	needs    map[string][]string
	provides map[string][]string // by the virtual name
}

func (g *graph) add(list []byte) error {
	for len(list) > 0 {
		stanza, rest, _ := bytes.Cut(list, []byte("\n\n"))
		list = rest
		f := fields(bytes.TrimLeft(stanza, "\n"), "Package", "Pre-Depends", "Depends", "Recommends", "Provides")
		for _, text := range f[1:4] {
			g.needs[f[0]] = append(g.needs[f[0]], relations(text)...)
		}
		for _, virtual := range relations(f[4]) {
			g.provides[virtual] = append(g.provides[virtual], f[0])
		}
	}
	return nil
}

// relations returns the package names in a relationship field (deb-control(7)): "a (>= 1) | b:any, c [amd64]".
func relations(text string) []string {
	if text == "" {
		return nil
	}
	var names []string
	for r := range strings.FieldsFuncSeq(text, func(c rune) bool { return c == ',' || c == '|' }) {
		r = strings.TrimSpace(r)
		if i := strings.IndexAny(r, " (:[<"); i >= 0 {
			r = r[:i]
		}
		if r != "" {
			names = append(names, r)
		}
	}
	return names
}

// reach returns names and all that can be reached from them.
func (g *graph) reach(names []string) []string {
	seen := map[string]bool{}
	var all []string
	for todo := names; len(todo) > 0; {
		n := todo[0]
		todo = todo[1:]
		if seen[n] {
			continue
		}
		seen[n] = true
		all = append(all, n)
		todo = append(append(todo, g.needs[n]...), g.provides[n]...)
	}
	return all
}
