package debs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/sstate/lock"
)

// VerifyOptions say what Verify compares with, and what it does about damage.
type VerifyOptions struct {
	Lists   []string     // directories of Packages files, or rootfs trees with apt's lists
	Remove  bool         // the damaged ones
	DryRun  bool         // of Remove
	Workers int          //
	Note    func(string) // told what is waited for; may be nil
}

// Verified is what Verify found.
type Verified struct {
	Right   int       `json:"right"`   // whole, and with the content that a list says
	Whole   int       `json:"whole"`   // whole, and in no list
	Damaged []Refusal `json:"damaged"` // neither
	Removed int       `json:"removed,omitempty"`
	Bytes   int64     `json:"bytes"`
}

// String is the summary in one line.
func (v Verified) String() string {
	text := fmt.Sprintf("%d debs are what the lists say, %d more are whole, %d are damaged", v.Right, v.Whole, len(v.Damaged))
	if v.Removed > 0 {
		text += fmt.Sprintf(" and have been removed: %d", v.Removed)
	}
	return text
}

// Verify reads all debs of the cache at dl and checks that they are whole and, as far as the lists know them, right. It believes no
// record of earlier runs. Damage that is not removed is a *RefusedError with a valid summary.
func Verify(ctx context.Context, env EnvFunc, dl string, o VerifyOptions) (v Verified, err error) {
	c, err := openCache(dl, o.Note)
	if err != nil {
		return v, fmt.Errorf("verify: %w", err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if c.dir == nil {
		return v, fmt.Errorf("verify: %w", &fs.PathError{Op: "open", Path: dl, Err: unix.ENOENT})
	}
	there, err := c.list(ctx)
	if err != nil {
		return v, fmt.Errorf("verify: %w", err)
	}
	plan := planImport(there, Listing{}, func(Package) bool { return true })
	x, err := gather(ctx, env, o.Lists, plan)
	if err != nil {
		return v, fmt.Errorf("verify %s: %w", dl, err)
	}
	known := &record{known: map[stamp]recorded{}}
	errs := make([]error, len(plan))
	var group errgroup.Group
	group.SetLimit(workers(o.Workers))
	for i, s := range plan {
		group.Go(func() error {
			errs[i] = c.verify(s, x, known)
			return ctx.Err()
		})
	}
	if err := group.Wait(); err != nil {
		return v, err
	}
	var bad []Step
	for i, s := range plan {
		switch {
		case errs[i] != nil:
			v.Damaged = append(v.Damaged, Refusal{s.File, errs[i].Error()})
			bad = append(bad, s)
			continue
		case len(x[s.pkg]) > 0:
			v.Right++
		default:
			v.Whole++
		}
		v.Bytes += s.Size
	}
	if o.Remove && !o.DryRun {
		v.Removed, err = c.remove(ctx, bad)
	}
	if err == nil && v.Removed < len(bad) && !o.DryRun {
		err = &RefusedError{"verify " + dl, len(plan), v.Damaged}
	}
	return v, err
}

// verify checks one file of DL.
func (c *cache) verify(s Step, x Index, known *record) error {
	if s.Action == Refuse {
		return errors.New(s.Reason)
	}
	f, err := openRegular(c.dir, s.File)
	if err != nil {
		return err
	}
	defer f.Close()
	return checkFile(f, x[s.pkg], known)
}

// remove takes the files of steps away, where they still are what was listed. Directories stay.
func (c *cache) remove(ctx context.Context, steps []Step) (n int, err error) {
	if len(steps) == 0 {
		return 0, nil
	}
	err = c.locked(ctx, lock.Options{Mode: lockMode(c.dir)}, func() error {
		for _, s := range steps {
			var st unix.Stat_t
			err := unix.Fstatat(int(c.dir.Fd()), s.File, &st, unix.AT_SYMLINK_NOFOLLOW)
			if err == unix.ENOENT || err == nil && (!file(s.File, &st).sameInode(s.from) || st.Mode&unix.S_IFMT == unix.S_IFDIR) {
				continue
			}
			if err == nil {
				err = unix.Unlinkat(int(c.dir.Fd()), s.File, 0)
			}
			if err != nil {
				return &fs.PathError{Op: "unlinkat", Path: c.path + "/" + s.File, Err: err}
			}
			n++
		}
		return nil
	})
	return n, err
}

// gather reads lists from several places, each a directory of them or a rootfs.
func gather(ctx context.Context, env EnvFunc, places []string, steps []Step) (Index, error) {
	x := Index{}
	for _, path := range places {
		part, err := gatherAt(ctx, env, path, steps)
		if err != nil {
			return nil, fmt.Errorf("lists of %s: %w", path, err)
		}
		for p, sums := range part {
			for _, s := range sums {
				x.put(p, s)
			}
		}
	}
	return x, nil
}

func gatherAt(ctx context.Context, env EnvFunc, path string, steps []Step) (_ Index, err error) {
	r, err := openRootfs(path, env)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	lists, err := r.isListDir()
	if err != nil {
		return nil, err
	}
	if !lists {
		path = ""
	}
	return lookUp(ctx, r, path, steps)
}

// isListDir tells a directory with Packages files from a rootfs. One that is closed to the caller can only be a rootfs.
func (r *rootfs) isListDir() (bool, error) {
	if r.rest != "" {
		return false, nil
	}
	names, err := readNames(r.root)
	if denied(err) {
		return false, nil
	}
	return slices.ContainsFunc(names, isList), err
}
