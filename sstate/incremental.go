package sstate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/statindex"
	"github.com/nsferry/nsferry/sstate/minisign"
	"github.com/nsferry/nsferry/sstate/store"
)

// The words that SaveOptions.Base takes beside keys and files.
const (
	BaseAuto = "auto"
	BaseNone = "none"
)

// increment opens what an earlier state of the tree can save of the work: the base and the index. close releases it, keeping the
// next index if it was written. Without a base why tells the reason.
func (c *Cache) increment(ctx context.Context, key store.Key, dir string, o *SaveOptions) (base *os.File, why string, done func() error, err error) {
	x := openTreeIndex(o.Indexes, dir, false)
	base, elide, why, err := c.base(ctx, key, o, x)
	done = func() error {
		if base != nil {
			return errors.Join(x.close(), base.Close())
		}
		return x.close()
	}
	if err != nil {
		return nil, "", nil, errors.Join(err, done())
	}
	i := &o.Pack.Increment
	i.Base, i.Record, i.Origin, i.Elide = base, x.next(), key.String(), elide
	if !o.Paranoid {
		i.Index = x.old
	}
	return base, why, done, nil
}

// base opens the archive that Base says, nil and the reason when there is none that may be used. A file that is named must be there. elide tells
// that it is an entry of the store, of which another one can be a link.
func (c *Cache) base(ctx context.Context, key store.Key, o *SaveOptions, x *treeIndex) (f *os.File, elide bool, why string, err error) {
	name := o.Base
	switch {
	case name == BaseNone:
		return nil, false, "no base is wanted", nil
	case name == "" || name == BaseAuto:
		if name, err = c.likely(ctx, key, x); errors.Is(err, fs.ErrNotExist) {
			return nil, false, "no entry is likely to be an earlier state of the tree", nil
		}
	case isFile(name):
		if o.Sign != nil {
			return nil, false, "what is signed cannot be based on a file that nobody has signed", nil
		}
		f, err = os.Open(name)
		return f, false, "", err
	}
	if err != nil {
		return nil, false, "", err
	}
	k, err := store.ParseKey(name)
	if err != nil {
		return nil, false, "", fmt.Errorf("base %s: %w", name, err)
	}
	entry, err := c.Store.Get(ctx, k)
	if isMiss(err) {
		return nil, false, "the base: " + err.Error(), nil
	}
	if err != nil {
		return nil, false, "", err
	}
	if o.Sign != nil {
		// The base's own table says what is in its frames. Only who has signed it can be trusted to have got that right.
		if _, err := checkSignature(entry, []minisign.PublicKey{o.Sign.Public()}); err != nil {
			return nil, false, fmt.Sprintf("the base %s: %v", k, err), entry.Close()
		}
	}
	return entry.File, true, "", nil
}

// isFile tells a file from a key.
func isFile(name string) bool {
	if strings.HasPrefix(name, "/") || strings.HasPrefix(name, "./") || strings.HasPrefix(name, "../") {
		return true
	}
	st, err := os.Stat(name)
	return err == nil && st.Mode().IsRegular()
}

// likely returns the key of the entry that the tree came from or went to last, if it is still there, else of the newest one that has a
// like name.
func (c *Cache) likely(ctx context.Context, key store.Key, x *treeIndex) (string, error) {
	if x.old != nil {
		if origin, err := statindex.Origin(x.old); err == nil && origin != "" {
			if k, err := store.ParseKey(origin); err == nil {
				if o, err := c.Store.Peek(ctx, k); err == nil {
					return origin, o.Close()
				}
			}
		}
	}
	k, err := c.Store.Newest(key)
	return k.String(), err
}

// unbased notes why there is no base.
func unbased(s *archive.Summary, why string) {
	if why == "" {
		return
	}
	if s.Reuse == nil {
		s.Reuse = new(archive.Reuse)
	}
	s.Reuse.Refused = why
}
