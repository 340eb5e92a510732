package archive_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/treetest"
	"github.com/nsferry/nsferry/idshift"
	"github.com/nsferry/nsferry/tier"
)

func refreshing() archive.RefreshOptions {
	return archive.RefreshOptions{IDs: archive.IDs{Plain: idshift.Identity()}, Policy: archive.Policy{}.WithDefaults(true), Workers: 2}
}

// refresh turns dir into the state of the archive, and checks it against a fresh copy.
func refresh(t testing.TB, archived []byte, dir *os.File, o archive.RefreshOptions) archive.Refreshed {
	t.Helper()
	sum, err := archive.Refresh(t.Context(), file(t, archived), dir, o)
	check(t, err)
	return sum
}

// TestRefreshRandom turns any tree into any other one, and back.
func TestRefreshRandom(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			a, _ := pack(t, build(t, treetest.Random(seed, 150)), options())
			b, _ := pack(t, build(t, treetest.Random(seed+100, 150)), options())
			if seed == 0 {
				b, _ = pack(t, build(t, treetest.Oddities()), options())
			}
			wantA, _ := unpack(t, a, extraction())
			wantB, _ := unpack(t, b, extraction())
			dir, _ := unpack(t, a, extraction())
			if sum := refresh(t, a, dir, refreshing()); sum.Changed() {
				t.Errorf("the same tree is changed: %+v", sum)
			}
			refresh(t, b, dir, refreshing())
			sameTree(t, dump(t, wantB), dump(t, dir))
			if sum := refresh(t, b, dir, refreshing()); sum.Changed() {
				t.Errorf("a second time something is changed: %+v", sum)
			}
			refresh(t, a, dir, refreshing())
			sameTree(t, dump(t, wantA), dump(t, dir))
		})
	}
}
