package ephemeral

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/archive/treetest"
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/idshift/userns/usernstest"
	"github.com/nsferry/nsferry/tier"
)

// plain runs a command in a copy of the tree as `nsferry run` does, and packs what it has become: what every ephemeral run has to
// give, byte for byte.
func (s *site) plain(t *testing.T, args ...string) []byte {
	t.Helper()
	dir := filepath.Join(s.dir, "plain")
	in, err := os.Open(s.archive)
	check(t, err)
	defer in.Close()
	_, err = ferry.Unpack(t.Context(), s.env, in, dir, ferry.UnpackOptions{})
	check(t, err)
	defer func() {
		_, err := ferry.Remove(t.Context(), s.env, dir, ferry.RemoveOptions{})
		check(t, err)
	}()
	root, _, err := userns.OpenTree(dir)
	check(t, err)
	defer root.Close()
	spec := s.command(t, args...)
	spec.Mounts.Root = root
	if status, err := s.env.Exec(t.Context(), spec); status != 0 || err != nil {
		t.Fatalf("plain run: status %d, %v", status, err)
	}
	out := filepath.Join(t.TempDir(), "plain.tar.zst")
	_, err = ferry.Pack(t.Context(), s.env, dir, out, ferry.PackOptions{})
	check(t, err)
	return read(t, out)
}

// startTree is what mutations start from: a random tree with what they need, many files with several names among it.
func startTree(seed uint64) []listing.Node {
	nodes := treetest.Random(seed, 120)
	var files []string
	for _, n := range nodes {
		if n.Type == listing.File {
			files = append(files, n.Name)
		}
	}
	for i, name := range files {
		if i%3 == 0 {
			nodes = append(nodes, listing.Node{Type: listing.Hardlink, Name: fmt.Sprintf("hard%d", i), Target: name})
		}
	}
	return usable(nodes)
}

// usable leaves out what no archive takes, and what would be in the way of a run's mounts.
func usable(nodes []listing.Node) (kept []listing.Node) {
	gone := map[string]bool{}
	for _, n := range nodes {
		if n.Type == listing.Sock || n.Type == listing.Char || n.Type == listing.Block {
			gone[n.Name] = true
		}
		if !gone[n.Name] && !gone[n.Target] {
			kept = append(kept, n)
		}
	}
	return kept
}

// TestCommitEqualsPlain changes trees by chance, in every way in and every kind of layer: the archive that is committed is, byte for
// byte, that of a plain run on a plain tree. Masters and trees stay as they were.
func TestCommitEqualsPlain(t *testing.T) {
	for i, e := range usernstest.Models(t) {
		t.Run(e.Name, func(t *testing.T) {
			for seed := range uint64(tier.Soaking(20, 1)) {
				seed += uint64(i)
				s := newSite(t, e.Env, "", startTree(seed))
				arg := fmt.Sprint(seed)
				want := s.plain(t, arg)
				for n, over := range []struct {
					upper Upper
					tree  string
				}{{Disk, ""}, {Memory, s.tree}, {Clone, ""}, {Disk, s.tree}, {Memory, ""}, {Clone, s.tree}} {
					if n > 2 && i > 0 && !tier.Soaking(true, false) {
						continue
					}
					status, got := s.over(t, over.tree, Options{Command: s.command(t, arg), Upper: over.upper, Workers: 2})
					if status != 0 {
						t.Fatalf("seed %d, %s over %q: status %d", seed, over.upper, over.tree, status)
					}
					if string(got) != string(want) {
						t.Fatalf("seed %d, %s over %q: not what a plain run gives\n%s", seed, over.upper, over.tree, differences(t, want, got))
					}
				}
				s.intact(t)
			}
		})
	}
}

// TestFailedCommand publishes nothing, and its status comes through.
func TestFailedCommand(t *testing.T) {
	for _, e := range usernstest.Models(t) {
		t.Run(e.Name, func(t *testing.T) {
			s := newSite(t, e.Env, "", startTree(1))
			for _, upper := range []Upper{Disk, Memory, Clone} {
				status, got := s.over(t, "", Options{Command: s.command(t, "1", "7"), Upper: upper})
				if status != 7 || got != nil {
					t.Errorf("%s: status %d, %d bytes were committed", upper, status, len(got))
				}
			}
			s.intact(t)
		})
	}
}

// TestBelowIsOutOfReach: not even root inside finds a way to what it is not to change.
func TestBelowIsOutOfReach(t *testing.T) {
	nodes, err := listing.Parse("dir . 0:0 755 mtime=1\nfile below 0:0 666 mtime=1 \"\"\n")
	check(t, err)
	for _, e := range usernstest.Models(t) {
		t.Run(e.Name, func(t *testing.T) {
			s := newSite(t, e.Env, "", nodes)
			for _, upper := range []Upper{Disk, Memory} {
				for _, tree := range []string{"", s.tree} {
					spec := s.command(t, "look")
					if status, _ := s.over(t, tree, Options{Command: spec, Upper: upper}); status != 0 {
						t.Errorf("%s over %q: status %d", upper, tree, status)
					}
				}
			}
		})
	}
}

// differences tells two archives apart, line by line.
func differences(t *testing.T, want, got []byte) string {
	t.Helper()
	var lists [2][]listing.Node
	for i, b := range [][]byte{want, got} {
		f, err := os.Create(filepath.Join(t.TempDir(), "archive"))
		check(t, err)
		defer f.Close()
		_, err = f.Write(b)
		check(t, err)
		check(t, archive.List(t.Context(), f, 1, func(n listing.Node) error {
			lists[i] = append(lists[i], n)
			return nil
		}))
	}
	return treetest.Diff(lists[0], lists[1])
}
