package ferry

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/archive/treetest"
	"github.com/nsferry/nsferry/idshift/userns/usernstest"
)

// packed packs a tree and returns the bytes.
func packed(t testing.TB, e usernstest.Way, dir string, workers int) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "archive.tar.zst")
	if _, err := Pack(t.Context(), e.Env, dir, out, PackOptions{Workers: workers}); err != nil {
		t.Fatalf("%s: %v", e.Name, err)
	}
	b, err := os.ReadFile(out)
	check(t, err)
	check(t, os.Remove(out))
	return b
}

func unpacked(t testing.TB, e usernstest.Way, archived []byte, dir string) {
	t.Helper()
	in := filepath.Join(t.TempDir(), "in")
	check(t, os.WriteFile(in, archived, 0o600))
	f, err := os.Open(in)
	check(t, err)
	defer f.Close()
	if _, err := Unpack(t.Context(), e.Env, f, dir, UnpackOptions{Workers: 2}); err != nil {
		t.Fatalf("%s: %v", e.Name, err)
	}
}

// noSockets leaves out what tar has no type for.
func noSockets(nodes []listing.Node) (kept []listing.Node) {
	socks := map[string]bool{}
	for _, n := range nodes {
		if n.Type == listing.Sock {
			socks[n.Name] = true
		}
		if !socks[n.Name] && !socks[n.Target] {
			kept = append(kept, n)
		}
	}
	return kept
}

// TestModelsAgree carries trees through every mode, model and range: the trees are equal inside, the archives byte for byte.
func TestModelsAgree(t *testing.T) {
	all := usernstest.Ranges(t)
	for name, nodes := range map[string][]listing.Node{"oddities": treetest.Oddities(), "random": treetest.Random(41, 200)} {
		t.Run(name, func(t *testing.T) {
			original := filepath.Join(place(t, all[0].Env), "tree")
			usernstest.Build(t, all[0].Env, original, noSockets(nodes))
			want := packed(t, all[0], original, 1)
			for _, workers := range []int{2, 7} {
				if !bytes.Equal(packed(t, all[0], original, workers), want) {
					t.Errorf("%d workers give another archive than one", workers)
				}
			}
			// Holes too short to keep are data in a copy.
			copied := filepath.Join(filepath.Dir(original), "copy")
			unpacked(t, all[0], want, copied)
			first := usernstest.Dump(t, all[0].Env, copied)
			for _, e := range all {
				t.Run(e.Name, func(t *testing.T) {
					dir := filepath.Join(place(t, e.Env), "tree")
					unpacked(t, e, want, dir)
					if !bytes.Equal(packed(t, e, dir, 2), want) {
						t.Error("the archive of the copy is another one")
					}
					if e.Arithmetic() {
						return
					}
					if d := treetest.Diff(first, usernstest.Dump(t, e.Env, dir)); d != "" {
						t.Errorf("- %s, + %s:\n%s", all[0].Name, e.Name, d)
					}
				})
			}
		})
	}
}

// TestArithmeticIsTheKernels has root write a tree with a map by arithmetic that a namespace with that map reads, and the other way round:
// owners, ids in ACLs and root ids of capabilities are the kernel's.
func TestArithmeticIsTheKernels(t *testing.T) {
	all := usernstest.Ranges(t)
	var outside, inside usernstest.Way
	for _, e := range all {
		switch e.Name {
		case "root with a map":
			outside = e
		case "base from 300000":
			inside = e
		}
	}
	if outside.Env == nil || inside.Env == nil {
		t.Skip("root tier: shifts by arithmetic")
	}
	source := filepath.Join(place(t, all[0].Env), "tree")
	usernstest.Build(t, all[0].Env, source, noSockets(treetest.Oddities()))
	want := packed(t, all[0], source, 2)
	work := place(t, all[0].Env)
	byOutside, byInside := filepath.Join(work, "outside"), filepath.Join(work, "inside")
	unpacked(t, outside, want, byOutside)
	unpacked(t, inside, want, byInside)
	if d := treetest.Diff(usernstest.Dump(t, inside.Env, byInside), usernstest.Dump(t, inside.Env, byOutside)); d != "" {
		t.Errorf("seen from inside: - written inside, + by arithmetic:\n%s", d)
	}
	if d := treetest.Diff(usernstest.Dump(t, all[0].Env, byInside), usernstest.Dump(t, all[0].Env, byOutside)); d != "" {
		t.Errorf("seen from outside: - written inside, + by arithmetic:\n%s", d)
	}
	for name, dir := range map[string]string{"inside": byInside, "by arithmetic": byOutside} {
		if !bytes.Equal(packed(t, outside, dir, 2), want) || !bytes.Equal(packed(t, inside, dir, 2), want) {
			t.Errorf("the tree written %s gives other archives", name)
		}
	}
}
