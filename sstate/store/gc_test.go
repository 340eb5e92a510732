//go:build linux

package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nsferry/nsferry/sstate/lock"
)

// filled makes a store with the entries k0 (used last) to k5, a day apart, each with what goes with it.
func filled(t *testing.T) (*Store, []Key) {
	t.Helper()
	s := open(t)
	var keys []Key
	for i := range 6 {
		k := key(t, fmt.Sprintf("k%d", i))
		put(t, s, k, fmt.Sprint(i))
		age(t, s, k, time.Duration(i)*24*time.Hour+time.Hour)
		for _, suffix := range companions() {
			check(t, os.WriteFile(s.path(k.Path())+suffix, []byte("xx"), 0o644))
		}
		keys = append(keys, k)
	}
	return s, keys
}

func listed(t *testing.T, s *Store) (names []string) {
	t.Helper()
	all, err := s.List()
	check(t, err)
	for _, e := range all {
		names = append(names, e.Key.String())
	}
	return names
}

func gc(t *testing.T, s *Store, o GCOptions) Collected {
	t.Helper()
	c, err := s.GC(o)
	check(t, err)
	return c
}

// TestList lists entries, the one used last first, and nothing else.
func TestList(t *testing.T) {
	s, keys := filled(t)
	check(t, os.WriteFile(s.path(keys[0].dir())+"/elsewhere.tar.zst", content("x"), 0o644)) // not where its key belongs
	check(t, os.WriteFile(s.path("k9.tar.zst"), content("x"), 0o644))
	check(t, os.MkdirAll(s.path("zz/zz"), 0o755))
	if d := cmp.Diff([]string{"k0", "k1", "k2", "k3", "k4", "k5"}, listed(t, s)); d != "" {
		t.Error(d)
	}
	all, err := s.List()
	check(t, err)
	if want := int64(len(content("0"))) + 6; all[0].Size != want {
		t.Errorf("size %d, want %d", all[0].Size, want)
	}
	newest, err := s.Newest(key(t, "k-3"))
	if err == nil {
		t.Errorf("like k-3: %s", newest)
	}
	put(t, s, key(t, "k-1"), "x")
	put(t, s, key(t, "k-2"), "x")
	age(t, s, key(t, "k-1"), -time.Minute)
	if newest, err = s.Newest(key(t, "k-3")); err != nil || newest.String() != "k-1" {
		t.Errorf("like k-3: %s, %v", newest, err)
	}
}

// TestGCByAge takes what was not used, and what goes with it.
func TestGCByAge(t *testing.T) {
	s, keys := filled(t)
	dry := gc(t, s, GCOptions{MaxAge: 60 * time.Hour, DryRun: true})
	if len(listed(t, s)) != 6 {
		t.Error("a dry run removed something")
	}
	c := gc(t, s, GCOptions{MaxAge: 60 * time.Hour})
	if d := cmp.Diff(dry, c); d != "" {
		t.Errorf("the dry run said something else:\n%s", d)
	}
	if d := cmp.Diff([]string{"k5", "k4", "k3"}, c.Evicted); d != "" {
		t.Error(d)
	}
	for _, k := range keys[3:] {
		left, err := filepath.Glob(s.path(k.Path()) + "*")
		check(t, err)
		if d := cmp.Diff([]string{s.path(k.Path()) + ".lock"}, left); d != "" {
			t.Errorf("left:\n%s", d)
		}
	}
	holds(t, s, keys[2], "2")
}

// TestGCBySize keeps what was used last, and what shall be kept.
func TestGCBySize(t *testing.T) {
	s, keys := filled(t)
	size := func(words ...string) (sum int64) {
		for _, w := range words {
			sum += int64(len(content(w))) + 6
		}
		return sum
	}
	c := gc(t, s, GCOptions{MaxSize: size("0", "1", "5") + 10, Keep: func(k Key) bool { return k == keys[5] }})
	if d := cmp.Diff(Collected{Evicted: []string{"k4", "k3", "k2"}, Freed: size("2", "3", "4"), Kept: 3, Size: size("0", "1", "5")}, c); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"k0", "k1", "k5"}, listed(t, s)); d != "" {
		t.Error(d)
	}
}

// TestGCSparesTheBusy never takes an entry that is read or written.
func TestGCSparesTheBusy(t *testing.T) {
	s, keys := filled(t)
	o, err := s.Peek(t.Context(), keys[5])
	check(t, err)
	writing, err := s.lockFile(t.Context(), s.path(keys[4].Path())+".lock")
	check(t, err)
	c := gc(t, s, GCOptions{MaxSize: 1})
	if d := cmp.Diff([]string{"k5", "k4"}, c.Busy); d != "" {
		t.Error(d)
	}
	check(t, o.Close())
	check(t, writing.Release())
	if c = gc(t, s, GCOptions{MaxSize: 1}); len(c.Evicted) != 2 || c.Kept != 0 {
		t.Errorf("%+v", c)
	}
}

// TestGCTakesOddEntries evicts what is no entry any more like any other.
func TestGCTakesOddEntries(t *testing.T) {
	s := open(t)
	k := key(t, "dangling")
	check(t, s.makeDirs(k.dir()))
	check(t, os.Symlink("/nowhere", s.path(k.Path())))
	if c := gc(t, s, GCOptions{MaxAge: time.Nanosecond}); len(c.Evicted) != 1 {
		t.Errorf("%+v", c)
	}
	misses(t, s, k, "no such entry")
}

// TestGCTakesLitter removes what killed writers left, ours and bitbake's, when it is old and nobody holds it.
func TestGCTakesLitter(t *testing.T) {
	s, keys := filled(t)
	old := time.Now().Add(-25 * time.Hour)
	dir := s.path(keys[0].dir())
	litter := []string{".k0.tar.zst.partial-0000000f", "k0.tar.zst.aB3dE6gH", "gone.tar.zst.lock"}
	kept := []string{"k0.tar.zst.lock", "k0.tar.zst.siginfo", "notes.txt", "new.tar.zst.aB3dE6gH", ".held.partial-00000000"}
	for _, name := range append(slices.Clone(litter), kept...) {
		check(t, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
		if name != "new.tar.zst.aB3dE6gH" {
			check(t, os.Chtimes(filepath.Join(dir, name), old, old))
		}
	}
	held, err := os.Open(filepath.Join(dir, ".held.partial-00000000"))
	check(t, err)
	defer held.Close()
	check(t, lock.Try(held, lock.Options{}))
	for i, days := range []int{1, 8} {
		at, err := s.private(fmt.Sprintf("quarantine/q%d", i))
		check(t, err)
		then := time.Now().Add(-time.Duration(days) * 24 * time.Hour)
		check(t, os.WriteFile(filepath.Join(at, "x.tar.zst"), nil, 0o644))
		check(t, os.Chtimes(at, then, then))
	}
	if c := gc(t, s, GCOptions{DryRun: true}); c.Litter != 4 {
		t.Errorf("would take %+v", c)
	}
	if c := gc(t, s, GCOptions{}); c.Litter != 4 || len(c.Evicted) != 0 {
		t.Errorf("took %+v", c)
	}
	for _, name := range litter {
		if exists(filepath.Join(dir, name)) {
			t.Errorf("left: %s", name)
		}
	}
	for _, name := range kept {
		if !exists(filepath.Join(dir, name)) {
			t.Errorf("taken: %s", name)
		}
	}
	if exists(s.path(quarantineDir+"/q1")) || !exists(s.path(quarantineDir+"/q0")) {
		t.Error("quarantine is not kept for a week")
	}
}

// TestExplain names what is most like the key, part by part.
func TestExplain(t *testing.T) {
	s := open(t)
	const head = "sstate:image:amd64-debian-linux:"
	wanted := key(t, head+"1.0:r0:amd64:10:aaaa_rootfs")
	for _, text := range []string{head + "1.0:r0:amd64:10:bbbb_rootfs", head + "1.1:r0:amd64:10:cccc_rootfs", head + "1.0:r0:amd64:10:aaaa_other", "sstate:other::1:r0::10:aaaa_rootfs", "free"} {
		put(t, s, key(t, text), "x")
	}
	x, err := s.Explain(t.Context(), wanted)
	check(t, err)
	var got [][]string
	for _, n := range x.Nearest {
		got = append(got, append([]string{n.Key}, n.Differs...))
	}
	want := [][]string{
		{head + "1.0:r0:amd64:10:bbbb_rootfs", `unihash: "aaaa" is asked for, "bbbb" is there`},
		{head + "1.1:r0:amd64:10:cccc_rootfs", `PV: "1.0" is asked for, "1.1" is there`, `unihash: "aaaa" is asked for, "cccc" is there`},
		{head + "1.0:r0:amd64:10:aaaa_other", `task: "rootfs" is asked for, "other" is there`},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if x, err = s.Explain(t.Context(), key(t, "fred")); err != nil || len(x.Nearest) != 1 || x.Nearest[0].Key != "free" || x.Reason != "there is no such entry" {
		t.Errorf("%+v, %v", x, err)
	}
	if x, err = s.Explain(t.Context(), key(t, "free")); err != nil || !x.Hit {
		t.Errorf("%+v, %v", x, err)
	}
	// What lies in quarantine is told.
	check(t, os.WriteFile(s.path(key(t, "free").Path()), nil, 0o644))
	misses(t, s, key(t, "free"), "empty")
	if x, err = s.Explain(t.Context(), key(t, "free")); err != nil || x.Hit || len(x.Moved) != 1 {
		t.Errorf("%+v, %v", x, err)
	}
}

// TestGCOfOneFile counts a file once that is several entries, and frees it with the last of them.
func TestGCOfOneFile(t *testing.T) {
	s := open(t)
	put(t, s, key(t, "a"), "same")
	size := int64(len(content("same")))
	for _, name := range []string{"b", "c"} {
		o, err := s.Get(t.Context(), key(t, "a"))
		check(t, err)
		p, err := s.Put(t.Context(), key(t, name))
		check(t, err)
		p.Repeat(o.File)
		check(t, errors.Join(p.Commit(), p.Abort(), o.Close()))
	}
	if c := gc(t, s, GCOptions{MaxSize: size}); c.Size != size || c.Kept != 3 || len(c.Evicted) != 0 {
		t.Errorf("all fit, and %+v", c)
	}
	for _, dry := range []bool{true, false} {
		c := gc(t, s, GCOptions{MaxSize: size - 1, DryRun: dry})
		if c.Size != 0 || c.Kept != 0 || len(c.Evicted) != 3 || c.Freed != size {
			t.Errorf("dry %v: %+v", dry, c)
		}
	}
	put(t, s, key(t, "a"), "same")
	put(t, s, key(t, "d"), "other")
	age(t, s, key(t, "a"), time.Hour)
	if c := gc(t, s, GCOptions{MaxAge: time.Minute}); c.Freed != size || c.Kept != 1 {
		t.Errorf("of two files: %+v", c)
	}
}
