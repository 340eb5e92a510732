package sstate

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/sstate/minisign"
	"github.com/nsferry/nsferry/sstate/store"
)

// RestoreOptions say how an entry becomes a tree.
type RestoreOptions struct {
	Unpack ferry.UnpackOptions
	// Verify are keys one of which must have signed the entry; nil: none.
	Verify []minisign.PublicKey
	// Refresh turns a tree that is there into the entry's state, see ferry.Refresh.
	Refresh bool
	// Indexes is the directory of the indexes of trees; empty: there are none.
	Indexes string
	// Paranoid does not believe the index of the tree: all of it is read.
	Paranoid bool
	// Progress, if not nil, is told how many bytes of the tar stream are done, and of how many; 0: that is not known.
	Progress func(done, total int64)
}

// Restored says what Restore did.
type Restored struct {
	Key string `json:"key"`
	ferry.Refreshed
}

// Restore makes the tree dir, which must be absent or an empty directory, of the entry. It appears when all is in it, and all
// sums and the signature are right. An entry that cannot be used is a *store.MissError; it is moved away when it is damaged.
func (c *Cache) Restore(ctx context.Context, key store.Key, dir string, o RestoreOptions) (r Restored, err error) {
	r.Key = key.String()
	entry, err := c.Store.Get(ctx, key)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, entry.Close()) }()
	if o.Unpack.Sums, err = admitted(entry, o.Verify); err != nil {
		return r, err
	}
	if o.Progress != nil {
		total := archive.RawSize(entry.File)
		o.Unpack.Progress = func(done int64) { o.Progress(done, total) }
	}
	err = c.restore(ctx, entry, dir, o, &r)
	var damaged *ferry.DamagedError
	if errors.As(err, &damaged) {
		return r, miss(entry, err)
	}
	if err == nil && len(o.Unpack.Only) == 0 {
		c.refer(dir, key)
	}
	return r, err
}

// restore makes the tree, or refreshes it, and keeps its index.
func (c *Cache) restore(ctx context.Context, entry *store.Object, dir string, o RestoreOptions, r *Restored) (err error) {
	x := openTreeIndex(o.Indexes, dir, o.Paranoid)
	defer func() { err = errors.Join(err, x.close()) }()
	u := o.Unpack
	if o.Refresh {
		r.Refreshed, err = ferry.Refresh(ctx, c.Env, entry.File, dir, ferry.RefreshOptions{
			Workers: u.Workers, Policy: u.Policy, Exclude: u.Exclude, Sums: u.Sums, Progress: u.Progress,
			Origin: r.Key, Index: x.old, NewIndex: x.next(),
		})
		return err
	}
	u.Origin, u.NewIndex = r.Key, x.next()
	r.Fresh = true
	r.Summary, err = ferry.Unpack(ctx, c.Env, entry.File, dir, u)
	return err
}

// admitted checks the signature, where there are keys, and returns the sums that the frames must have; nil for an archive of
// another make. What fails is a miss.
func admitted(o *store.Object, keys []minisign.PublicKey) (sums [][32]byte, err error) {
	if keys != nil {
		if sums, err = checkSignature(o, keys); err != nil {
			return nil, &store.MissError{Key: o.Key, Reason: err.Error()}
		}
		return sums, nil
	}
	if o.Frames == nil {
		return nil, nil
	}
	if sums, err = archive.FrameSums(o.Frames); err != nil {
		return nil, miss(o, err)
	}
	return sums, nil
}

// OpenStore opens the store at dir to take something out of it. That there is none is a miss.
func OpenStore(dir string, key store.Key, o store.Options) (*store.Store, error) {
	s, err := store.Open(dir, o)
	if errors.Is(err, os.ErrNotExist) {
		return nil, &store.MissError{Key: key, Reason: fmt.Sprintf("there is no store at %s", dir)}
	}
	return s, err
}
