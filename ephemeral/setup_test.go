package ephemeral

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/idshift/userns/mounts"
	"github.com/nsferry/nsferry/idshift/userns/usernstest"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// site is a directory with a tree, its archive, and a state of its own.
type site struct {
	env     *userns.Env
	dir     string
	tree    string
	archive string
	state   *State
	notes   []string
}

// newSite fills a directory below dir, which inner root may enter.
func newSite(t *testing.T, e *userns.Env, dir string, nodes []listing.Node) *site {
	t.Helper()
	dir, err := os.MkdirTemp(dir, "site")
	check(t, err)
	check(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() {
		if _, err := ferry.Remove(context.Background(), e, dir, ferry.RemoveOptions{Force: true}); err != nil {
			t.Error(err)
		}
	})
	s := &site{env: e, dir: dir, tree: filepath.Join(dir, "tree"), archive: filepath.Join(dir, "tree.tar.zst")}
	usernstest.Build(t, e, s.tree, nodes)
	_, err = ferry.Pack(t.Context(), e, s.tree, s.archive, ferry.PackOptions{})
	check(t, err)
	// What both start from is the same, holes too short for an archive included.
	_, err = ferry.Remove(t.Context(), e, s.tree, ferry.RemoveOptions{})
	check(t, err)
	in, err := os.Open(s.archive)
	check(t, err)
	defer in.Close()
	_, err = ferry.Unpack(t.Context(), e, in, s.tree, ferry.UnpackOptions{})
	check(t, err)
	s.state, err = Open(filepath.Join(dir, "state"))
	check(t, err)
	t.Cleanup(func() { check(t, s.state.Close()) })
	return s
}

// command is the test binary as a mutation, in a rootfs.
func (s *site) command(t *testing.T, args ...string) userns.Spec {
	t.Helper()
	exe, err := os.Executable()
	check(t, err)
	bind, err := mounts.OpenBind(exe, mutator, true)
	check(t, err)
	t.Cleanup(func() { bind.Close() })
	null, err := os.Open(os.DevNull)
	check(t, err)
	t.Cleanup(func() { null.Close() })
	return userns.Spec{
		Argv: append([]string{mutator}, args...), Stdin: null,
		Mounts: mounts.Spec{Dev: true, Shm: true, Proc: true, Sys: true, ResolvConf: []byte("nameserver 192.0.2.1\n"), Binds: []mounts.Bind{bind}},
		Note:   func(text string) { s.notes = append(s.notes, text) },
	}
}

// over runs a command over the tree ("" for its archive), and returns the status and the archive that it committed, nil if none.
func (s *site) over(t *testing.T, tree string, o Options) (int, []byte) {
	t.Helper()
	s.notes = nil
	if tree == "" {
		f, err := os.Open(s.archive)
		check(t, err)
		defer f.Close()
		o.Archive = f
	} else {
		root, _, err := userns.OpenTree(tree)
		check(t, err)
		defer root.Close()
		o.Command.Mounts.Root = root
	}
	path := filepath.Join(t.TempDir(), "commit.tar.zst")
	out, err := ferry.NewOutput(path, ferry.PackOptions{})
	check(t, err)
	defer func() { check(t, out.Abort()) }()
	o.Commit = func(ctx context.Context, tree ferry.Source) error {
		_, err := out.Pack(ctx, s.env, tree)
		return err
	}
	status, err := Run(t.Context(), s.env, s.state, o)
	if err != nil {
		t.Fatalf("status %d: %v", status, err)
	}
	s.nothingLeft(t)
	return status, read(t, path)
}

// read returns nil for a file that is not there.
func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if !os.IsNotExist(err) {
		check(t, err)
	}
	return b
}

// nothingLeft demands that no layer is there.
func (s *site) nothingLeft(t *testing.T) {
	t.Helper()
	left, err := os.ReadDir(s.state.runs.Name())
	check(t, err)
	for _, l := range left {
		t.Errorf("left: %s", l.Name())
	}
}

// intact demands that every master and the tree are what the archive says.
func (s *site) intact(t *testing.T) {
	t.Helper()
	trees, err := filepath.Glob(filepath.Join(s.state.masters(), "*", treeName))
	check(t, err)
	want := read(t, s.archive)
	for _, tree := range append(trees, s.tree) {
		out := filepath.Join(t.TempDir(), "again.tar.zst")
		_, err := ferry.Pack(t.Context(), s.env, tree, out, ferry.PackOptions{})
		check(t, err)
		if string(read(t, out)) != string(want) {
			t.Errorf("%s has changed", strings.TrimPrefix(tree, s.dir))
		}
	}
}
