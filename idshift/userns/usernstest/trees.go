package usernstest

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/archive/treetest"
	"github.com/nsferry/nsferry/idshift/userns"
)

// Halves are what the TestMain of a package that uses this one has to register.
func Halves() []userns.Registered { return []userns.Registered{buildHalf, dumpHalf} }

// buildHalf makes the tree of its argument in a directory, with inside ids.
var buildHalf = userns.Half[string, struct{}]{Name: "test-build", Func: func(_ context.Context, in *userns.Inner, text string) (none struct{}, err error) {
	nodes, err := listing.Parse(text)
	if err != nil {
		return none, err
	}
	return none, treetest.Build(self(in), nodes)
}}

// dumpHalf returns the lines of a tree, with inside ids.
var dumpHalf = userns.Half[struct{}, string]{Name: "test-dump", Func: func(_ context.Context, in *userns.Inner, _ struct{}) (string, error) {
	nodes, err := treetest.Dump(self(in))
	return listing.Text(nodes), err
}}

func self(in *userns.Inner) string { return fmt.Sprintf("/proc/self/fd/%d", in.Files[0].Fd()) }

// Build makes the directory dir, the caller's, and the tree in it, with inside ids of e's map.
func Build(t testing.TB, e *userns.Env, dir string, nodes []listing.Node) {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := buildHalf.Run(t.Context(), e, listing.Text(nodes), nil, f); err != nil {
		t.Fatal(err)
	}
}

// Dump reads a tree in e's map, by the oracle's code.
func Dump(t testing.TB, e *userns.Env, dir string) []listing.Node {
	t.Helper()
	f, rest, err := userns.OpenTree(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if rest != "" {
		t.Fatalf("%s is closed", dir)
	}
	text, err := dumpHalf.Run(t.Context(), e, struct{}{}, nil, f)
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := listing.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return nodes
}
