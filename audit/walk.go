package audit

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/nsferry/nsferry/acl"
	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/idshift"
	"github.com/nsferry/nsferry/idshift/userns"
	"golang.org/x/sys/unix"
)

type args struct {
	Rest, Dir string
	Most      int
	Open      bool // other users can reach Dir
	Ids       ids
}

// auditHalf gets the directory.
var auditHalf = userns.Half[args, Report]{Name: "audit", Func: func(ctx context.Context, in *userns.Inner, a args) (Report, error) {
	root, err := userns.ReopenDir(in.Files[0], a.Rest)
	if err != nil {
		return Report{}, err
	}
	defer root.Close()
	w := &walker{args: a, count: map[ownerKey]*Owner{}, seen: map[inode]int{}, linked: map[inode]*linked{}, told: map[string]int64{}}
	w.report.Findings = []Finding{}
	if err := tree.Walk(ctx, root, w.visit); err != nil {
		return Report{}, err
	}
	return w.finish(), nil
}}

type ownerKey struct {
	kind idshift.Kind
	id   uint32
	none bool // no id inside: the number says nothing
}

type inode struct{ dev, ino uint64 }

// walker is one walk. It keeps the directories above the present entry.
type walker struct {
	args
	report Report
	count  map[ownerKey]*Owner
	seen   map[inode]int // of those with several names: the first rootfs that one was in, or -1
	linked map[inode]*linked
	told   map[string]int64
	closed string // the mode that closes Dir to other users
	above  []level
	quiet  string // a leftover tree, whose inside is not looked at
}

// level is a directory above the present entry.
type level struct {
	path   string
	open   bool // to other users, like all above it
	rootfs int  // index in report.Trees of the tree that it is in, or -1
	spread *Finding
}

// visit looks at one entry.
func (w *walker) visit(e *tree.Entry) error {
	if e.Mount {
		return tree.ErrSkipDir
	}
	if e.Path == "." {
		w.closed = "0700"
		if a, err := readACL(e, acl.Access); err == nil && len(a) > 3 {
			w.closed = "o-rwx" // the group's bits are the mask: 0700 would cut what is granted to inner root
		}
	}
	up := w.parent(e.Path)
	i := w.inodeOf(e)
	first := w.tally(e, i, up)
	here := level{path: e.Path, open: up.open, rootfs: up.rootfs}
	if e.Type() == unix.S_IFDIR {
		here.open = up.open && w.searchable(e, i)
		if up.rootfs < 0 && isRootfs(e) {
			here.rootfs = w.newRootfs(e, i)
		}
	}
	w.link(e, up)
	if !w.isQuiet(e.Path) {
		if err := w.examine(e, i, up, &here, first); err != nil {
			return err
		}
	}
	if e.Type() == unix.S_IFDIR {
		w.above = append(w.above, here)
	}
	return nil
}

// parent drops the levels that are not above path, and returns the last that is.
func (w *walker) parent(path string) level {
	for len(w.above) > 0 {
		top := w.above[len(w.above)-1]
		if top.path == "." && path != "." || strings.HasPrefix(path, top.path+"/") {
			return top
		}
		w.above = w.above[:len(w.above)-1]
	}
	return level{open: w.Open, rootfs: -1}
}

func (w *walker) isQuiet(path string) bool {
	return w.quiet != "" && strings.HasPrefix(path, w.quiet+"/")
}

// facts are an inode's ids: outside, and whether it has any there that can be told.
type facts struct {
	uid, gid      uint32
	noUID, noGID  bool
	class, gclass Class
}

// inodeOf finds the true ids.
func (w *walker) inodeOf(e *tree.Entry) facts {
	f := facts{uid: w.Ids.outside(idshift.UID, e.Stat.Uid), gid: w.Ids.outside(idshift.GID, e.Stat.Gid)}
	if !w.Ids.Direct {
		f.noUID, f.noGID = unmapped(e, w.Ids.Seen)
	}
	f.class, f.gclass = w.Ids.class(idshift.UID, f.uid), w.Ids.class(idshift.GID, f.gid)
	if f.noUID {
		f.class = Foreign
	}
	if f.noGID {
		f.gclass = Foreign
	}
	return f
}

// overflow is what the kernel shows for an id without a mapping (/proc/sys/kernel/overflowuid).
const overflow = 65534

// unmapped tells which of the entry's ids have no mapping. Where both might, and one of them has none, the kernel does not tell
// which; both are said to have none.
func unmapped(e *tree.Entry, m idshift.Mapping) (uid, gid bool) {
	uid, gid = e.Stat.Uid == overflow, e.Stat.Gid == overflow
	if !uid && !gid || e.OwnerIsMapped() {
		return false, false
	}
	return uid, gid
}

// tally counts the inode, once however many names it has, and tells whether it is the first.
func (w *walker) tally(e *tree.Entry, f facts, here level) bool {
	if e.Stat.Nlink > 1 && e.Type() != unix.S_IFDIR {
		id := inode{e.Device(), e.Stat.Ino}
		if _, ok := w.seen[id]; ok {
			return false
		}
		w.seen[id] = here.rootfs
	}
	w.report.Inodes++
	for _, o := range []struct {
		key   ownerKey
		class Class
	}{{ownerKey{idshift.UID, f.uid, f.noUID}, f.class}, {ownerKey{idshift.GID, f.gid, f.noGID}, f.gclass}} {
		if o.key.none {
			o.key.id = overflow
		}
		c := w.count[o.key]
		if c == nil {
			c = &Owner{Kind: o.key.kind.String(), ID: o.key.id, Unknown: o.key.none, Who: o.class}
			if !o.key.none {
				c.Inside = w.Ids.models(o.key.kind, o.key.id)
			}
			w.count[o.key] = c
		}
		c.Inodes++
		c.Bytes += int64(e.Stat.Blocks) * 512
	}
	return true
}

// newRootfs notes the tree and by whose its root is which model it follows.
func (w *walker) newRootfs(e *tree.Entry, f facts) int {
	t := Rootfs{Path: w.abs(e.Path), Model: "base"}
	if f.class == Caller && !w.Ids.Direct {
		t.Model = "caller"
	}
	w.report.Trees = append(w.report.Trees, t)
	for i := range w.above {
		if s := w.above[i].spread; s != nil {
			w.tell(*s)
			w.above[i].spread = nil
		}
	}
	return len(w.report.Trees) - 1
}

func (w *walker) abs(path string) string { return filepath.Join(w.Dir, path) }

// isRootfs tells whether the directory has what the root of a system has.
func isRootfs(e *tree.Entry) bool {
	has := func(name string) bool {
		var st unix.Stat_t
		return unix.Fstatat(e.Dir, filepath.Join(e.Base, name), &st, unix.AT_SYMLINK_NOFOLLOW) == nil
	}
	return has("etc") && has("usr") && (has("var") || has("bin"))
}

// tell adds a finding, or counts it.
func (w *walker) tell(f Finding) {
	if f.Severity == Problem {
		w.report.Problems++
	}
	if w.told[f.ID]++; w.Most > 0 && w.told[f.ID] > int64(w.Most) {
		if w.report.More == nil {
			w.report.More = map[string]int64{}
		}
		w.report.More[f.ID]++
		return
	}
	w.report.Findings = append(w.report.Findings, f)
}

func (w *walker) finish() Report {
	w.tellLinks()
	for _, o := range w.count {
		w.report.Owners = append(w.report.Owners, *o)
	}
	w.report.sortOwners()
	return w.report
}
