package userns

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nsferry/nsferry/idshift/userns/mounts"
)

// sight is what a command sees from within a rootfs.
type sight struct {
	UID, PID  int
	Dir       string
	Root      []string // names in /
	Processes []string // pids in /proc
	Home      string
	Resolv    string
	Mounts    []string // mount points
	Null      string   // result of writing to /dev/null
	FDs       []string
}

// lookAround is the command of a test rootfs, which holds nothing but this binary.
func lookAround() int {
	if len(os.Args) > 1 {
		time.Sleep(time.Hour)
	}
	s := sight{UID: os.Getuid(), PID: os.Getpid(), Home: os.Getenv("HOME"), Null: "ok"}
	s.Dir, _ = os.Getwd()
	names := func(dir string, ok func(string) bool) (list []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return []string{err.Error()}
		}
		for _, e := range entries {
			if ok(e.Name()) {
				list = append(list, e.Name())
			}
		}
		return list
	}
	s.Root = names("/", func(string) bool { return true })
	s.Processes = names("/proc", func(n string) bool { _, err := strconv.Atoi(n); return err == nil })
	text, _ := os.ReadFile("/etc/resolv.conf")
	s.Resolv = string(text)
	table, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(table)) {
		s.Mounts = append(s.Mounts, strings.Fields(line)[4])
	}
	if err := os.WriteFile("/dev/null", []byte("x"), 0); err != nil {
		s.Null = err.Error()
	}
	for line := range strings.Lines(openFDs()) {
		s.FDs = append(s.FDs, strings.Fields(line)[0])
	}
	_ = json.NewEncoder(os.Stdout).Encode(s)
	return 42
}

// testRootfs makes a tree that holds only this binary, owned by inner root, below a directory that is closed to all but
// the caller.
func testRootfs(t *testing.T, e *Env) string {
	t.Helper()
	if cgoBuild() {
		t.Skip("a dynamic binary does not run alone in a rootfs")
	}
	root := filepath.Join(t.TempDir(), "closed", "rootfs")
	if err := os.MkdirAll(filepath.Join(root, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin/probe"), self, 0o755); err != nil {
		t.Fatal(err)
	}
	own := func(uid, gid uint32) {
		for _, name := range []string{"bin/probe", "bin", "."} {
			f, err := os.Open(filepath.Join(root, name))
			if err != nil {
				t.Fatal(err)
			}
			_, err = crossing.Run(context.Background(), e, [2]int{int(uid), int(gid)}, nil, f)
			f.Close()
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	own(0, 0)
	if err := os.Chmod(filepath.Dir(root), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // back, for TempDir to remove it
		uid, _ := e.Handoff.UID.ToInside(uint32(os.Getuid()))
		gid, _ := e.Handoff.GID.ToInside(uint32(os.Getgid()))
		own(uid, gid)
	})
	return root
}

// listing is every name in a tree. What changes meanwhile, or is still closed, shows as an error among the names.
func listing(root string) []string {
	var names []string
	_ = filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, p)
		if err != nil {
			rel += ": " + err.Error()
		}
		names = append(names, rel)
		return nil
	})
	return names
}

func TestRootfs(t *testing.T) {
	t.Run("unshare", func(t *testing.T) { lookIntoRootfs(t, testEnv(t)) })
	if os.Getuid() == 0 {
		e, err := NewEnv(Options{Mode: "root"})
		if err != nil {
			t.Fatal(err)
		}
		t.Run("root", func(t *testing.T) { lookIntoRootfs(t, e) })
	}
}

func lookIntoRootfs(t *testing.T, e *Env) {
	dir := testRootfs(t, e)
	before := listing(dir)
	root, rest, err := OpenTree(dir)
	if err != nil || rest != "" {
		t.Fatal(rest, err)
	}
	defer root.Close()
	spec := Spec{Argv: []string{"probe"}, Mounts: mounts.Spec{Root: root, Dev: true, Shm: true, Proc: true, Sys: true, ResolvConf: []byte("# ours\n")}}
	out, code, err := output(t, e, spec)
	if code != 42 || err != nil {
		t.Fatalf("status %d, %v, %s", code, err, out)
	}
	var got sight
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	for _, m := range got.Mounts {
		ours := slices.ContainsFunc([]string{"/dev", "/proc", "/sys", "/etc/resolv.conf"}, func(p string) bool { return m == p || strings.HasPrefix(m, p+"/") })
		if m != "/" && !ours {
			t.Errorf("a mount of the outside is left: %s", m)
		}
	}
	want := sight{Dir: "/", PID: got.PID, Root: []string{"bin", "dev", "etc", "proc", "sys"}, Processes: []string{"1", strconv.Itoa(got.PID)},
		Home: "/root", Resolv: "# ours\n", Null: "ok", FDs: []string{"0", "1", "2"}, Mounts: got.Mounts}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("inside (-want +got):\n%s", d)
	}
	if d := cmp.Diff(before, listing(dir)); d != "" {
		t.Errorf("left in the tree (-before +after):\n%s", d)
	}
}

// TestKillLeavesNoPlaceholders kills the outer process, its init or its whole process group at several moments of a run.
func TestKillLeavesNoPlaceholders(t *testing.T) {
	e := testEnv(t)
	dir := testRootfs(t, e)
	before := listing(dir)
	for i := range 15 {
		marker := fmt.Sprintf("stay%d-%d", os.Getpid(), i)
		spec, err := json.Marshal(map[string]any{"Argv": []string{"probe", marker}, "Root": dir})
		if err != nil {
			t.Fatal(err)
		}
		cmd := runnerCmd(t)
		cmd.Env = append(os.Environ(), runnerVar+"="+string(spec))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i) * 3 * time.Millisecond)
		target := cmd.Process.Pid
		if i%3 == 0 {
			target = -target
		}
		if err := syscall.Kill(target, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		eventually(t, "processes have ended", func() bool { return gone(marker) })
		eventually(t, "placeholders are gone", func() bool { return slices.Equal(before, listing(dir)) })
	}
}
