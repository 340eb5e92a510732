package ownership

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/archive/treetest"
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/tier"
)

// runVar makes the test binary a process that shifts and can be killed: it holds a runSpec as JSON.
const runVar = "OWNERSHIP_TEST_RUN"

type runSpec struct{ Mode, From, To, Dir string }

func TestMain(m *testing.M) {
	userns.Main(append(append(Halves(), ferry.Halves()...), buildHalf, dumpHalf, swapHalf, touchHalf, meddleHalf)...)
	if text := os.Getenv(runVar); text != "" {
		var s runSpec
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			panic(err)
		}
		e, c, err := NewEnv(userns.Options{Mode: s.Mode}, s.From, s.To)
		if err == nil {
			_, err = Shift(context.Background(), e, c, s.Dir, ShiftOptions{})
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	tier.PrivateMounts()
	os.Exit(m.Run())
}

var buildHalf = userns.Half[[]string, struct{}]{Name: "test build", Func: func(_ context.Context, in *userns.Inner, lines []string) (none struct{}, err error) {
	nodes, err := parse(lines)
	if err != nil {
		return none, err
	}
	dir := fmt.Sprintf("/proc/self/fd/%d", in.Files[0].Fd())
	if err := in.Files[0].Chown(0, 0); err != nil {
		return none, err
	}
	return none, treetest.Build(dir, nodes)
}}

var dumpHalf = userns.Half[struct{}, []string]{Name: "test dump", Func: func(_ context.Context, in *userns.Inner, _ struct{}) ([]string, error) {
	nodes, err := treetest.Dump(fmt.Sprintf("/proc/self/fd/%d", in.Files[0].Fd()))
	return lines(nodes), err
}}

func parse(lines []string) (nodes []listing.Node, err error) {
	for _, l := range lines {
		n, err := listing.ParseLine(l)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

func lines(nodes []listing.Node) (out []string) {
	for _, n := range nodes {
		out = append(out, n.Line())
	}
	return out
}

// ground is where a test works: a directory of the caller's, and the maps that he may use.
type ground struct {
	dir  string
	mode string
	// base and caller are like the models of these names; turned holds the same outside ids as base, each for another inside id;
	// other is a range that overlaps neither, or empty when the user has none.
	base, caller, turned, other string
}

// newGround works as the unprivileged user with his own sub-ids, and as root with ranges that nobody has.
func newGround(t testing.TB) ground {
	t.Helper()
	g := ground{dir: t.TempDir(), mode: "unshare", base: "base", caller: "caller"}
	if os.Getuid() == 0 {
		const b = 3000000000
		g.base, g.other = fmt.Sprintf("%d:65536", b), fmt.Sprintf("%d:65536", b+1000000)
		g.caller = fmt.Sprintf("0:54321:1,1:%d:65535", b+1)
		g.turned = fmt.Sprintf("0:%d:65535,65535:%d:1", b+1, b)
		return g
	}
	e, err := userns.NewEnv(userns.Options{})
	tier.Have(t, err == nil && len(e.Caller.UIDRanges) > 0 && e.Caller.UIDRanges[0].Count >= 65536, "65536 sub-ids")
	u, v := e.Caller.UIDRanges[0].First, e.Caller.GIDRanges[0].First
	g.turned = fmt.Sprintf("u:0:%d:65535,u:65535:%d:1,g:0:%d:65535,g:65535:%d:1", u+1, u, v+1, v)
	return g
}

// env is a namespace with the map s.
func (g ground) env(t testing.TB, s string) *userns.Env {
	t.Helper()
	e, _, err := NewEnv(userns.Options{Mode: g.mode}, s, s)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// build makes the tree name with the owners of the map s and returns its path.
func (g ground) build(t testing.TB, s, name string, nodes []listing.Node) string {
	t.Helper()
	path := filepath.Join(g.dir, name)
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeTree(t, path) })
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, err := buildHalf.Run(t.Context(), g.env(t, s), lines(nodes), nil, dir); err != nil {
		t.Fatal(err)
	}
	return path
}

// dump lists the tree as inner root of the map s sees it.
func (g ground) dump(t testing.TB, s, path string) []listing.Node {
	t.Helper()
	parent, err := os.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer parent.Close()
	root, rest, err := userns.OpenTree(path)
	if err != nil || rest != "" {
		t.Fatal(err, rest)
	}
	defer root.Close()
	text, err := dumpHalf.Run(t.Context(), g.env(t, s), struct{}{}, nil, root)
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return nodes
}

// shift shifts and must succeed.
func (g ground) shift(t testing.TB, from, to, path string, o ShiftOptions) Shifted {
	t.Helper()
	s, err := g.tryShift(t, from, to, path, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (g ground) tryShift(t testing.TB, from, to, path string, o ShiftOptions) (Shifted, error) {
	t.Helper()
	e, c, err := NewEnv(userns.Options{Mode: g.mode}, from, to)
	if err != nil {
		return Shifted{}, err
	}
	return Shift(t.Context(), e, c, path, o)
}

// wantSame compares the tree, as the map s shows it, with an earlier dump.
func (g ground) wantSame(t testing.TB, s, path string, want []listing.Node) {
	t.Helper()
	if d := treetest.Diff(want, g.dump(t, s, path)); d != "" {
		t.Fatalf("seen through %s:\n%.3000s", s, d)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); err != nil || len(left) > 0 {
		t.Fatalf("left beside the tree: %q %v", left, err)
	}
}

// rootfs is everything that a tree may hold, plus n random inodes.
func rootfs(n int) []listing.Node {
	nodes := treetest.Oddities()
	for _, x := range treetest.Random(7, n) {
		if x.Name == "." {
			continue
		}
		x.Name = "random/" + x.Name
		if x.Type == listing.Hardlink {
			x.Target = "random/" + x.Target
		}
		nodes = append(nodes, x)
	}
	i := len(treetest.Oddities())
	return append(nodes[:i:i], append([]listing.Node{{Type: listing.Dir, Name: "random", Mode: 0o755, MTime: &listing.Time{Sec: 5}}}, nodes[i:]...)...)
}

// files is a small tree: lines of package listing.
func files(t testing.TB, text ...string) []listing.Node {
	t.Helper()
	nodes, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return nodes
}

// wantError demands that err says all of it.
func wantError(t testing.TB, err error, says ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one that says %q", says)
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("error %q does not say %q", err, s)
		}
	}
}
