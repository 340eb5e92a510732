package debs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/sstate/lock"
)

// VerifyOptions say what Verify compares with, and what it does about damage.
type VerifyOptions struct {
	Lists   []string     // directories of Packages and Sources files, or rootfs trees with apt's lists
	Remove  bool         // the damaged ones
	DryRun  bool         // of Remove
	Workers int          //
	Note    func(string) // told what is waited for; may be nil
}

// Verified is what Verify found, of debs and of source packages.
type Verified struct {
	Right   int       `json:"right"`             // whole, and with the content that a list says
	Whole   int       `json:"whole"`             // whole, and in no list
	Damaged []Refusal `json:"damaged,omitempty"` // neither
	Removed int       `json:"removed,omitempty"` // of the damaged
	Bytes   int64     `json:"bytes"`             // read
}

// String is the summary in one line.
func (v Verified) String() string {
	text := fmt.Sprintf("%d packages are what the lists say, %d more are whole, %d are damaged", v.Right, v.Whole, len(v.Damaged))
	if v.Removed > 0 {
		text += fmt.Sprintf(", of which %d have been removed", v.Removed)
	}
	return text
}

// Verify reads all packages of the cache at dl, debs and sources, and checks that they are whole and, as far as the lists know them,
// right. It believes no record of earlier runs, and leaves one for later ones. Damage that is not removed is a *RefusedError, with a valid summary. What is named
// like a deb and is none, or not named as apt names debs, counts as damaged and is never removed.
func Verify(ctx context.Context, env EnvFunc, dl string, o VerifyOptions) (v Verified, err error) {
	c, there, err := openExisting(ctx, dl, o.Note)
	if err != nil {
		return v, fmt.Errorf("verify: %w", err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	units, odd, err := c.units(there)
	if err != nil {
		return v, fmt.Errorf("verify: %w", err)
	}
	x, err := gather(ctx, env, o.Lists, units)
	if err != nil {
		return v, fmt.Errorf("verify %s: %w", dl, err)
	}
	known := newRecord(c.dir)
	errs := make([]error, len(units))
	err = crew(ctx, workers(o.Workers), len(units), func(_ context.Context, i int, buf []byte) error {
		errs[i] = units[i].verify(c, x, known, buf)
		return nil
	})
	if err != nil {
		return v, fmt.Errorf("verify: %w", err)
	}
	known.save(there)
	v.Damaged = odd
	var bad []part
	for i, u := range units {
		v.Bytes += u.size
		switch {
		case errs[i] != nil:
			v.Damaged = append(v.Damaged, Refusal{u.file, errs[i].Error()})
			bad = append(bad, u.parts[0])
		case len(x[u.Package]) > 0:
			v.Right++
		default:
			v.Whole++
		}
	}
	if o.Remove && !o.DryRun {
		// Of a damaged source only the .dsc goes: its other files may be good, and are another's, too.
		if v.Removed, err = c.remove(ctx, bad); err != nil {
			return v, fmt.Errorf("verify: %w", err)
		}
	}
	if v.Removed < len(v.Damaged) && !o.DryRun {
		return v, &RefusedError{"verify " + dl, len(units) + len(odd), v.Damaged}
	}
	return v, nil
}

// openExisting opens a cache that has to be there, and lists it.
func openExisting(ctx context.Context, dl string, note func(string)) (*cache, Listing, error) {
	c, err := openCache(dl, note)
	if err != nil {
		return nil, Listing{}, err
	}
	if c.dir == nil {
		return nil, Listing{}, &fs.PathError{Op: "open", Path: dl, Err: unix.ENOENT}
	}
	l, err := c.list(ctx)
	if err != nil {
		return nil, l, errors.Join(err, c.Close())
	}
	return c, l, nil
}

// remove takes files away that still are what was listed.
func (c *cache) remove(ctx context.Context, parts []part) (n int, err error) {
	if len(parts) == 0 {
		return 0, nil
	}
	err = c.locked(ctx, lock.Options{Mode: lockMode(c.dir)}, func() error {
		for _, p := range parts {
			var st unix.Stat_t
			err := unix.Fstatat(int(c.dir.Fd()), p.path, &st, unix.AT_SYMLINK_NOFOLLOW)
			if err == unix.ENOENT || err == nil && !file("", &st).sameInode(p.File) {
				continue
			}
			if err == nil {
				err = unix.Unlinkat(int(c.dir.Fd()), p.path, 0)
			}
			if err != nil {
				return &fs.PathError{Op: "unlinkat", Path: c.path + "/" + p.path, Err: err}
			}
			n++
		}
		return nil
	})
	return n, err
}

// gather reads what lists from several places, each a directory of them or a rootfs, say of the units.
func gather(ctx context.Context, env EnvFunc, places []string, units []unit) (Index, error) {
	names := make([]string, 0, len(units))
	for _, u := range units {
		names = append(names, u.Name)
	}
	x := Index{}
	for _, path := range places {
		part, err := gatherAt(ctx, env, path, names)
		if err != nil {
			return nil, fmt.Errorf("lists of %s: %w", path, err)
		}
		x.merge(part)
	}
	return x, nil
}

func gatherAt(ctx context.Context, env EnvFunc, path string, names []string) (_ Index, err error) {
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
	l, err := listSource{r, path}.read(ctx, names)
	return l.index, err
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
