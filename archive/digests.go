package archive

import (
	"context"
	"os"

	"github.com/nsferry/nsferry/archive/statindex"
	"github.com/nsferry/nsferry/archive/tarfmt"
	"github.com/nsferry/nsferry/archive/tree"

	"golang.org/x/sys/unix"
)

// digests are those of the files of a tree that is being made, by name. A name must mean one inode for good; so they are given up with
// an archive that has a name twice, or a name whose directory it does not have before, which may then lead through a symlink. All
// methods but remember work on nil.
type digests struct {
	names map[string]tarfmt.Type
	sums  map[string][32]byte
	off   bool
	holes int64 // bytes of holes that were hashed
}

func newDigests() *digests {
	return &digests{names: map[string]tarfmt.Type{".": tarfmt.Dir}, sums: make(map[string][32]byte)}
}

// name is told each entry before it is made.
func (d *digests) name(path string, typ tarfmt.Type) {
	if d == nil || d.off || path == "." {
		return
	}
	dir, _ := split(path)
	if _, twice := d.names[path]; twice || d.names[dir] != tarfmt.Dir {
		d.off = true
		return
	}
	d.names[path] = typ
}

// wanted tells whether a file with so many bytes of holes is to be hashed.
func (d *digests) wanted(hole int64) bool {
	if d == nil || d.off || hole > maxHoles-d.holes {
		return false
	}
	d.holes += hole
	return true
}

func (d *digests) put(path string, sum [32]byte) {
	if !d.off {
		d.sums[path] = sum
	}
}

// link is told that path is another name of the inode at target: which name of it remember comes by last is chance.
func (d *digests) link(path, target string) {
	if d == nil || d.off {
		return
	}
	if sum, known := d.sums[target]; known {
		d.sums[path] = sum
	}
}

// remember tells w what is known of the tree that was just made: the digests, and what a look at each inode tells.
func (d *digests) remember(ctx context.Context, root *os.File, workers int, w *statindex.Writer) error {
	if w == nil || d.off {
		return nil
	}
	at := tree.NewRoot(root)
	return tree.Each(ctx, root, workers, func(e *tree.Entry) error {
		if e.Mount {
			return tree.ErrSkipDir
		}
		var rec statindex.Record
		bare, err := e.Bare()
		if err != nil {
			return err
		}
		if bare {
			rec.Flags |= statindex.NoXattrs
		}
		if e.Type() == unix.S_IFREG {
			sum, known := d.sums[e.Path]
			if known {
				rec.Digest = sum
				rec.Flags |= statindex.Digest
			}
			if err := noHoles(at, e.Path, &e.Stat, &rec); err != nil {
				return err
			}
		}
		w.Add(&e.Stat, rec)
		return nil
	})
}
