package archive

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nsferry/nsferry/archive/tarfmt"
	"github.com/nsferry/nsferry/archive/tree"
)

// index is the tree that an archive would be unpacked to, in memory: names, and where in the stream each inode is. What
// the entries do to each other is what they do in tree.Builder: the last one of a name counts, symlinks in the way are followed.
type index struct {
	root   *indexName
	top    string // a directory to strip
	weight int64
}

// indexName is a name of the tree.
type indexName struct {
	name  string
	inode *indexed
	up    *indexName
	kids  map[string]*indexName // of a directory
}

// indexed is an inode.
type indexed struct {
	header *tarfmt.Header // as it is in the archive, without the name
	at     int64          // raw offset of the headers; -1 for a directory that the archive does not name
	data   int64          // raw offset of the stored data
	path   string         // under which it was written, "" before
}

// maxIndex bounds the memory of an index: some 4 million names, or that much in attributes and hole maps.
const maxIndex = 1 << 30

func newIndex() *index {
	root := &indexName{inode: impliedDir()}
	root.up = root
	return &index{root: root}
}

// impliedDir is a directory that something is in, but that the archive does not name.
func impliedDir() *indexed {
	return &indexed{header: &tarfmt.Header{Type: tarfmt.Dir, Mode: 0o755}, at: -1}
}

// weigh counts what an entry takes in memory.
func (x *index) weigh(name string, h *tarfmt.Header) error {
	const names, inodes = 100, 250 // of the structures, about
	x.weight += names + int64(len(name))
	if h != nil {
		x.weight += inodes + int64(len(h.Link)+len(h.ACL)+len(h.DefaultACL)+16*len(h.Sparse))
		for _, a := range h.Xattrs {
			x.weight += int64(len(a.Key) + len(a.Value) + 40)
		}
	}
	if x.weight > maxIndex {
		return fmt.Errorf("the names, attributes and hole maps of the archive take more than %d MiB", maxIndex>>20)
	}
	return nil
}

// add puts an entry into the tree. at and data are its raw offsets.
func (x *index) add(h *tarfmt.Header, at, data int64) error {
	path, err := entryPath(h.Name, x.top)
	if err != nil {
		return err
	}
	if h.Type == tarfmt.Link {
		if err := x.link(h, path); err != nil {
			return fmt.Errorf("entry %s: %w", quote(h.Name), err)
		}
		return nil
	}
	name := h.Name
	h.Name = "" // the tree has it
	if err := x.put(path, &indexed{header: h, at: at, data: data}); err != nil {
		return fmt.Errorf("entry %s: %w", quote(name), err)
	}
	return nil
}

// put gives path to the inode.
func (x *index) put(path string, inode *indexed) error {
	isDir := inode.header.Type == tarfmt.Dir
	if path == "." {
		if !isDir {
			return errors.New("the root of the tree must be a directory")
		}
		x.root.inode = inode
		return x.weigh("", inode.header)
	}
	dir, base, err := x.parent(path)
	if err != nil {
		return err
	}
	at := dir.kids[base]
	if at != nil && len(at.kids) > 0 && !isDir {
		return errors.New("a directory that is not empty is in the way")
	}
	if at != nil {
		at.inode = inode
		return x.weigh("", inode.header)
	}
	dir.child(base, inode)
	return x.weigh(base, inode.header)
}

// link gives path to the inode that another name has.
func (x *index) link(h *tarfmt.Header, path string) error {
	target, err := entryPath(h.Link, x.top)
	if err != nil {
		return fmt.Errorf("hard link target: %w", err)
	}
	dir, base, err := x.parent(path)
	if err != nil {
		return err
	}
	from, err := x.find(target)
	if err != nil {
		return fmt.Errorf("hard link target %s: %w", quote(h.Link), err)
	}
	at := dir.kids[base]
	switch {
	case from.isDir():
		return fmt.Errorf("hard link target %s is a directory", quote(h.Link))
	case from == at:
		return tree.ErrLinkToSelf
	case at == nil:
		dir.child(base, from.inode)
		return x.weigh(base, nil)
	case len(at.kids) > 0:
		return errors.New("a directory that is not empty is in the way")
	}
	at.inode = from.inode
	return nil
}

func (n *indexName) isDir() bool { return n.inode.header.Type == tarfmt.Dir }

func (n *indexName) child(base string, inode *indexed) *indexName {
	base = strings.Clone(base) // a part of it would keep the whole path in memory
	c := &indexName{name: base, inode: inode, up: n}
	if n.kids == nil {
		n.kids = make(map[string]*indexName)
	}
	n.kids[base] = c
	return c
}

// sorted returns the names in a directory in the order of archives.
func (n *indexName) sorted() []*indexName {
	return slices.SortedFunc(maps.Values(n.kids), func(a, b *indexName) int { return strings.Compare(a.name, b.name) })
}

// parent returns the directory that path is in, and path's last component. Directories that are missing are made.
func (x *index) parent(path string) (*indexName, string, error) {
	n, links := x.root, 0
	for {
		part, rest, more := strings.Cut(path, "/")
		if !more {
			return n, part, nil
		}
		next := n.kids[part]
		if next == nil {
			next = n.child(part, impliedDir())
			if err := x.weigh(part, next.inode.header); err != nil {
				return nil, "", err
			}
		}
		var err error
		if n, err = x.enter(next, &links); err != nil {
			return nil, "", err
		}
		path = rest
	}
}

// find returns the name at path, whose last component is not followed.
func (x *index) find(path string) (*indexName, error) {
	n, links := x.root, 0
	for part := range strings.SplitSeq(path, "/") {
		if part == "." {
			continue
		}
		var err error
		if n, err = x.enter(n, &links); err != nil {
			return nil, err
		}
		if n = n.kids[part]; n == nil {
			return nil, errors.New("is not in the archive before it")
		}
	}
	return n, nil
}

// enter returns the directory that n is or, a symlink, leads to within the tree. links counts symlinks.
func (x *index) enter(n *indexName, links *int) (*indexName, error) {
	if n.isDir() {
		return n, nil
	}
	if n.inode.header.Type != tarfmt.Symlink {
		return nil, fmt.Errorf("%s is in the way, and no directory", quote(n.path()))
	}
	if *links++; *links > maxSymlinks {
		return nil, fmt.Errorf("%s: more than %d symlinks", quote(n.path()), maxSymlinks)
	}
	target := n.inode.header.Link
	at := n.up
	if strings.HasPrefix(target, "/") {
		at = x.root
	}
	for part := range strings.SplitSeq(target, "/") {
		switch part {
		case "", ".":
			continue
		case "..":
			at = at.up
			continue
		}
		next := at.kids[part]
		if next == nil {
			return nil, fmt.Errorf("%s leads to nothing", quote(n.path()))
		}
		var err error
		if at, err = x.enter(next, links); err != nil {
			return nil, err
		}
	}
	return at, nil
}

// path is for messages.
func (n *indexName) path() string {
	var parts []string
	for ; n.up != n; n = n.up {
		parts = append(parts, n.name)
	}
	slices.Reverse(parts)
	return strings.Join(parts, "/")
}
