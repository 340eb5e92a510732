package ownership

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/tier"
)

// TestShiftRound takes a tree with everything in it through all maps and home again; as each map's inner root sees it, it is
// the same everywhere: ACLs, capabilities, setuid bits, times, hard links, holes. turned has the same outside ids as base
// for other inside ids, so that only the journal and the root directory tell what was done.
func TestShiftRound(t *testing.T) {
	g := newGround(t)
	path := g.build(t, g.base, "tree", rootfs(tier.Soaking(25000, 150)))
	want := g.dump(t, g.base, path)
	round := []string{g.caller, g.base, g.turned, g.caller, g.turned, g.base}
	if g.other != "" {
		round = append(round, g.other, g.turned, g.other, g.base)
	}
	now := g.base
	for _, next := range round {
		dry := g.shift(t, now, next, path, ShiftOptions{DryRun: true})
		g.wantSame(t, now, path, want)
		s := g.shift(t, now, next, path, ShiftOptions{Workers: 1 + len(next)%3})
		if s.Changed == 0 || s.Changed != dry.Changed && now != g.turned && next != g.turned {
			t.Errorf("%s to %s: %+v, and the dry run said %+v", now, next, s, dry)
		}
		g.wantSame(t, next, path, want)
		if s := g.shift(t, now, next, path, ShiftOptions{}); s.Changed != 0 || s.Resumed {
			t.Errorf("%s to %s once more: %+v", now, next, s)
		}
		g.wantSame(t, next, path, want)
		now = next
	}
}

// TestShiftByArithmetic does the same as real root, outside of any namespace, and the kernel's own translation agrees.
func TestShiftByArithmetic(t *testing.T) {
	tier.Root(t, "ids of all kinds, without a namespace")
	g := newGround(t)
	path := g.build(t, g.base, "tree", rootfs(300))
	want := g.dump(t, g.base, path)
	direct := g
	direct.mode = "root"
	now := g.base
	for _, next := range []string{g.other, g.caller, g.turned, "0:0:65536", "0:1:65535,65535:0:1", "0:0:65536", g.base} {
		direct.shift(t, now, next, path, ShiftOptions{})
		if next != "0:0:65536" && next[:4] != "0:1:" {
			g.wantSame(t, next, path, want)
		}
		now = next
	}
}

// kill starts a shift in a process of its own and kills it, or else the half that it runs just then, after the time, unless it
// has ended by then.
func (g ground) kill(t testing.TB, from, to, path string, half bool, after time.Duration) (ended bool) {
	t.Helper()
	text, err := json.Marshal(runSpec{g.mode, from, to, path})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), runVar+"="+string(text))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(after, func() {
		if half && killChildren(cmd.Process.Pid) {
			return
		}
		_ = cmd.Process.Kill()
	})
	defer timer.Stop()
	return cmd.Wait() == nil
}

// killChildren kills the children of a process; false if there were none.
func killChildren(pid int) (some bool) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, l := range lists {
		text, _ := os.ReadFile(l) // of a thread, which may be gone
		for _, child := range strings.Fields(string(text)) {
			if n, err := strconv.Atoi(child); err == nil && unix.Kill(n, unix.SIGKILL) == nil {
				some = true
			}
		}
	}
	return some
}

// TestShiftKilledCrash kills shifts at random moments; whatever there is then, the next run finishes it.
func TestShiftKilledCrash(t *testing.T) {
	g := newGround(t)
	path := g.build(t, g.base, "tree", rootfs(tier.Soaking(6000, 400)))
	want := g.dump(t, g.base, path)
	for _, to := range []string{g.caller, g.turned} {
		started := time.Now()
		if !g.kill(t, g.base, to, path, false, time.Minute) {
			t.Fatal("a shift that nobody killed failed")
		}
		whole := time.Since(started)
		g.wantSame(t, to, path, want)
		now, next := to, g.base
		broken := 0
		for i := range tier.Soaking(50, 5) {
			if !g.kill(t, now, next, path, i%2 == 1, time.Duration(rand.Int64N(int64(whole)))) {
				broken++
			}
			settle(t, path)
			g.shift(t, now, next, path, ShiftOptions{})
			g.wantSame(t, next, path, want)
			now, next = next, now
		}
		t.Logf("%s: %d of the runs were killed before their end", to, broken)
		g.shift(t, now, g.base, path, ShiftOptions{})
	}
}

// settle waits until no inner process has a lock on the tree any more: it dies with the outer one, but not in the same instant.
func settle(t testing.TB, path string) {
	t.Helper()
	dir, err := os.Open(path)
	if err != nil { // closed to the caller: the shift says if somebody has a lock
		time.Sleep(50 * time.Millisecond)
		return
	}
	defer dir.Close()
	for range 500 {
		if unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("an inner process outlived its outer one")
}

// TestShiftKilledBetween stops where it hurts: after chown has dropped setuid bits and capabilities, and before the root.
func TestShiftKilledBetween(t *testing.T) {
	g := newGround(t)
	path := g.build(t, g.base, "tree", rootfs(0))
	want := g.dump(t, g.base, path)
	for _, to := range []string{g.caller, g.turned} {
		e, c, err := NewEnv(userns.Options{Mode: g.mode}, g.base, to)
		if err != nil {
			t.Fatal(err)
		}
		// The journal is there and nothing was done; then the files that are easiest to get wrong have lost their bits.
		r := newRun(t, e, c, path)
		r.planOnly(t)
		if _, err := handHalf.Run(t.Context(), e, handArgs{place{Rest: "tree", Name: "setuid"}, 77, 77, HandOptions{}}, nil, r.parent); err != nil {
			t.Fatal(err)
		}
		if _, err := handHalf.Run(t.Context(), e, handArgs{place{Rest: "tree", Name: "cap-ep"}, 77, 77, HandOptions{}}, nil, r.parent); err != nil {
			t.Fatal(err)
		}
		s := g.shift(t, g.base, to, path, ShiftOptions{})
		if !s.Resumed {
			t.Error("the journal was not found")
		}
		g.wantSame(t, to, path, want)
		g.shift(t, to, g.base, path, ShiftOptions{})
	}
}

// newRun is a run up to its first half.
func newRun(t testing.TB, e *userns.Env, c Change, path string) *run {
	t.Helper()
	parent, err := os.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { parent.Close() })
	r := &run{env: e, change: c, parent: parent, place: place{"", filepath.Base(path), e.CallerFSIDs()}}
	r.view = view{From: c.From, To: c.To, Seen: e.Handoff}
	if err := r.openSlot(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.slot.dir.Close() })
	return r
}

// planOnly leaves the journal where a killed run would.
func (r *run) planOnly(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile(r.slot.path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := planHalf.Run(t.Context(), r.env, planArgs{r.place, r.view, 2, false}, nil, r.parent, f)
	if err != nil || p.Total > 0 || p.Refused != "" {
		t.Fatalf("%+v %v", p, err)
	}
}

// TestShiftRefuses lists what is refused before anything changes.
func TestShiftRefuses(t *testing.T) {
	g := newGround(t)
	path := g.build(t, g.base, "tree", files(t, "dir . 0:0 755", "dir d 5:5 755", `file d/f 6:6 4755 "x"`, `file d/g 70:71 640 acl=u::rw-,u:72:r--,g::r--,m::r--,o::--- "x"`))
	want := g.dump(t, g.base, path)
	for name, to := range map[string]string{"link": path, "dangling": "nowhere"} {
		if err := os.Symlink(to, filepath.Join(g.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(g.dir, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		from, to, name string
		says           []string
	}{
		{g.base, g.caller, "link", []string{"symbolic link"}},
		{g.base, g.caller, "link/", []string{"symbolic link"}},
		{g.base, g.caller, "dangling", []string{"symbolic link"}},
		{g.base, g.caller, "file", []string{"not a directory"}},
		{g.base, g.caller, "missing", []string{"no such file"}},
		{g.base, g.caller, "missing/tree", []string{"no such file"}},
		{g.base, g.caller, "", []string{"file does not exist"}},
		{g.base, "0:1:2,1:2:1", "tree", []string{"overlap"}},
		{"0:1:2,0:5:1", g.base, "tree", []string{"--from", "overlap"}},
		{g.base, "what", "tree", []string{`"what" is neither a model`}},
		{g.base, "100:0", "tree", []string{`range "100:0"`}},
		{g.base, "4294967290:10", "tree", []string{"range"}},
	} {
		t.Run(tt.name+" "+tt.to, func(t *testing.T) {
			dir := filepath.Join(g.dir, tt.name)
			if tt.name == "" {
				dir = ""
			}
			_, err := g.tryShift(t, tt.from, tt.to, dir, ShiftOptions{})
			wantError(t, err, tt.says...)
		})
	}
	for _, name := range []string{"link", "dangling", "file"} {
		os.Remove(filepath.Join(g.dir, name))
	}
	g.wantSame(t, g.base, path, want)
}

// TestShiftMisfits wants every id that has no place named at once, and nothing changed.
func TestShiftMisfits(t *testing.T) {
	g := newGround(t)
	path := g.build(t, g.base, "tree", files(t, "dir . 0:0 755", "file a 60:61 644", "file b 60:0 640 acl=u::rw-,u:62:r--,g::r--,g:63:r--,m::r--,o::---", "dir c 0:0 755 default=u::rwx,u:64:r-x,g::r-x,m::r-x,o::---"))
	want := g.dump(t, g.base, path)
	e := g.env(t, g.base)
	small := fmt.Sprintf("u:0:%d:50,g:0:%d:50", must(e.Plain.UID.ToOutside(1000)), must(e.Plain.GID.ToOutside(1000)))
	_, err := g.tryShift(t, g.base, small, path, ShiftOptions{})
	wantError(t, err, "5 ids cannot be shifted", "nothing was changed", "uid 60 ", `(2 ×, first "a")`, "gid 61 ", "uid 62 ", "gid 63 ", "uid 64 ")
	g.wantSame(t, g.base, path, want)
}

func must(id uint32, ok bool) uint32 {
	if !ok {
		panic("no such id")
	}
	return id
}

// TestShiftShared refuses inodes that have a name outside of the tree, unless that is allowed.
func TestShiftShared(t *testing.T) {
	g := newGround(t)
	path := g.build(t, g.caller, "tree", files(t, "dir . 0:0 755", "dir debs 0:0 755"))
	if os.Getuid() == 0 {
		if err := os.Chown(g.dir, 54321, 54321); err != nil {
			t.Fatal(err)
		}
	}
	outside := filepath.Join(g.dir, "cached.deb") // the user's download cache, hard-linked into the rootfs
	if err := os.WriteFile(outside, []byte("deb"), 0o644); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		if err := os.Chown(outside, 54321, 54321); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(outside, filepath.Join(path, "debs/cached.deb")); err != nil {
		t.Fatal(err)
	}
	want := g.dump(t, g.caller, path)
	_, err := g.tryShift(t, g.caller, g.base, path, ShiftOptions{})
	wantError(t, err, `"debs/cached.deb"`, "--shared")
	g.wantSame(t, g.caller, path, want)
	g.shift(t, g.caller, g.base, path, ShiftOptions{Shared: true})
	g.wantSame(t, g.base, path, want)
}

// TestShiftUndecided refuses overlapping maps where nothing tells what the tree has.
func TestShiftUndecided(t *testing.T) {
	g := newGround(t)
	path := g.build(t, g.base, "tree", files(t, "dir . 7:7 755", "file f 8:8 644"))
	want := g.dump(t, g.base, path)
	_, err := g.tryShift(t, g.base, g.turned, path, ShiftOptions{})
	wantError(t, err, "both maps have this id")
	g.wantSame(t, g.base, path, want)
	// A broken-off shift whose journal was lost: the root says that it was not finished.
	path = g.build(t, g.base, "lost", files(t, "dir . 0:0 755", "file f 8:8 644", "file g 65535:0 644"))
	want = g.dump(t, g.base, path)
	e := g.env(t, g.base)
	narrow := fmt.Sprintf("u:0:%d:65535,g:0:%d:65535", must(e.Plain.UID.ToOutside(0)), must(e.Plain.GID.ToOutside(0)))
	_, err = g.tryShift(t, narrow, g.turned, path, ShiftOptions{})
	wantError(t, err, "as if a shift had been broken off whose journal is gone", "nothing was changed")
	g.wantSame(t, g.base, path, want)
}

// TestShiftJournals refuses journals that are not the caller's own for this very shift.
func TestShiftJournals(t *testing.T) {
	g := newGround(t)
	path := g.build(t, g.base, "tree", files(t, "dir . 0:0 755", `file f 0:0 4755 "x"`))
	want := g.dump(t, g.base, path)
	e, c, err := NewEnv(userns.Options{Mode: g.mode}, g.base, g.caller)
	if err != nil {
		t.Fatal(err)
	}
	r := newRun(t, e, c, path)
	r.planOnly(t)
	good, err := os.ReadFile(r.slot.path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.tryShift(t, g.caller, g.base, path, ShiftOptions{}); err == nil {
		t.Error("another shift went ahead over a broken-off one")
	} else {
		wantError(t, err, "finish it first: nsferry shift --from")
	}
	for name, do := range map[string]func() error{
		"open to others": func() error { return os.Chmod(r.slot.path, 0o666) },
		"linked":         func() error { return os.Link(r.slot.path, filepath.Join(g.dir, "second")) },
		"symlink": func() error {
			os.Rename(r.slot.path, filepath.Join(g.dir, "real"))
			return os.Symlink("real", r.slot.path)
		},
		"cut":   func() error { return os.Truncate(r.slot.path, int64(len(good))-10) },
		"empty": func() error { return os.Truncate(r.slot.path, 0) },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
		if _, err := g.tryShift(t, g.base, g.caller, path, ShiftOptions{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
		for _, n := range []string{"second", "real", filepath.Base(r.slot.path)} {
			os.Remove(filepath.Join(g.dir, n))
		}
		if err := os.WriteFile(r.slot.path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(r.slot.path); err != nil {
		t.Fatal(err)
	}
	g.wantSame(t, g.base, path, want)
}
