package ownership

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/archive/treetest"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/tier"
)

// swapHalf is an attacker inside: until it is told to stop it puts symlinks to outside in the place of files and directories.
var swapHalf = userns.Half[string, int]{Name: "test swap", Func: func(ctx context.Context, in *userns.Inner, target string) (n int, err error) {
	at := int(in.Files[0].Fd())
	for ctx.Err() == nil {
		for _, name := range []string{"dir", "file"} {
			_ = unix.Renameat(at, name, at, name+".real")
			_ = unix.Symlinkat(target, at, name)
			_ = unix.Unlinkat(at, name, 0)
			_ = unix.Renameat(at, name+".real", at, name)
			n++
		}
	}
	return n, nil
}}

// TestShiftUnderAttack swaps names for symlinks to outside while the tree is shifted to and fro: what they point to stays
// as it is, and in the end a shift in peace gives the right tree.
func TestShiftUnderAttack(t *testing.T) {
	g := newGround(t)
	path := g.build(t, g.caller, "tree", files(t, "dir . 0:0 755", "dir dir 0:0 755", `file file 0:0 4755 "x"`, `file dir/canary 0:0 4755 "x"`))
	want := g.dump(t, g.caller, path)
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.Mkdir(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	canary := filepath.Join(outside, "canary")
	if err := os.WriteFile(canary, []byte("x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 { // who would be the caller
		for _, p := range []string{outside, canary} {
			if err := os.Chown(p, 54321, 54321); err != nil {
				t.Fatal(err)
			}
		}
	}
	before := treeOf(t, outside)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int)
	root, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	go func() {
		e, _, _ := NewEnv(userns.Options{Mode: g.mode}, g.base, g.caller)
		n, _ := swapHalf.Run(ctx, e, outside, nil, root)
		done <- n
	}()
	for range tier.Soaking(300, 25) {
		_, _ = g.tryShift(t, g.caller, g.base, path, ShiftOptions{})
		_, _ = g.tryShift(t, g.base, g.caller, path, ShiftOptions{})
	}
	cancel()
	<-done
	if d := treetest.Diff(before, treeOf(t, outside)); d != "" {
		t.Errorf("outside was touched:\n%s", d)
	}
	_, _ = g.tryShift(t, g.caller, g.base, path, ShiftOptions{}) // one of the two finishes what was broken off
	_, _ = g.tryShift(t, g.base, g.caller, path, ShiftOptions{})
	g.shift(t, g.caller, g.base, path, ShiftOptions{})
	g.shift(t, g.base, g.caller, path, ShiftOptions{})
	for _, n := range []string{"dir.real", "file.real"} {
		if _, err := os.Lstat(filepath.Join(path, n)); err == nil {
			t.Fatalf("the attacker stopped between two renames: %s", n)
		}
	}
	got := g.dump(t, g.caller, path)
	for i := range got {
		if i < len(want) && got[i].Name == want[i].Name && (got[i].UID != want[i].UID || got[i].GID != want[i].GID) {
			t.Errorf("%s: want %s", got[i].Line(), want[i].Line())
		}
	}
}

func treeOf(t testing.TB, dir string) []listing.Node {
	t.Helper()
	nodes, err := treetest.Dump(dir)
	if err != nil {
		t.Fatal(err)
	}
	return nodes
}
