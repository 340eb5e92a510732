package sstate

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/archive/treetest"
	"github.com/nsferry/nsferry/idshift/userns/usernstest"
	"github.com/nsferry/nsferry/sstate/minisign"
	"github.com/nsferry/nsferry/sstate/store"
	"github.com/nsferry/nsferry/tier"
)

// site is a store with the entry k, whole, and a directory to restore to.
type site struct {
	*Cache
	dir   string
	key   store.Key
	whole []byte
}

// newSite saves a tree of about n inodes.
func newSite(t *testing.T, n int) *site {
	t.Helper()
	return newSiteOf(t, noSockets(treetest.Random(5, n)))
}

// smallSite saves a tree whose entry has about a thousand bytes.
func smallSite(t *testing.T) *site {
	t.Helper()
	nodes, err := listing.Parse("dir . 0:0 755\nfile a 33:33 640 \"hello\"\nhardlink b a\nsymlink c 0:0 a\n")
	check(t, err)
	return newSiteOf(t, nodes)
}

func newSiteOf(t *testing.T, nodes []listing.Node) *site {
	t.Helper()
	e := usernstest.Ranges(t)[0]
	s := &site{Cache: &Cache{Env: e.Env, Store: newStore(t)}, dir: place(t, e.Env), key: key(t, "k")}
	tree := filepath.Join(s.dir, "source")
	usernstest.Build(t, e.Env, tree, nodes)
	_, err := s.Save(t.Context(), s.key, tree, SaveOptions{})
	check(t, err)
	s.whole, err = os.ReadFile(entryFile(t, s.Store, s.key))
	check(t, err)
	return s
}

func (s *site) target() string { return filepath.Join(s.dir, "target") }

// detects puts bad bytes in the place of the entry and demands that they are found out before the target has its name, that the
// entry is moved away, and that the exit status is that of a miss.
func (s *site) detects(t *testing.T, what string, bad []byte) {
	t.Helper()
	check(t, os.WriteFile(filepath.Join(s.Store.Dir(), s.key.Path()), bad, 0o644))
	check(t, os.RemoveAll(s.detected(t, what)))
}

// detected is detects for an entry that is damaged already. It returns where that was moved to.
func (s *site) detected(t *testing.T, what string) (moved string) {
	t.Helper()
	file := filepath.Join(s.Store.Dir(), s.key.Path())
	_, err := s.Restore(t.Context(), s.key, s.target(), RestoreOptions{})
	var miss *store.MissError
	if !errors.As(err, &miss) || miss.ExitCode() != 3 || miss.Moved == "" {
		t.Fatalf("%s: %v", what, err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.dir, "*target*")); left != nil {
		t.Fatalf("%s: left: %q", what, left)
	}
	if _, err := os.Lstat(file); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("%s: the entry is still there: %v", what, err)
	}
	return miss.Moved
}

// detectsFlip changes one bit of the entry, demands that it is detected, and puts all back.
func (s *site) detectsFlip(t *testing.T, i, bit int) {
	t.Helper()
	file := filepath.Join(s.Store.Dir(), s.key.Path())
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	check(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte{s.whole[i] ^ 1<<bit}, int64(i))
	check(t, err)
	moved := s.detected(t, fmt.Sprintf("byte %d of %d", i, len(s.whole)))
	_, err = f.WriteAt(s.whole[i:i+1], int64(i))
	check(t, err)
	check(t, os.Rename(filepath.Join(moved, s.key.Name()), file))
	check(t, os.RemoveAll(moved))
}

// flip returns b with one bit of byte i changed.
func flip(b []byte, i, bit int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 1 << bit
	return b
}

// TestDamage flips bits in every region of a small entry and cuts it at some places; the soak flips every byte and cuts everywhere.
func TestDamage(t *testing.T) {
	s := smallSite(t)
	step := max(1, len(s.whole)/25)
	for i := 0; i < len(s.whole); i += step {
		s.detects(t, fmt.Sprintf("byte %d of %d", i, len(s.whole)), flip(s.whole, i, i%8))
		s.detects(t, fmt.Sprintf("cut to %d of %d", i, len(s.whole)), s.whole[:i])
	}
	s.detects(t, "one byte more", append(bytes.Clone(s.whole), 0))
	s.detects(t, "twice", append(bytes.Clone(s.whole), s.whole...))
	file := filepath.Join(s.Store.Dir(), s.key.Path())
	check(t, os.WriteFile(file, s.whole, 0o644))
	_, err := s.Restore(t.Context(), s.key, s.target(), RestoreOptions{})
	check(t, err)
}

// TestDamageSoak flips every byte of a small entry and cuts it everywhere, and flips 2 000 random bits of a larger one.
func TestDamageSoak(t *testing.T) {
	tier.Soak(t)
	small := smallSite(t)
	for i := range small.whole {
		small.detects(t, fmt.Sprintf("byte %d of %d", i, len(small.whole)), flip(small.whole, i, i%8))
		small.detects(t, fmt.Sprintf("cut to %d of %d", i, len(small.whole)), small.whole[:i])
	}
	large := newSite(t, 300)
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		large.detectsFlip(t, random.IntN(len(large.whole)), random.IntN(8))
	}
	t.Logf("every byte of %d and every cut; 2000 of %d bytes", len(small.whole), len(large.whole))
}

// TestSignatures takes what the key has signed, and nothing else; what is there stays.
func TestSignatures(t *testing.T) {
	s := newSite(t, 5)
	secret, public, _ := keyPair(t)
	_, other, _ := keyPair(t)
	restore := func(keys ...minisign.PublicKey) error {
		_, err := s.Restore(t.Context(), s.key, s.target(), RestoreOptions{Verify: keys})
		return err
	}
	missed(t, restore(public), "not signed", s.target())
	check(t, s.Sign(t.Context(), s.key, secret))
	missed(t, restore(other), "another key", s.target())
	file := entryFile(t, s.Store, s.key)
	good, err := os.ReadFile(file + store.SignatureSuffix)
	check(t, err)
	for what, c := range map[string]struct{ from, to, words string }{
		"the comment":   {"file:k.tar.zst", "file:x.tar.zst", "trusted comment"},
		"the signature": {"\nRU", "\nRV", "not a signature"},
		"no signature":  {string(good), "hello\n", "not a signature"},
	} {
		bad := bytes.Replace(good, []byte(c.from), []byte(c.to), 1)
		if bytes.Equal(bad, good) {
			t.Fatalf("%s: nothing was replaced", what)
		}
		check(t, os.WriteFile(file+store.SignatureSuffix, bad, 0o644))
		missed(t, restore(public), c.words, s.target())
	}
	check(t, os.WriteFile(file+store.SignatureSuffix, good, 0o644))
	check(t, os.WriteFile(file, flip(s.whole, len(s.whole)/2, 0), 0o644))
	missed(t, restore(public), "wrong", s.target())
	check(t, os.WriteFile(file, s.whole, 0o644))
	check(t, restore(other, public))

	// A signed entry serves under no other name.
	renamed := key(t, "renamed")
	to := filepath.Join(s.Store.Dir(), renamed.Path())
	check(t, os.MkdirAll(filepath.Dir(to), 0o755))
	check(t, os.WriteFile(to, s.whole, 0o644))
	check(t, os.WriteFile(to+store.SignatureSuffix, good, 0o644))
	_, err = s.Restore(t.Context(), renamed, filepath.Join(s.dir, "renamed"), RestoreOptions{Verify: []minisign.PublicKey{public}})
	missed(t, err, "another name", filepath.Join(s.dir, "renamed"))
}

// TestSaveReplacesUnsigned puts a signed entry in the place of one that is not, and leaves one that is.
func TestSaveReplacesUnsigned(t *testing.T) {
	s := newSite(t, 5)
	secret, public, _ := keyPair(t)
	source := filepath.Join(s.dir, "source")
	saved, err := s.Save(t.Context(), s.key, source, SaveOptions{Sign: &secret})
	if err != nil || saved.Present || !saved.Signed {
		t.Fatalf("%+v, %v", saved, err)
	}
	_, err = s.Restore(t.Context(), s.key, s.target(), RestoreOptions{Verify: []minisign.PublicKey{public}})
	check(t, err)
	if saved, err = s.Save(t.Context(), s.key, source, SaveOptions{Sign: &secret}); err != nil || !saved.Present {
		t.Errorf("%+v, %v", saved, err)
	}
}

// TestSignedSumsHold restores an entry that is changed after its signature was checked: the sums that were signed find it out.
func TestSignedSumsHold(t *testing.T) {
	s := newSite(t, 50)
	secret, public, _ := keyPair(t)
	check(t, s.Sign(t.Context(), s.key, secret))
	o, err := s.Store.Get(t.Context(), s.key)
	check(t, err)
	defer o.Close()
	sums, err := checkSignature(o, []minisign.PublicKey{public})
	check(t, err)

	// Another whole archive in the same file, as its owner could write it.
	usernstest.Build(t, s.Env, filepath.Join(s.dir, "other"), noSockets(treetest.Random(6, 50)))
	_, err = s.Save(t.Context(), key(t, "other"), filepath.Join(s.dir, "other"), SaveOptions{})
	check(t, err)
	bad, err := os.ReadFile(entryFile(t, s.Store, key(t, "other")))
	check(t, err)
	check(t, os.WriteFile(entryFile(t, s.Store, s.key), bad, 0o644))
	err = s.unpack(t, o, sums)
	if err == nil || !strings.Contains(err.Error(), "sum") {
		t.Errorf("%v", err)
	}
}
