package ephemeral

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/archive/treetest"
	"github.com/nsferry/nsferry/idshift/userns/usernstest"
	"github.com/nsferry/nsferry/tier"

	"golang.org/x/sys/unix"
)

// TestUnfitTrees: what an overlay would take for its own is seen all the same, for the tree is copied, and a note says why.
func TestUnfitTrees(t *testing.T) {
	for name, line := range map[string]string{
		"a whiteout":            "char     srv/layer/gone 0:0 0 0:0 mtime=1",
		"user.overlay.opaque":   `dir      srv/layer 0:0 755 mtime=1 xattr:user.overlay.opaque="y"`,
		"user.overlay.redirect": `file     srv/layer 0:0 644 mtime=1 xattr:user.overlay.redirect="/etc" size=0`,
	} {
		t.Run(name, func(t *testing.T) {
			nodes, err := listing.Parse("dir . 0:0 755 mtime=1\ndir srv 0:0 755 mtime=1\ndir srv/layer 0:0 755 mtime=1\n")
			check(t, err)
			if !strings.HasPrefix(line, "char") {
				nodes = nodes[:2]
			}
			more, err := listing.Parse(line + "\n")
			check(t, err)
			e := usernstest.Models(t)[0]
			s := newSite(t, e.Env, "", append(nodes, more...))
			want := s.plain(t, "3")
			for _, tree := range []string{"", s.tree} {
				status, got := s.over(t, tree, Options{Command: s.command(t, "3")})
				if status != 0 || string(got) != string(want) {
					t.Errorf("over %q: status %d\n%s", tree, status, differences(t, want, got))
				}
				if notes := strings.Join(s.notes, "\n"); !strings.Contains(notes, "an overlay takes for its own") || !strings.Contains(notes, "copied") && !strings.Contains(notes, "cloned") {
					t.Errorf("over %q: notes: %q", tree, notes)
				}
			}
		})
	}
}

// TestNoOverlay: where none can be mounted the tree is cloned: on ramfs, which has no attributes, by copying, on xfs and btrfs by
// reflink.
func TestNoOverlay(t *testing.T) {
	tier.Root(t, "mounts filesystems")
	for _, c := range []struct{ fs, mkfs, note string }{
		{"ramfs", "", "copied"}, {"xfs", "mkfs.xfs -q -m reflink=1", "reflink"}, {"btrfs", "mkfs.btrfs -q", "reflink"},
	} {
		t.Run(c.fs, func(t *testing.T) {
			dir := mounted(t, c.fs, c.mkfs)
			for _, e := range usernstest.Models(t)[:2] {
				nodes := treetest.Random(5, 40)
				if c.fs == "ramfs" {
					nodes = plainNodes(nodes)
				}
				s := newSite(t, e.Env, dir, usable(nodes))
				want := s.plain(t, "4", "0", "plain")
				o := Options{Command: s.command(t, "4", "0", "plain")}
				if c.fs != "ramfs" {
					o.Upper = Clone
				}
				status, got := s.over(t, "", o)
				if status != 0 || string(got) != string(want) {
					t.Errorf("%s: status %d\n%s", e.Name, status, differences(t, want, got))
				}
				notes := strings.Join(s.notes, "\n")
				if !strings.Contains(notes, c.note) || c.fs == "ramfs" && !strings.Contains(notes, "no overlay can be mounted") {
					t.Errorf("%s: notes: %q", e.Name, notes)
				}
				s.intact(t)
			}
		})
	}
}

// plainNodes leaves out what a filesystem without attributes cannot hold.
func plainNodes(nodes []listing.Node) []listing.Node {
	for i := range nodes {
		nodes[i].Xattrs, nodes[i].ACL, nodes[i].Default, nodes[i].Cap = nil, "", "", nil
	}
	return nodes
}

// mounted mounts a new filesystem.
func mounted(t *testing.T, fs, mkfs string) string {
	t.Helper()
	dir := t.TempDir()
	args := []string{"-t", fs, "none", dir}
	if mkfs != "" {
		image := filepath.Join(t.TempDir(), "image")
		check(t, os.WriteFile(image, nil, 0o600))
		check(t, os.Truncate(image, 400<<20))
		words := strings.Fields(mkfs)
		tier.Program(t, words[0])
		if out, err := exec.Command(words[0], append(words[1:], image)...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", mkfs, err, out)
		}
		args = []string{"-o", "loop", image, dir}
	}
	if out, err := exec.Command("mount", args...).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	check(t, os.Chmod(dir, 0o755))
	return dir
}

// TestTogether has many runs over one master at a time, beginning with none, while gc wants everything gone.
func TestTogether(t *testing.T) {
	e := usernstest.Models(t)[0]
	s := newSite(t, e.Env, "", startTree(9))
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			f, err := os.Open(s.archive)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			spec := s.command(t, "9", "5")
			spec.Note = nil
			if status, err := Run(t.Context(), s.env, s.state, Options{Command: spec, Archive: f}); status != 5 || err != nil {
				t.Errorf("status %d, %v", status, err)
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for end := false; !end; {
		select {
		case <-done:
			end = true
		case <-time.After(20 * time.Millisecond):
			if _, err := s.state.GC(t.Context(), s.env, GCOptions{MaxAge: time.Nanosecond}); err != nil {
				t.Error(err)
				end = true
			}
		}
	}
	<-done
	s.nothingLeft(t)
	s.intact(t)
}

// TestMasterNotWhole: a master is used only if its record is there, can be read, and is of this boot.
func TestMasterNotWhole(t *testing.T) {
	e := usernstest.Models(t)[0]
	s := newSite(t, e.Env, "", startTree(2))
	command := Options{Command: s.command(t, "2", "5")}
	s.over(t, "", command)
	made := s.record(t)
	s.over(t, "", command)
	if again := s.record(t); again.Made != made.Made {
		t.Fatal("a whole master was made anew")
	}
	for name, harm := range map[string]func(path string) error{
		"removed": os.Remove,
		"cut":     func(p string) error { return os.Truncate(p, 20) },
		"empty":   func(p string) error { return os.Truncate(p, 0) },
		"of another boot": func(p string) error {
			r := s.record(t)
			r.Boot = "00000000-0000-0000-0000-000000000000"
			text, err := json.Marshal(r)
			check(t, err)
			return os.WriteFile(p, text, 0o600)
		},
	} {
		before := s.record(t)
		path := s.recordPath(t)
		check(t, harm(path))
		// What is there may be anything.
		check(t, os.Rename(filepath.Join(filepath.Dir(path), treeName), filepath.Join(filepath.Dir(path), name)))
		check(t, os.Mkdir(filepath.Join(filepath.Dir(path), treeName), 0o755))
		s.over(t, "", command)
		if s.record(t).Made.Equal(before.Made) {
			t.Errorf("%s: the master was used", name)
		}
		s.intact(t)
	}
}

func (s *site) recordPath(t *testing.T) string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(s.state.masters(), "*", recordName))
	if err != nil || len(paths) != 1 {
		t.Fatalf("records: %v, %v", paths, err)
	}
	return paths[0]
}

func (s *site) record(t *testing.T) record {
	t.Helper()
	r, err := readRecord(filepath.Dir(s.recordPath(t)))
	check(t, err)
	return r
}

// TestGC removes by age and by size, and nothing that is in use.
func TestGC(t *testing.T) {
	e := usernstest.Models(t)[0]
	s := newSite(t, e.Env, "", startTree(3))
	s.over(t, "", Options{Command: s.command(t, "3", "5")})
	gc := func(o GCOptions) []Master {
		t.Helper()
		all, err := s.state.GC(t.Context(), s.env, o)
		check(t, err)
		if len(all) != 1 {
			t.Fatalf("masters: %v", all)
		}
		return all
	}
	for name, o := range map[string]GCOptions{"nothing asked": {}, "young": {MaxAge: time.Hour}, "small": {MaxBytes: 1 << 40}} {
		if m := gc(o)[0]; m.Why != "" {
			t.Errorf("%s: removed: %s", name, m.Why)
		}
	}
	f, err := os.Open(s.archive)
	check(t, err)
	defer f.Close()
	m, err := s.state.master(t.Context(), s.env, Options{Archive: f})
	check(t, err)
	if m := gc(GCOptions{MaxBytes: 1})[0]; m.Why != "" {
		t.Errorf("in use, and removed: %s", m.Why)
	}
	check(t, m.Close())
	if m := gc(GCOptions{MaxBytes: 1, DryRun: true})[0]; m.Why == "" {
		t.Error("a dry run would not remove it")
	}
	if m := gc(GCOptions{Now: time.Now().Add(2 * time.Hour), MaxAge: time.Hour})[0]; m.Why == "" {
		t.Error("an old one stays")
	}
	if left, err := os.ReadDir(s.state.masters()); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestIdentityOfForeign reads an archive of another make once, and again when it has changed.
func TestIdentityOfForeign(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "state"))
	check(t, err)
	defer s.Close()
	path := filepath.Join(t.TempDir(), "foreign.tar")
	check(t, os.WriteFile(path, []byte(strings.Repeat("a", 10000)), 0o644))
	id := func() string {
		t.Helper()
		f, err := os.Open(path)
		check(t, err)
		defer f.Close()
		id, err := s.identity(t.Context(), f)
		check(t, err)
		return id
	}
	first := id()
	check(t, os.WriteFile(path, []byte(strings.Repeat("b", 10000)), 0o644)) // at once: the same size, perhaps the same time
	second := id()
	if first == second {
		t.Error("a change of the content within a tick was not seen")
	}
	time.Sleep(tick + 100*time.Millisecond)
	if got := id(); got != second {
		t.Errorf("%s is now %s", second, got)
	}
	memos, err := os.ReadDir(s.archives())
	if err != nil || len(memos) != 1 {
		t.Fatalf("memos: %v, %v", memos, err)
	}
	memoPath := filepath.Join(s.archives(), memos[0].Name())
	text, err := os.ReadFile(memoPath)
	check(t, err)
	check(t, os.WriteFile(memoPath, []byte(strings.Replace(string(text), second, "content:remembered", 1)), 0o600))
	if got := id(); got != "content:remembered" {
		t.Errorf("it was read again: %s", got)
	}
	check(t, os.Chtimes(path, time.Now(), time.Unix(1, 0)))
	if got := id(); got != second {
		t.Errorf("after a change of times it is %s", got)
	}
}
