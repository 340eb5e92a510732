package audit

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/archive/tree"
)

// linked is a file of several names, the first of which was seen in a rootfs.
type linked struct {
	path   string
	rootfs int // index in report.Trees
	here   uint32
	all    uint32
}

// link counts how many names of a file are in the rootfs where it was seen first. here is the directory that the entry is in.
func (w *walker) link(e *tree.Entry, here level) {
	if e.Stat.Nlink < 2 || e.Type() != unix.S_IFREG || here.rootfs < 0 {
		return
	}
	id := inode{e.Device(), e.Stat.Ino}
	l := w.linked[id]
	if l == nil {
		l = &linked{path: e.Path, rootfs: here.rootfs, all: e.Stat.Nlink}
		w.linked[id] = l
	}
	if l.rootfs == here.rootfs {
		l.here++
	}
}

// tellLinks tells of files that a rootfs shares with something else.
func (w *walker) tellLinks() {
	var shared []*linked
	for _, l := range w.linked {
		if l.here < l.all {
			shared = append(shared, l)
		}
	}
	slices.SortFunc(shared, func(a, b *linked) int { return cmp.Compare(a.path, b.path) })
	for _, l := range shared {
		path, root := w.abs(l.path), w.report.Trees[l.rootfs].Path
		inside := "/" + strings.TrimPrefix(strings.TrimPrefix(path, root), "/")
		w.tell(Finding{"link.outside", Problem, path, fmt.Sprintf("%d of its %d names are not in this rootfs", l.all-l.here, l.all),
			"what is written to it, its mode or its owner changes under those names too: a package of a download cache after its hash was checked",
			fmt.Sprintf("nsferry run --rootfs %s -- sh -c 'cp -a \"$0\" \"$0.copy\" && mv \"$0.copy\" \"$0\"' %s", quote(root), quote(filepath.Clean(inside)))})
	}
}
