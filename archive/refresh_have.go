package archive

import (
	"context"
	"fmt"
	"io/fs"
	"sync"

	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/idshift"

	"golang.org/x/sys/unix"
)

// have is a name that the tree has.
type have struct {
	path   string
	stat   unix.Statx_t
	target string // of a symlink
	wanted bool
}

func (h *have) isDir() bool { return h.stat.Mode&unix.S_IFMT == unix.S_IFDIR }

func (h *have) inode() hardLink {
	return hardLink{unix.Mkdev(h.stat.Dev_major, h.stat.Dev_minor), h.stat.Ino}
}

// ForeignError is a tree that is not, or not all, of the map's owners.
type ForeignError struct {
	Path  string // the first one found
	Count int64
	Err   error // an UnmappedError
}

func (e *ForeignError) Error() string {
	return fmt.Sprintf("%d inodes of the tree do not belong to this map, one is %s (%v): something else owns it; nsferry audit tells who, nsferry take makes it ours", e.Count, quote(e.Path), e.Err)
}

func (e *ForeignError) Unwrap() error { return e.Err }

// survey walks the tree and fills in haves. Everything that makes a refresh impossible is found here, before any change.
func (r *refresher) survey(ctx context.Context) error {
	var mu sync.Mutex
	var all []*have
	var foreign *ForeignError
	r.kept = make(map[string]bool)
	err := tree.Each(ctx, r.dir, r.Workers, func(e *tree.Entry) error {
		excluded := e.Path != "." && r.Exclude.match(e.Path)
		if e.Mount && !excluded {
			return &fs.PathError{Op: "refresh", Path: e.Path, Err: tree.ErrMounted}
		}
		var owner error
		if !r.Resumed { // outside of a namespace new inodes are not at once of the map
			owner = r.ownedBy(e)
		}
		h := &have{path: e.Path, stat: e.Stat}
		if e.Type() == unix.S_IFLNK && !excluded {
			var err error
			if h.target, err = e.Readlink(); err != nil {
				return err
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if excluded {
			for dir, _ := split(e.Path); dir != "." && !r.kept[dir]; dir, _ = split(dir) {
				r.kept[dir] = true
			}
			return tree.ErrSkipDir
		}
		if owner != nil {
			if foreign == nil {
				foreign = &ForeignError{Path: e.Path, Err: owner}
			}
			foreign.Count++
		}
		all = append(all, h)
		return nil
	})
	if err == nil && foreign != nil {
		err = foreign
	}
	r.haves = make(map[string]*have, len(all))
	for _, h := range all {
		r.haves[h.path] = h
	}
	return err
}

// ownedBy returns an UnmappedError for an inode whose owner or group has no place in the map.
func (r *refresher) ownedBy(e *tree.Entry) error {
	for k, seen := range [2]uint32{e.Stat.Uid, e.Stat.Gid} {
		kind := idshift.Kind(k)
		if _, err := r.IDs.inside(kind, seen); err != nil {
			return err
		}
		if seen == overflowID && !r.IDs.Arithmetic && !r.IDs.Plain.Of(kind).IsIdentity() && !e.OwnerIsMapped() {
			return &idshift.UnmappedError{Kind: kind, ID: seen}
		}
	}
	return nil
}

// resembles refuses a tree that seems to be something else than an older state of what the archive holds: a home directory, say.
func (r *refresher) resembles() error {
	total, known, example := 0, 0, ""
	for path := range r.haves {
		if dir, _ := split(path); dir != "." || path == "." {
			continue
		}
		total++
		if _, ok := r.at[path]; ok {
			known++
		} else if example == "" || path < example {
			example = path
		}
	}
	if 2*known >= total {
		return nil
	}
	return fmt.Errorf("most of what is in the directory, %d of %d names such as %s, is nothing the archive knows, and would be removed: is it the right one? If so, remove it first, with nsferry rm", total-known, total, quote(example))
}
