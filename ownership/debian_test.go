package ownership

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/tier"
)

// TestShiftDebianSoak takes a Debian tree from base to caller, to another range and home again, over and over, and kills the shift, or the
// half in it, on the way; the next run finishes it. As each map's inner root sees it the tree is the same everywhere, the sha256 of
// each file included. Everyday runs take minbase and a few moments, `make soak` more than 25,000 entries and 100 moments.
func TestShiftDebianSoak(t *testing.T) {
	name, args, atLeast := "minbase", []string{"--variant=minbase"}, 5000
	if tier.Soaking(true, false) {
		name, atLeast = "large", 25000
		args = []string{"--variant=standard", "--include=locales,systemd,postfix,polkitd,iputils-ping,python3,git,gcc,g++,linux-image-amd64,vim,perl"}
	}
	tarball, err := os.Open(tier.Debian(t, name, args...))
	if err != nil {
		t.Fatal(err)
	}
	defer tarball.Close()
	g := newGround(t)
	path := filepath.Join(g.dir, "tree")
	t.Cleanup(func() { removeTree(t, path) })
	if _, err := ferry.Unpack(t.Context(), g.env(t, g.base), tarball, path, ferry.UnpackOptions{Exclude: []string{"dev/*"}}); err != nil {
		t.Fatal(err)
	}
	want := g.dump(t, g.base, path)
	if len(want) < atLeast {
		t.Fatalf("%d entries, want %d", len(want), atLeast)
	}
	round := []string{g.caller, g.otherRange(t), g.base}
	var whole time.Duration
	now := g.base
	for _, next := range round { // undisturbed
		started := time.Now()
		g.shift(t, now, next, path, ShiftOptions{})
		whole = max(whole, time.Since(started))
		g.wantSame(t, next, path, want)
		now = next
	}
	moments, broken, resumed, runs := tier.Soaking(100, 2), 0, 0, 0
	for ; broken < moments; runs++ {
		if runs > 10*moments {
			t.Fatalf("of %d runs only %d could be killed", runs, broken)
		}
		next := round[runs%len(round)]
		if !g.kill(t, now, next, path, runs%2 == 1, time.Duration(rand.Int64N(int64(whole)))) {
			broken++
		}
		settle(t, path)
		if g.shift(t, now, next, path, ShiftOptions{}).Resumed {
			resumed++
		}
		g.wantSame(t, next, path, want)
		now = next
	}
	t.Logf("%d entries, %v undisturbed; of %d runs %d were killed before their end, %d of those when the journal was there",
		len(want), whole.Round(time.Millisecond), runs, broken, resumed)
}

// otherRange is a range that a tree of Debian's ids fits in: one that nobody has, or, for the user, the second half of his.
func (g ground) otherRange(t testing.TB) string {
	t.Helper()
	if g.other != "" {
		return g.other
	}
	m := g.env(t, g.base).Plain
	u, v := must(m.UID.ToOutside(32768)), must(m.GID.ToOutside(32768))
	return fmt.Sprintf("u:0:%d:32767,u:65534:%d:1,g:0:%d:32767,g:65534:%d:1", u, u+32767, v, v+32767)
}

// removeTree removes a tree by whoever owns it now.
func removeTree(t testing.TB, path string) {
	t.Helper()
	e, err := userns.NewEnv(userns.Options{}) // as root, real root
	if err == nil {
		_, err = ferry.Remove(context.Background(), e, path, ferry.RemoveOptions{Force: true})
	}
	if err != nil {
		t.Error(err)
	}
}
