package ferry

import (
	"os"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/statindex"
)

// Increment is what a tree's earlier state can save of packing it. All files stay the caller's; each may be nil.
type Increment struct {
	Base    *os.File `json:"-"` // an archive of an earlier state: what of it is still true is copied
	Index   *os.File `json:"-"` // the index of the tree that was made then: files that it knows are not read
	Record  *os.File `json:"-"` // empty: gets the next index, or nothing where there can be none
	Origin  string   // what the next index records as the tree's origin
	Explain bool     // find out why frames are not copied
	// Elide allows to write nothing when the archive is the base, byte for byte, and says so in Reuse.Same.
	Elide bool
}

// incrementAt are the places of an Increment's files among those of the half, 0 for those that are not there.
type incrementAt struct{ Base, Index, Record int }

// add appends the files, for the half's.
func (i *Increment) add(files []*os.File) (at incrementAt, all []*os.File) {
	for _, f := range []struct {
		file *os.File
		at   *int
	}{{i.Base, &at.Base}, {i.Index, &at.Index}, {i.Record, &at.Record}} {
		if f.file != nil {
			*f.at = len(files)
			files = append(files, f.file)
		}
	}
	return at, files
}

// open gives o what the files hold, and returns what keeps the next index. It runs in the half.
func (at incrementAt) open(root *os.File, files []*os.File, i *Increment, o *archive.CreateOptions) *increment {
	x := &increment{indexer: indexer{origin: i.Origin}}
	if at.Base > 0 {
		o.Base = files[at.Base]
	}
	if at.Index > 0 {
		o.Index, x.noIndex = statindex.Read(files[at.Index], root)
		x.before = o.Index
	}
	if at.Record > 0 {
		x.out = files[at.Record]
		o.Record = x.begin(root)()
	}
	return x
}

// increment is what a pack learns beside the archive.
type increment struct {
	indexer
	noIndex error
}

// finish writes the next index.
func (x *increment) finish(sum *archive.Summary) {
	x.write()
	if r := sum.Reuse; r != nil {
		r.NoRecord = x.why
		if x.noIndex != nil {
			r.NoIndex = x.noIndex.Error()
		}
	}
}
