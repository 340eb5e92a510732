package ownership

import (
	"context"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/acl"
	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/archive/treetest"
	"github.com/nsferry/nsferry/idshift/userns"
)

// TestShiftVouched changes the tree between plan and apply. An inode that has got an ACL since is looked at again, though the plan
// vouches for those that are older than it is; what was moved in with old times is noticed before the root is changed, and the
// next run finishes it.
func TestShiftVouched(t *testing.T) {
	g := newGround(t)
	path := g.build(t, g.base, "tree", files(t, "dir . 0:0 755", `file a 0:0 644 "x"`, "dir d 0:0 777"))
	g.build(t, g.base, "moved", files(t, "dir . 0:0 755", `file f 0:0 640 acl=u::rw-,u:0:r--,u:9:r--,g::r--,m::r--,o::--- "x"`))
	e, c, err := NewEnv(userns.Options{Mode: g.mode}, g.base, g.caller)
	if err != nil {
		t.Fatal(err)
	}
	apply := func(t *testing.T, r *run) error {
		t.Helper()
		f, err := r.slot.open(e.Caller.UID)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		j, err := readJournal(f)
		if err != nil {
			t.Fatal(err)
		}
		if j.Since == (timestamp{}) {
			t.Fatal("the plan has no time, so nothing is shown here")
		}
		if _, err := f.Seek(0, 0); err != nil {
			t.Fatal(err)
		}
		_, err = applyHalf.Run(t.Context(), e, applyArgs{r.place, r.view, 2, false}, nil, r.parent, f)
		return err
	}
	meddle := func(t *testing.T, what string) {
		t.Helper()
		if _, err := meddleHalf.Run(t.Context(), g.env(t, g.base), what, nil, openDir(t, g.dir)); err != nil {
			t.Fatal(err)
		}
	}

	r := newRun(t, e, c, path)
	r.planOnly(t)
	meddle(t, "acl")
	want := g.dump(t, g.base, path)
	if err := apply(t, r); err != nil {
		t.Fatal(err)
	}
	os.Remove(r.slot.path)
	g.wantSame(t, g.caller, path, want)
	g.shift(t, g.caller, g.base, path, ShiftOptions{})

	r = newRun(t, e, c, path)
	r.planOnly(t)
	meddle(t, "move")
	want = g.dump(t, g.base, path)
	before := rootOwner(t, path)
	wantError(t, apply(t, r), tree.ErrChanged.Error(), "shift again")
	if now := rootOwner(t, path); now != before {
		t.Errorf("the root went from %d to %d though the shift is not done", before, now)
	}
	if s := g.shift(t, g.base, g.caller, path, ShiftOptions{}); !s.Resumed {
		t.Error("the journal was not found")
	}
	if d := treetest.Diff(want, g.dump(t, g.caller, path)); d != "" {
		t.Errorf("after the second run:\n%s", d)
	}
	g.shift(t, g.caller, g.base, path, ShiftOptions{})
}

// meddleHalf changes the tree as inner root: a file gets an ACL, or a directory with what is in it comes in.
var meddleHalf = userns.Half[string, struct{}]{Name: "test meddle", Func: func(_ context.Context, in *userns.Inner, what string) (none struct{}, err error) {
	at := int(in.Files[0].Fd())
	if what == "move" {
		return none, unix.Renameat(at, "moved", at, "tree/d/moved")
	}
	a, err := acl.Parse("u::rw-,u:0:r--,g::r--,m::r--,o::r--", nil)
	if err != nil {
		return none, err
	}
	return none, unix.Setxattr(fmt.Sprintf("/proc/self/fd/%d/tree/a", at), tree.XattrAccess, a.Encode(), 0)
}}

func openDir(t testing.TB, path string) *os.File {
	t.Helper()
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir
}

func rootOwner(t testing.TB, path string) uint32 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Uid
}
