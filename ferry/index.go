package ferry

import (
	"os"

	"github.com/nsferry/nsferry/archive/statindex"
)

// indexer keeps what is known of a tree that a half has made, in a file of the caller's. An index is a cache: that there is none
// is no failure, and why tells the reason.
type indexer struct {
	out    *os.File // nil: nobody asks for one
	origin string
	before *statindex.Index // of the tree, or nil
	writer *statindex.Writer
	why    string
}

// begin returns a function for archive's options, nil where no index is wanted.
func (x *indexer) begin(root *os.File) func() *statindex.Writer {
	if x.out == nil {
		return nil
	}
	return func() *statindex.Writer {
		w, err := statindex.NewWriter(root, statindex.Options{Origin: x.origin, Before: x.before})
		if err != nil {
			x.why = err.Error()
			return nil
		}
		x.writer = w
		return w
	}
}

// write writes the index, and tells whether it did.
func (x *indexer) write() bool {
	if x.writer == nil {
		return false
	}
	if _, err := x.writer.WriteTo(x.out); err != nil {
		x.why = err.Error()
		return false
	}
	return true
}
