package sstate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/sstate/minisign"
	"github.com/nsferry/nsferry/sstate/store"
)

// SaveOptions say how a tree becomes an entry.
type SaveOptions struct {
	Pack ferry.PackOptions   // format, output's mode and Replace are not asked for
	Sign *minisign.SecretKey // sign the entry; nil: do not
	// Base is the archive of an earlier state, whose frames are copied where they are still true: a key, a file, BaseNone, or BaseAuto, the
	// default. The entry is the same whatever it is.
	Base string
	// Indexes is the directory of the indexes of trees; empty: there are none.
	Indexes string
	// Paranoid does not believe the index of the tree: all of it is read.
	Paranoid bool
}

// Saved says what Save did.
type Saved struct {
	Key     string `json:"key"`
	Present bool   `json:"present,omitempty"` // the store had the entry already, and nothing was done
	Signed  bool   `json:"signed,omitempty"`
	Linked  bool   `json:"linked,omitempty"` // nothing has changed since the base: the entry is another name of that file
	// Sync is how many seconds it took to get the entry, once written, onto the disk and under its name.
	Sync float64 `json:"sync,omitempty"`
	archive.Summary
}

// Save packs the tree dir into the store. An entry that is there stays, unless it is damaged, or shall be signed and is
// not by this key. When Save returns, the entry is whole and on the disk.
func (c *Cache) Save(ctx context.Context, key store.Key, dir string, o SaveOptions) (s Saved, err error) {
	s.Key = key.String()
	if o.Sign != nil {
		if err := c.dropUnsigned(ctx, key, o.Sign.Public()); err != nil {
			return s, err
		}
	}
	p, err := c.Store.Put(ctx, key)
	if errors.Is(err, store.ErrPresent) {
		s.Present = true
		return s, nil
	}
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, p.Abort()) }() // no effect once committed
	o.Pack.Format = archive.Framed
	o.Pack.Hold = append(o.Pack.Hold, p.Lock())
	base, why, done, err := c.increment(ctx, key, dir, &o)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, done()) }()
	if s.Summary, err = ferry.PackTo(ctx, c.Env, dir, p.File(), o.Pack); err != nil {
		return s, err
	}
	unbased(&s.Summary, why)
	content := p.File()
	if r := s.Reuse; r != nil && r.Same {
		p.Repeat(base)
		content = base
	}
	if err := ferry.Whole(content, s.Summary, archive.Framed); err != nil {
		return s, fmt.Errorf("save %s: %w", key, err)
	}
	if err = c.publish(ctx, p, key, content, o.Sign, &s); err == nil && !s.Present {
		c.refer(dir, key)
	}
	return s, err
}

// publish signs the entry, if that is asked for, and gives it its name.
func (c *Cache) publish(ctx context.Context, p *store.Pending, key store.Key, content *os.File, by *minisign.SecretKey, s *Saved) error {
	var sig []byte
	if by != nil {
		var err error
		if sig, err = sign(content, key, *by); err != nil {
			return fmt.Errorf("sign %s: %w", key, err)
		}
	}
	if err := ctx.Err(); err != nil { // what was asked to stop publishes nothing
		return err
	}
	begin := time.Now()
	if err := p.Commit(); err != nil {
		return err
	}
	s.Sync, s.Linked = time.Since(begin).Seconds(), p.Linked()
	if s.Present = !p.Published(); s.Present || sig == nil {
		return nil
	}
	s.Signed = true
	return p.Attach(store.SignatureSuffix, sig)
}

// sign makes a signature of an open file.
func sign(f *os.File, key store.Key, by minisign.SecretKey) ([]byte, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return signature(io.NewSectionReader(f, 0, st.Size()), key, by, time.Now())
}

// dropUnsigned moves an entry away that the key has not signed: it would stay in the way of one that is.
func (c *Cache) dropUnsigned(ctx context.Context, key store.Key, by minisign.PublicKey) error {
	o, err := c.Store.Get(ctx, key)
	if isMiss(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer o.Close()
	if _, err := checkSignature(o, []minisign.PublicKey{by}); err != nil {
		_ = o.Quarantine(fmt.Sprintf("a signed entry is saved in its place: %v", err)) // Put says when it could not be moved
	}
	return nil
}

// Sign signs an entry that is there.
func (c *Cache) Sign(ctx context.Context, key store.Key, by minisign.SecretKey) error {
	o, err := c.Store.Get(ctx, key)
	if err != nil {
		return err
	}
	defer o.Close()
	if _, err := archive.Verify(ctx, o.File, ferry.Workers(0)); err != nil {
		if archive.Damaged(err) {
			return miss(o, err)
		}
		return fmt.Errorf("sign %s: %w", key, err)
	}
	sig, err := sign(o.File, key, by)
	if err != nil {
		return fmt.Errorf("sign %s: %w", key, err)
	}
	return o.Attach(store.SignatureSuffix, sig)
}
