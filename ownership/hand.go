package ownership

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
)

// HandOptions say how Give and Take go about it.
type HandOptions struct {
	Recursive bool // directories with all that is in them
	Workers   int
}

// Handed counts what Give or Take did. Changing an owner drops setuid and setgid bits and capabilities of what is no directory
// (chown(2)); they are not put back, because they were meant for the old owner.
type Handed struct {
	Inodes       int64 `json:"inodes"`
	Changed      int64 `json:"changed"`
	Setuid       int64 `json:"setuid,omitempty"`       // files that lost setuid or setgid bits
	Capabilities int64 `json:"capabilities,omitempty"` // files that lost capabilities
	Mounts       int64 `json:"mounts,omitempty"`       // mount points left out
}

// Add sums two counts.
func (h *Handed) Add(o Handed) {
	h.Inodes += o.Inodes
	h.Changed += o.Changed
	h.Setuid += o.Setuid
	h.Capabilities += o.Capabilities
	h.Mounts += o.Mounts
}

type handArgs struct {
	Place    place
	UID, GID uint32 // as the half sees them
	Options  HandOptions
}

// Give makes path the caller's: owner and group. A symlink is itself given, not what it points to. Attributes stay, ACLs
// included, whose named entries still mean the same users.
func Give(ctx context.Context, e *userns.Env, path string, o HandOptions) (Handed, error) {
	as := e.CallerFSIDs()
	if e.Direct {
		as.UID, as.GID = e.Caller.UID, e.Caller.GID
	}
	return hand(ctx, e, path, as.UID, as.GID, o)
}

// Take makes path inner root's: uid 0 and gid 0 of the plain map. Otherwise it is as Give.
func Take(ctx context.Context, e *userns.Env, path string, o HandOptions) (Handed, error) {
	var uid, gid uint32 // inside, the kernel translates
	if e.Arithmetic() {
		var okUID, okGID bool
		uid, okUID = e.Plain.UID.ToOutside(0)
		gid, okGID = e.Plain.GID.ToOutside(0)
		if !okUID || !okGID {
			return Handed{}, &userns.UsageError{What: "the map has no inner root (inside id 0)"}
		}
	}
	return hand(ctx, e, path, uid, gid, o)
}

func hand(ctx context.Context, e *userns.Env, path string, uid, gid uint32, o HandOptions) (Handed, error) {
	parent, rest, name, err := ferry.OpenParent(path)
	if err != nil {
		return Handed{}, err
	}
	defer parent.Close()
	h, err := handHalf.Run(ctx, e, handArgs{place{rest, name, e.CallerFSIDs()}, uid, gid, o}, nil, parent)
	if err != nil {
		return h, fmt.Errorf("%s: %w", path, err)
	}
	return h, nil
}

// handHalf gets the directory that the path is in.
var handHalf = userns.Half[handArgs, Handed]{Name: "hand", Func: func(ctx context.Context, in *userns.Inner, a handArgs) (Handed, error) {
	parent, err := ferry.OpenParentDir(in.Files[0], a.Place.Rest, a.Place.As)
	if err != nil {
		return Handed{}, err
	}
	defer parent.Close()
	w := hander{args: a}
	isDir := false
	e := &tree.Entry{Path: a.Place.Name, Dir: int(parent.Fd()), Base: a.Place.Name}
	err = parent.Do(func() error { return e.Look() })
	if err == nil {
		isDir = e.Type() == unix.S_IFDIR
	}
	if err == nil && isDir && a.Options.Recursive {
		return w.all(ctx, parent)
	}
	if err == nil {
		err = w.one(e, parent.Do)
	}
	return w.sum(0), err
}}

type hander struct {
	args                          handArgs
	inodes, changed, setuid, caps counter
}

func (w *hander) sum(mounts int64) Handed {
	return Handed{w.inodes.n.Load(), w.changed.n.Load(), w.setuid.n.Load(), w.caps.n.Load(), mounts}
}

// all hands over a directory and what is in it.
func (w *hander) all(ctx context.Context, parent *ferry.ParentDir) (Handed, error) {
	fd, err := parent.OpenDir(w.args.Place.Name)
	if err != nil {
		return Handed{}, &os.PathError{Op: "openat", Path: w.args.Place.Name, Err: err}
	}
	root := os.NewFile(uintptr(fd), w.args.Place.Name)
	defer root.Close()
	mounts, err := each(ctx, root, w.args.Options.Workers, func(e *tree.Entry) error {
		return w.one(e, w.args.Place.As.Do)
	})
	return w.sum(mounts), err
}

// one hands over one inode. as runs system calls with the rights of inner root or else the caller's: his own file in a group
// that the namespace does not map is one that only he can change.
func (w *hander) one(e *tree.Entry, as func(func() error) error) error {
	var h *tree.Handle
	err := as(func() (err error) { h, err = e.OpenHandle(); return err })
	if gone(err) && e.Base != w.args.Place.Name {
		return nil
	}
	if err != nil {
		return err
	}
	defer h.Close()
	w.inodes.add(1)
	if h.Stat.Uid == w.args.UID && h.Stat.Gid == w.args.GID {
		return nil
	}
	attrs, err := h.Ownership()
	if err != nil {
		return err
	}
	err = as(func() error { return h.SetOwner(w.args.UID, w.args.GID) })
	if errors.Is(err, unix.EPERM) {
		err = fmt.Errorf("%w: it belongs neither to you nor to your sub-ids", err)
	}
	if err != nil {
		return err
	}
	w.changed.add(1)
	if h.Type() == unix.S_IFDIR {
		return nil
	}
	if was := uint32(h.Stat.Mode) & privileged; was != 0 {
		if err := h.Refresh(); err != nil {
			return err
		}
		if was&^uint32(h.Stat.Mode) != 0 { // a setgid bit without execute permission is kept
			w.setuid.add(1)
		}
	}
	for _, x := range attrs {
		if x.Key == tree.XattrCapability {
			w.caps.add(1)
		}
	}
	return nil
}
