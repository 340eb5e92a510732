package ferry

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/archive/treetest"
	"github.com/nsferry/nsferry/idshift"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/tier"
)

// buildHalf makes the tree of its argument in a directory, with inside ids.
var buildHalf = userns.Half[string, struct{}]{Name: "test-build", Func: func(_ context.Context, in *userns.Inner, text string) (none struct{}, err error) {
	nodes, err := listing.Parse(text)
	if err != nil {
		return none, err
	}
	return none, treetest.Build(fmt.Sprintf("/proc/self/fd/%d", in.Files[0].Fd()), nodes)
}}

// dumpHalf returns the lines of a tree, with inside ids.
var dumpHalf = userns.Half[struct{}, string]{Name: "test-dump", Func: func(_ context.Context, in *userns.Inner, _ struct{}) (string, error) {
	nodes, err := treetest.Dump(fmt.Sprintf("/proc/self/fd/%d", in.Files[0].Fd()))
	return listing.Text(nodes), err
}}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// place is a directory of the caller's that inner root may walk and write, emptied by nsferry at the end.
func place(t testing.TB, e *userns.Env) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "nsferry-ferry")
	check(t, err)
	check(t, os.Chmod(dir, 0o777))
	t.Cleanup(func() {
		if _, err := Remove(context.Background(), e, dir, true); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// build makes a tree in e's map.
func build(t testing.TB, e *userns.Env, dir string, nodes []listing.Node) {
	t.Helper()
	check(t, os.Mkdir(dir, 0o755))
	f, err := os.Open(dir)
	check(t, err)
	defer f.Close()
	_, err = buildHalf.Run(t.Context(), e, listing.Text(nodes), nil, f)
	check(t, err)
}

// dump reads a tree in e's map, by the oracle's code.
func dump(t testing.TB, e *userns.Env, dir string) []listing.Node {
	t.Helper()
	f, rest, err := userns.OpenTree(dir)
	check(t, err)
	defer f.Close()
	if rest != "" {
		t.Fatalf("%s is closed", dir)
	}
	text, err := dumpHalf.Run(t.Context(), e, struct{}{}, nil, f)
	check(t, err)
	nodes, err := listing.Parse(text)
	check(t, err)
	return nodes
}

type namedEnv struct {
	name string
	*userns.Env
}

// envs are all ways in that this process has; the first is the plainest. Root plays a user with other ranges by sub-id
// files of its own.
func envs(t testing.TB) []namedEnv {
	t.Helper()
	var all []namedEnv
	add := func(name string, o userns.Options) {
		e, err := userns.NewEnv(o)
		check(t, err)
		all = append(all, namedEnv{name, e})
	}
	if os.Geteuid() != 0 {
		tier.Program(t, "newuidmap")
		add("base", userns.Options{})
		add("caller", userns.Options{Model: "caller"})
		add("identity", userns.Options{Model: "identity"})
		u, ok := all[0].Plain.UID.ToOutside(0)
		g, ok2 := all[0].Plain.GID.ToOutside(0)
		tier.Have(t, ok && ok2, "sub-ids")
		add("another range", userns.Options{Map: fmt.Sprintf("u:0:%d:65534,u:65534:%d:1,g:0:%d:65534,g:65534:%d:1", u+1, u, g+1, g)})
		return all
	}
	add("root", userns.Options{Mode: "root"})
	add("root with a map", userns.Options{Mode: "root", Map: "0:300000:65536"})
	add("root with another map", userns.Options{Mode: "root", Map: "u:0:500001:65534,u:65534:500000:1,g:0:600001:65534,g:65534:600000:1"})
	for _, first := range []int{300000, 700000} {
		file := filepath.Join(t.TempDir(), "subid")
		check(t, os.WriteFile(file, fmt.Appendf(nil, "root:%d:65536\n", first), 0o644))
		sys := userns.System{Sources: idshift.Sources{SubUID: file, SubGID: file}}
		for _, model := range []string{"base", "caller", "identity"} {
			add(fmt.Sprintf("%s from %d", model, first), userns.Options{Mode: "unshare", Model: model, System: sys})
		}
	}
	return all
}
