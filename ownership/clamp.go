package ownership

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
)

// Clamped counts what Clamp did.
type Clamped struct {
	Inodes  int64 `json:"inodes"`
	Changed int64 `json:"changed"`
	Mounts  int64 `json:"mounts,omitempty"` // mount points left out
}

type clampArgs struct {
	Place   place
	Epoch   int64
	Workers int
}

// Clamp sets the modification time of everything in the tree dir, symlinks and dir itself included, that is later than
// epoch (seconds since 1970) to it, and the access time of the same inodes with it, as touch(1) does.
func Clamp(ctx context.Context, e *userns.Env, dir string, epoch int64, workers int) (Clamped, error) {
	parent, rest, name, err := ferry.OpenParent(dir)
	if err != nil {
		return Clamped{}, err
	}
	defer parent.Close()
	c, err := clampHalf.Run(ctx, e, clampArgs{place{rest, name, e.CallerFSIDs()}, epoch, workers}, nil, parent)
	if err != nil {
		return c, fmt.Errorf("clamp %s: %w", dir, err)
	}
	return c, nil
}

// clampHalf gets the directory that the tree is in.
var clampHalf = userns.Half[clampArgs, Clamped]{Name: "clamp", Func: func(ctx context.Context, in *userns.Inner, a clampArgs) (c Clamped, err error) {
	root, err := a.Place.open(in.Files[0])
	if err != nil {
		return c, err
	}
	defer root.Close()
	var inodes, changed counter
	c.Mounts, err = each(ctx, root, a.Workers, func(e *tree.Entry) error {
		inodes.add(1)
		m := e.Stat.Mtime
		if m.Sec < a.Epoch || m.Sec == a.Epoch && m.Nsec == 0 {
			return nil
		}
		err := e.SetTimes(unix.Timespec{Sec: a.Epoch})
		if gone(err) {
			return nil
		}
		changed.add(1)
		return err
	})
	c.Inodes, c.Changed = inodes.n.Load(), changed.n.Load()
	return c, err
}}
