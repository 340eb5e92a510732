package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/sstate"
	"github.com/nsferry/nsferry/sstate/store"
)

type sstateCmd struct {
	storeFlag

	Save    sstateSaveCmd    `cmd:"" help:"Pack a tree into the store. An entry that is there stays."`
	Restore sstateRestoreCmd `cmd:"" help:"Make a tree of an entry. Exit status 3 when there is none that can be used."`
	Ls      sstateLsCmd      `cmd:"" help:"List the entries, the one used last first."`
	Verify  sstateVerifyCmd  `cmd:"" help:"Check entries: every frame, every digest, the signature; also against a tree."`
	Gc      sstateGcCmd      `cmd:"" help:"Remove entries that were not used for long, and what killed writers left."`
	Explain sstateExplainCmd `cmd:"" help:"Say why a key is a miss, and what is most like it. Exit status 3 for a miss."`
	Sign    sstateSignCmd    `cmd:"" help:"Sign entries (minisign's format)."`

	PackObject    sstatePackObjectCmd    `cmd:"" help:"Make rootfs.tar of a tree: the body of bitbake's function that prepares an object."`
	RestoreObject sstateRestoreObjectCmd `cmd:"" help:"Make the tree of rootfs.tar, in the place of what is there: the body of the function that finishes one."`
}

// storeFlag is the flag of every command that has to do with a store.
type storeFlag struct {
	Store string `type:"path" placeholder:"DIR" env:"NSFERRY_STORE" help:"The store; an SSTATE_DIR of bitbake's will do. Default: $$XDG_CACHE_HOME/nsferry/store."`
}

// dir is the store's directory.
func (f storeFlag) dir() (string, error) {
	if f.Store != "" {
		return f.Store, nil
	}
	cache, err := os.UserCacheDir() // $XDG_CACHE_HOME, ~/.cache
	if err != nil {
		return "", &userns.UsageError{What: "there is no place for a store: " + err.Error() + "; name one with --store"}
	}
	return filepath.Join(cache, "nsferry", "store"), nil
}

// open opens the store, and makes it if it is missing and create says so.
func (f storeFlag) open(out *Out, create bool) (*store.Store, error) {
	dir, err := f.dir()
	if err != nil {
		return nil, err
	}
	return store.Open(dir, store.Options{Create: create, Note: out.Note})
}

type sstateSaveCmd struct {
	Key string `arg:"" help:"A name of bitbake's (sstate:…:UNIHASH_TASK), or any name."`
	Dir string `arg:"" help:"The tree."`
	packFlags
	Base     string `default:"auto" placeholder:"KEY|FILE|auto|none" help:"An archive of an earlier state of the tree: what of it is still true is copied. auto is the entry that the tree came from or went to last, else the one with a like name that was used last. The entry is the same whatever it is."`
	Paranoid bool   `help:"Do not believe the index of the tree: read all of it."`
	SignKey  string `type:"existingfile" placeholder:"FILE" help:"Sign the entry with this secret key of minisign's, which must have no password."`
	policyFlags
}

// saved is the summary of save.
type saved struct{ sstate.Saved }

func (s saved) String() string {
	if s.Present {
		return fmt.Sprintf("%s: in the store already", s.Key)
	}
	return transferred{"saved", s.Key, s.Summary}.String()
}

// Run saves a tree.
func (c *sstateSaveCmd) Run(ctx context.Context, e *userns.Env, g *Globals, f *sstateCmd, out *Out) error {
	key, err := store.ParseKey(c.Key)
	if err != nil {
		return err
	}
	o := sstate.SaveOptions{Pack: c.options(g, c.policyFlags), Base: c.Base, Indexes: indexDir(), Paranoid: c.Paranoid}
	if c.SignKey != "" {
		secret, err := sstate.ReadSecretKey(c.SignKey)
		if err != nil {
			return err
		}
		o.Sign = &secret
	}
	s, err := f.open(out, true)
	if err != nil {
		return err
	}
	p := out.Progress("save", 0)
	if p != nil {
		o.Pack.Progress = func(n int64) { p.Set(n, n) }
	}
	sum, err := newCache(e, s).Save(ctx, key, c.Dir, o)
	p.Done()
	if err != nil {
		return err
	}
	warnSkipped(out, sum.Summary)
	c.explain(out, sum.Summary)
	out.Summary(saved{sum})
	return nil
}

type sstateRestoreCmd struct {
	Key       string   `arg:"" help:"The entry's key."`
	Dir       string   `arg:"" help:"The tree to make: absent, or an empty directory. It appears when all is in it and was checked."`
	Refresh   bool     `help:"Turn the tree DIR, if there is one, into the entry's state: only what differs is touched, what the entry does not have is removed. All of the tree must belong to the map."`
	Only      []string `sep:"none" placeholder:"PATH" help:"Restore only PATH, with what is in it and the directories above, and read no more of the entry than that takes. May be repeated."`
	Paranoid  bool     `help:"Do not believe the index of the tree: read all of it."`
	Exclude   []string `sep:"none" placeholder:"PATTERN" help:"Leave out what matches, anchored at the root of the tree. May be repeated."`
	VerifyKey []string `type:"existingfile" sep:"none" placeholder:"FILE" help:"Take the entry only if this public key of minisign's has signed it. May be repeated: one of them is enough."`
	policyFlags
}

// Run restores a tree.
func (c *sstateRestoreCmd) Run(ctx context.Context, e *userns.Env, g *Globals, f *sstateCmd, out *Out) error {
	key, err := store.ParseKey(c.Key)
	if err != nil {
		return err
	}
	if c.Refresh && len(c.Only) > 0 {
		return &userns.UsageError{What: "--refresh is about all of an entry, --only about a part of it: take one of them"}
	}
	o := sstate.RestoreOptions{
		Unpack:  ferry.UnpackOptions{Workers: g.Jobs, Policy: c.policy(), Exclude: c.Exclude, Only: c.Only},
		Refresh: c.Refresh, Indexes: indexDir(), Paranoid: c.Paranoid,
	}
	if o.Verify, err = sstate.ReadPublicKeys(c.VerifyKey); err != nil {
		return err
	}
	s, err := f.openFor(out, key)
	if err != nil {
		return err
	}
	p := out.Progress("restore", 0)
	if p != nil {
		o.Progress = func(n, total int64) { p.Set(n, max(n, total)) }
	}
	sum, err := newCache(e, s).Restore(ctx, key, c.Dir, o)
	p.Done()
	if err != nil {
		return err
	}
	warnSkipped(out, sum.Summary)
	out.Summary(refreshedTree{sum.Key, "restored", sum.Refreshed})
	return nil
}

// indexDir is where the indexes of trees are; empty where the caller has no cache.
func indexDir() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(cache, "nsferry", "index")
}

// openFor opens the store for a key, which is a miss where there is no store.
func (f storeFlag) openFor(out *Out, key store.Key) (*store.Store, error) {
	dir, err := f.dir()
	if err != nil {
		return nil, err
	}
	return sstate.OpenStore(dir, key, store.Options{Note: out.Note})
}

// newCache is the cache with its notes in the caller's cache directory. Whoever has none has no notes.
func newCache(e *userns.Env, s *store.Store) *sstate.Cache {
	c := &sstate.Cache{Env: e, Store: s}
	if cache, err := os.UserCacheDir(); err == nil {
		c.References = filepath.Join(cache, "nsferry", "trees")
	}
	return c
}
