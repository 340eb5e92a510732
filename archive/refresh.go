package archive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/nsferry/nsferry/archive/statindex"
	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/archive/zframe"
	"github.com/nsferry/nsferry/archive/zframe/toc"

	"golang.org/x/sync/errgroup"
)

// RefreshOptions say how a tree is turned into what an archive holds.
type RefreshOptions struct {
	IDs    IDs
	Policy Policy
	// Exclude are paths that are neither taken from the archive nor touched in the tree.
	Exclude Excludes
	// Only, if not empty, are the paths that are taken from the archive, each with all that is in it and with the directories that lead
	// to it. The tree must be empty then.
	Only []string
	// Sums, if not nil, are what FrameSums returned before: the table of contents must have these sums.
	Sums [][32]byte
	// Index, if not nil, tells what of the tree need not be read.
	Index *statindex.Index
	// Remember, if not nil, is called when the tree is complete; what is known of its inodes then goes into the Writer that it returns, which may be nil.
	Remember func() *statindex.Writer
	Workers  int
	// Resumed says that an earlier run has left the tree as it is: whose it is is known.
	Resumed bool
	// Wary refuses a tree most of whose names at the top the archive does not have.
	Wary bool
	// Begin, if not nil, is called before the first change, when it is known what to do and that the archive has all it takes. It is not
	// called when there is nothing to do.
	Begin func() error
	// Progress, if not nil, is told how many bytes of the tar stream were read.
	Progress func(raw int64)
}

// Refreshed counts what Refresh did.
type Refreshed struct {
	Summary        // of the archive: what the tree now holds
	Kept     int64 `json:"kept"`              // names that were right
	Adjusted int64 `json:"adjusted"`          // inodes that got other metadata
	Made     int64 `json:"made"`              // new inodes
	Linked   int64 `json:"linked"`            // new names of inodes
	Removed  int64 `json:"removed"`           // names that are gone; the names in removed directories count
	Written  int64 `json:"written"`           // bytes of content in new inodes
	Fetched  int   `json:"fetched,omitempty"` // frames of the archive that were needed
}

// Changed tells whether anything was done.
func (r *Refreshed) Changed() bool { return r.Adjusted+r.Made+r.Linked+r.Removed > 0 }

// ErrNoTable is an archive without a table of contents of ours where one is needed.
var ErrNoTable = errors.New("the archive has no table of contents of ours, which this takes; nsferry convert makes one that has, or unpack all of it")

// Refresh turns the tree at root into exactly the state of an archive of ours, and touches only what differs: what it looks at is the
// table of contents and the tree, of the archive's content it reads the frames that hold what the tree lacks. All of it is planned and
// the frames are checked before Begin is called and anything is changed. After an error behind that the tree is neither the old nor
// the new one; another Refresh completes it.
//
// Content goes into new inodes, never through existing ones. An inode that has names outside of the tree is not changed, but replaced.
// The tree must be in rest. One that something else changes meanwhile may end up as a mixture, but nothing outside of root is touched.
func Refresh(ctx context.Context, in *os.File, root *os.File, o RefreshOptions) (Refreshed, error) {
	r := &refresher{RefreshOptions: &o, root: tree.NewRoot(root), dir: root, begun: time.Now()}
	o.Workers = max(o.Workers, 1)
	if err := o.Exclude.Check(); err != nil {
		return r.sum, err
	}
	var err error
	if r.file, err = openFramed(in); errors.Is(err, zframe.ErrNotSeekable) {
		return r.sum, fmt.Errorf("%w (%w)", ErrNoTable, err)
	} else if err != nil {
		return r.sum, err
	}
	return r.sum, r.run(ctx)
}

// refresher is one run of Refresh.
type refresher struct {
	*RefreshOptions
	begun  time.Time
	file   *zframe.File
	dir    *os.File
	root   *tree.Root
	frames []zframe.Frame
	wants  []want // in the archive's order: directories come before what is in them
	at     map[string]int
	haves  map[string]*have
	kept   map[string]bool // directories with something excluded in them
	sum    Refreshed

	remove  map[string][]string // by directory
	touched map[string]bool     // directories whose time a change of names has moved
	need    []int               // frames, in order
}

func (r *refresher) run(ctx context.Context) error {
	if err := r.look(ctx); err != nil {
		return err
	}
	if err := r.check(); err != nil {
		return err
	}
	if err := r.plan(ctx); err != nil {
		return err
	}
	if !r.sum.Changed() {
		return r.remember()
	}
	if err := r.checkFrames(ctx); err != nil {
		return err
	}
	if r.Begin != nil {
		if err := r.Begin(); err != nil {
			return err
		}
	}
	if err := r.apply(ctx); err != nil {
		return err
	}
	return r.remember()
}

// look reads the table of contents and the tree at the same time.
func (r *refresher) look(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		table, err := toc.ReadAll(r.file)
		if err != nil {
			return err
		}
		r.frames = table.Frames
		if r.Sums != nil && !slices.EqualFunc(r.Sums, r.frames, func(a [32]byte, b zframe.Frame) bool { return a == b.Sum }) {
			return &zframe.CorruptError{Where: "table of contents", Err: errors.New("has changed since it was checked")}
		}
		return r.choose(table.Entries)
	})
	g.Go(func() error { return r.survey(ctx) })
	return g.Wait()
}

// check refuses a tree that is not for this archive.
func (r *refresher) check() error {
	if len(r.Only) > 0 && len(r.haves) > 1 {
		return errors.New("a part of an archive goes into an empty tree only")
	}
	if !r.Wary {
		return nil
	}
	return r.resembles()
}
