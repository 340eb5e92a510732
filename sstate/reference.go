package sstate

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/idshift/handoff"
	"github.com/nsferry/nsferry/sstate/store"
)

// reference is the note that a tree came from an entry, or went there last. It is a file of the caller's, one a tree. Without it gc cannot
// know that the entry may be wanted again, and nothing worse.
type reference struct {
	Path  string `json:"path"` // of the tree, as a Go string literal, for names are bytes
	Inode uint64 `json:"inode,omitempty"`
	Store string `json:"store"`
	Key   string `json:"key"`
}

// refer notes that the tree is what the entry holds.
func (c *Cache) refer(tree string, key store.Key) {
	if c.References == "" || os.MkdirAll(c.References, 0o700) != nil {
		return
	}
	path, err := filepath.Abs(tree)
	if err != nil {
		return
	}
	r := reference{Path: strconv.Quote(path), Inode: inode(path), Store: strconv.Quote(c.Store.Dir()), Key: strconv.Quote(key.String())}
	text, err := json.Marshal(r)
	if err != nil {
		return
	}
	dir, err := os.Open(c.References)
	if err != nil {
		return
	}
	defer dir.Close()
	sum := sha256.Sum256([]byte(path))
	p, err := handoff.NewPending(dir, hex.EncodeToString(sum[:16])+".json", handoff.Options{Overwrite: handoff.Replace})
	if err != nil {
		return
	}
	if _, err = p.File().Write(append(text, '\n')); err == nil {
		err = p.Commit()
	}
	_ = errors.Join(err, p.Abort()) // see reference
}

// inode is the number of what is at path, 0 where the caller cannot look.
func inode(path string) uint64 {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return 0
	}
	return st.Ino
}

// Referenced returns the keys of the store's entries that a tree on this machine was restored from or saved as, if the tree is still
// there. Notes of trees that are gone are removed.
func (c *Cache) Referenced() (keys map[string]bool, err error) {
	keys = map[string]bool{}
	names, err := filepath.Glob(filepath.Join(c.References, "*.json"))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		r, err := readReference(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil || r.gone() {
			if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			continue
		}
		if r.Store == c.Store.Dir() {
			keys[r.Key] = true
		}
	}
	return keys, nil
}

func readReference(name string) (r reference, err error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return r, err
	}
	if err = json.Unmarshal(text, &r); err != nil {
		return r, err
	}
	for _, s := range []*string{&r.Path, &r.Store, &r.Key} {
		if *s, err = strconv.Unquote(*s); err != nil {
			return r, err
		}
	}
	return r, nil
}

// gone tells whether the tree is not there any more, or another one is in its place. One that the caller cannot see may be there.
func (r reference) gone() bool {
	var st unix.Stat_t
	err := unix.Lstat(r.Path, &st)
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	return err == nil && r.Inode != 0 && r.Inode != st.Ino
}
