package sstate

import (
	"context"
	"errors"
	"fmt"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/sstate/store"
)

// Draft is an entry whose tree is still being made. Nobody else can write that entry meanwhile. It is for one goroutine.
type Draft struct {
	env *userns.Env
	key store.Key
	p   *store.Pending
}

// Draft begins an entry. One that is there already is an error, store.ErrPresent: it would stay, and the work be for nothing. Abort the
// draft.
func (c *Cache) Draft(ctx context.Context, key store.Key) (*Draft, error) {
	p, err := c.Store.Put(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return &Draft{c.Env, key, p}, nil
}

// Save packs the tree and publishes the entry. When it returns, the entry is whole and on the disk.
func (d *Draft) Save(ctx context.Context, tree ferry.Source, o ferry.PackOptions) (archive.Summary, error) {
	o.Format = archive.Framed
	o.Hold = append(o.Hold, d.p.Lock())
	sum, err := ferry.PackSource(ctx, d.env, tree, d.p.File(), o)
	if err == nil {
		err = ferry.Whole(d.p.File(), sum, archive.Framed)
	}
	if err == nil {
		err = ctx.Err() // what was asked to stop publishes nothing
	}
	if err != nil {
		return sum, fmt.Errorf("save %s: %w", d.key, err)
	}
	if err := d.p.Commit(); err != nil {
		return sum, err
	}
	if !d.p.Published() {
		return sum, errors.Join(fmt.Errorf("save %s", d.key), store.ErrPresent)
	}
	return sum, nil
}

// Abort drops the draft. It has no effect on an entry that is published.
func (d *Draft) Abort() error { return d.p.Abort() }
