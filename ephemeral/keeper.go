package ephemeral

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"

	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/handoff"
	"github.com/nsferry/nsferry/idshift/userns"

	"golang.org/x/sys/unix"
)

type keepArgs struct {
	Name    string // of the layer
	As      userns.FSIDs
	Clone   bool // fill it with a copy of the tree
	Workers int
	Devices bool // device nodes can be made
}

// keeperHalf gets the directory of layers, the layer, and for a clone the tree. More files are locks to hold. It makes the
// layer inner root's, and removes it when the run is over.
var keeperHalf = userns.Half[keepArgs, struct{}]{Name: "keeper", Func: func(ctx context.Context, in *userns.Inner, a keepArgs) (none struct{}, err error) {
	runs, err := ferry.OpenParentDir(in.Files[0], "", a.As)
	if err != nil {
		return none, err
	}
	defer runs.Close()
	defer func() {
		_, gone := tree.Remove(context.Background(), runs.File, a.Name, runs.Do)
		err = errors.Join(err, gone)
	}()
	if err := runs.Sweep(ctx, layerName); err != nil {
		return none, err
	}
	dir := in.Files[1]
	if err := errors.Join(dir.Chown(0, 0), tree.DropACLs(dir), dir.Chmod(0o700)); err != nil {
		return none, err
	}
	var done cloned
	if a.Clone {
		if done, err = clone(ctx, in.Files[2], dir, a); err != nil {
			return none, err
		}
	}
	in.Progress(done)
	return none, in.WaitRun()
}}

// clone fills the empty directory dst with what is in the tree src.
func clone(ctx context.Context, src, dst *os.File, a keepArgs) (done cloned, err error) {
	root, err := userns.ReopenDir(src, "")
	if err != nil {
		return done, err
	}
	defer root.Close()
	b, err := tree.NewBuilder(dst, tree.BuildOptions{Workers: a.Workers})
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	var mu sync.Mutex
	done.Method = handoff.Reflink
	c := tree.NewCopier(root, b)
	c.Takes = carried
	c.Content = func(to, from *os.File) error {
		mu.Lock()
		top := done.Method // what has failed once fails again
		mu.Unlock()
		res, err := handoff.Transfer(ctx, to, from, handoff.Ladder{Top: top})
		mu.Lock()
		defer mu.Unlock()
		if err == nil && res.Bytes > 0 && res.Method != handoff.Reflink && done.Method != handoff.Copy {
			done.Method = res.Method
		}
		return err
	}
	err = tree.Walk(ctx, root, func(e *tree.Entry) error {
		if e.Mount && e.Type() != unix.S_IFDIR {
			return nil
		}
		if t := e.Type(); (t == unix.S_IFCHR || t == unix.S_IFBLK) && !a.Devices && (e.Stat.Rdev_major != 0 || e.Stat.Rdev_minor != 0) {
			done.Skipped++
			return nil
		}
		if err := c.Copy(ctx, e); err != nil || !e.Mount {
			return err
		}
		return tree.ErrSkipDir
	})
	return done, err
}

// carried are the attributes that a copy gets: all but the labels of security modules, which the kernel gives it anew.
func carried(key string) bool {
	return key == tree.XattrCapability || !strings.HasPrefix(key, "security.")
}

// sweepHalf gets the directory of layers and removes those that nobody holds.
var sweepHalf = userns.Half[keepArgs, struct{}]{Name: "sweep", Func: func(ctx context.Context, in *userns.Inner, a keepArgs) (none struct{}, err error) {
	runs, err := ferry.OpenParentDir(in.Files[0], "", a.As)
	if err != nil {
		return none, err
	}
	defer runs.Close()
	return none, runs.Sweep(ctx, layerName)
}}
