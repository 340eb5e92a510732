package sstate

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"

	"github.com/nsferry/nsferry/idshift/handoff"
)

// treeIndex is the index of a tree (docs/INDEX.md) in the caller's cache. That there is none, or that it cannot be kept, costs time and
// is no failure: all methods work on one that holds nothing.
type treeIndex struct {
	old *os.File
	dir *os.File
	new *handoff.Pending
}

// openTreeIndex opens the index of tree in dir, which is made if need be, and begins the next one. An empty dir is no index;
// fresh leaves the old one alone.
func openTreeIndex(dir, tree string, fresh bool) *treeIndex {
	x := &treeIndex{}
	path, err := filepath.Abs(tree)
	if dir == "" || err != nil || os.MkdirAll(dir, 0o700) != nil {
		return x
	}
	// The same tree by another name would have another index, which is slower and never wrong.
	if real, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		path = filepath.Join(real, filepath.Base(path))
	}
	sum := sha256.Sum256([]byte(path))
	name := hex.EncodeToString(sum[:16])
	if x.dir, err = os.Open(dir); err != nil {
		return &treeIndex{}
	}
	if !fresh {
		if x.old, err = os.Open(filepath.Join(dir, name)); err != nil {
			x.old = nil
		}
	}
	if x.new, err = handoff.NewPending(x.dir, name, handoff.Options{Overwrite: handoff.Replace}); err != nil {
		x.new = nil
	}
	return x
}

// next returns the file for the next index, nil where there can be none.
func (x *treeIndex) next() *os.File {
	if x.new == nil {
		return nil
	}
	return x.new.File()
}

// close keeps the next index if it was written, and releases everything.
func (x *treeIndex) close() error {
	var errs []error
	if x.new != nil {
		if st, err := x.new.File().Stat(); err == nil && st.Size() > 0 {
			_ = x.new.Commit() // without it the next run takes longer
		}
		errs = append(errs, x.new.Abort())
	}
	for _, f := range []*os.File{x.old, x.dir} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
