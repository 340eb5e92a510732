package userns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestHandoffMapHoldsTheCaller(t *testing.T) {
	e := testEnv(t)
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	owner := func() uint32 {
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		return st.Uid
	}
	self, ok := e.Handoff.UID.ToInside(uint32(os.Getuid()))
	selfGID, okGID := e.Handoff.GID.ToInside(uint32(os.Getgid()))
	if !ok || !okGID {
		t.Fatal("the caller is not in the handoff map")
	}
	base, _ := e.Plain.UID.ToOutside(0)
	for range 2 {
		if _, err := crossing.Run(t.Context(), e, [2]int{0, 0}, nil, f); err != nil || owner() != base {
			t.Fatalf("to inner root: owner %d, %v", owner(), err)
		}
		if _, err := crossing.Run(t.Context(), e, [2]int{int(self), int(selfGID)}, nil, f); err != nil || owner() != uint32(os.Getuid()) {
			t.Fatalf("back to the caller: owner %d, %v", owner(), err)
		}
	}
}

func TestIsolatedHalfMountsForItselfOnly(t *testing.T) {
	envs := map[string]*Env{"unshare": testEnv(t)}
	if os.Getuid() == 0 {
		root, err := NewEnv(Options{Mode: "root"})
		if err != nil {
			t.Fatal(err)
		}
		envs["root"] = root
	}
	for name, e := range envs {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			makeReachable(t, dir)
			if _, err := mounting.Run(t.Context(), e, dir, nil); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(filepath.Join(dir, "mark")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the mount is seen outside: %v", err)
			}
			got, err := upper.Run(t.Context(), e, "x", nil)
			if err != nil || !strings.HasPrefix(got, "X ") || got == "X "+strconv.Itoa(os.Getpid()) {
				t.Errorf("isolated half: %q, %v", got, err)
			}
		})
	}
}

// TestKillOfOuterEndsHalf kills the outer process; a half that never looks at its
// context must not outlive it.
func TestKillOfOuterEndsHalf(t *testing.T) {
	testEnv(t)
	for i := range 5 {
		cmd := runnerCmd(t)
		cmd.Env = append(os.Environ(), runnerVar+`={"Half":true}`)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var pid int
		if _, err := fmt.Fscan(out, &pid); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		eventually(t, "stubborn half has ended", func() bool {
			s := state(pid) // a zombie is its new parent's business
			return s == "" || s == "Z"
		})
	}
}

// makeReachable opens the test's temporary directories to other uids, up to the first one of somebody else's.
func makeReachable(t *testing.T, dir string) {
	t.Helper()
	for ; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o777); err != nil {
			return
		}
	}
}
