package sstate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/archive/treetest"
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/sstate/minisign"
	"github.com/nsferry/nsferry/sstate/store"
	"github.com/nsferry/nsferry/tier"
)

func TestMain(m *testing.M) {
	userns.Main(append(ferry.Halves(), buildHalf, dumpHalf)...)
	serveJob()
	tier.PrivateMounts()
	os.Exit(m.Run())
}

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
	dir, err := os.MkdirTemp("", "nsferry-sstate")
	check(t, err)
	check(t, os.Chmod(dir, 0o777))
	t.Cleanup(func() {
		if _, err := ferry.Remove(context.Background(), e, dir, ferry.RemoveOptions{Force: true}); err != nil {
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

// dump reads a tree in e's map.
func dump(t testing.TB, e *userns.Env, dir string) []listing.Node {
	t.Helper()
	f, _, err := userns.OpenTree(dir)
	check(t, err)
	defer f.Close()
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

// envs are ways in that this process has: models and ranges, and root's arithmetic. The first is the plainest.
func envs(t testing.TB) (all []namedEnv) {
	t.Helper()
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
	for _, first := range []int{300000, 700000} {
		for _, model := range []string{"base", "caller"} {
			add(fmt.Sprintf("%s from %d", model, first), userns.Options{Mode: "unshare", Model: model, System: subIDs(t, first)})
		}
	}
	add("root with a map", userns.Options{Mode: "root", Map: "0:300000:65536"})
	return all
}

// subIDs is this machine with a range of root's own.
func subIDs(t testing.TB, first int) userns.System {
	t.Helper()
	file := filepath.Join(t.TempDir(), "subid")
	check(t, os.WriteFile(file, fmt.Appendf(nil, "root:%d:65536\n", first), 0o644))
	return userns.System{Sources: idshift.Sources{SubUID: file, SubGID: file}}
}

// in runs a program as inner root in e's plain map and returns what it prints.
func in(t testing.TB, e namedEnv, argv ...string) string {
	t.Helper()
	tier.Program(t, argv[0])
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	check(t, err)
	defer out.Close()
	null, err := os.Open(os.DevNull)
	check(t, err)
	defer null.Close()
	status, err := e.Exec(t.Context(), userns.Spec{Argv: argv, Stdin: null, Stdout: out, Env: []string{"LC_ALL=C.UTF-8", "TZ=UTC"}})
	if err != nil || status != 0 {
		t.Fatalf("%s: %q: status %d, %v", e.name, argv, status, err)
	}
	text, err := os.ReadFile(out.Name())
	check(t, err)
	return string(text)
}

// tools are what programs that nobody here wrote tell of a tree.
func tools(t testing.TB, e namedEnv, dir string) map[string]string {
	t.Helper()
	paragraphs := func(text string) string {
		all := strings.Split(strings.TrimSpace(text), "\n\n")
		slices.Sort(all)
		return strings.Join(all, "\n\n")
	}
	script, err := os.ReadFile("../ferry/testdata/list.py")
	check(t, err)
	return map[string]string{
		"python":   in(t, e, "python3", "-c", string(script), dir),
		"getfacl":  paragraphs(in(t, e, "sh", "-c", `cd "$1" && getfacl -nPRp .`, "sh", dir)),
		"getcap":   in(t, e, "sh", "-c", `cd "$1" && getcap -r . | LC_ALL=C sort`, "sh", dir),
		"getfattr": paragraphs(in(t, e, "sh", "-c", `cd "$1" && getfattr -PRh -d -m- -e hex .`, "sh", dir)),
	}
}

// noSockets leaves out what tar has no type for.
func noSockets(nodes []listing.Node) (kept []listing.Node) {
	socks := map[string]bool{}
	for _, n := range nodes {
		if n.Type == listing.Sock {
			socks[n.Name] = true
		}
		if !socks[n.Name] && !socks[n.Target] {
			kept = append(kept, n)
		}
	}
	return kept
}

// newStore makes a store.
func newStore(t testing.TB) *store.Store {
	t.Helper()
	s, err := store.Open(filepath.Join(t.TempDir(), "store"), store.Options{Create: true})
	check(t, err)
	return s
}

func key(t testing.TB, text string) store.Key {
	t.Helper()
	k, err := store.ParseKey(text)
	check(t, err)
	return k
}

// entryFile is the path of an entry.
func entryFile(t testing.TB, s *store.Store, k store.Key) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(s.Dir(), "*", "*", k.Name()))
	check(t, err)
	if len(found) != 1 {
		t.Fatalf("%s: %q", k, found)
	}
	return found[0]
}

// keyPair has minisign make keys.
func keyPair(t testing.TB) (secret minisign.SecretKey, public minisign.PublicKey, dir string) {
	t.Helper()
	tier.Program(t, "minisign")
	dir = t.TempDir()
	cmd := exec.Command("minisign", "-G", "-W", "-p", "pub", "-s", "sec")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	secret, err := ReadSecretKey(filepath.Join(dir, "sec"))
	check(t, err)
	keys, err := ReadPublicKeys([]string{filepath.Join(dir, "pub")})
	check(t, err)
	return secret, keys[0], dir
}

// missed demands a miss whose reason has the words, and that nothing is at dir.
func missed(t testing.TB, err error, words, dir string) *store.MissError {
	t.Helper()
	var miss *store.MissError
	if !errors.As(err, &miss) || !strings.Contains(miss.Reason, words) || userns.ExitCode(err) != 3 {
		t.Fatalf("%v; want a miss: %q", err, words)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), "*"+filepath.Base(dir)+"*")); left != nil {
		t.Errorf("left: %q", left)
	}
	return miss
}

// lazy is e for who asks for it only when it is needed.
func (e namedEnv) lazy() (*userns.Env, error) { return e.Env, nil }

// small is the cache with a map of a hundred ids.
func (c *Cache) small(t testing.TB) *Cache {
	t.Helper()
	o := userns.Options{}
	if os.Geteuid() == 0 {
		o.Mode, o.Map, o.System = "unshare", "0:300000:100", subIDs(t, 300000)
	} else {
		u, _ := c.Env.Plain.UID.ToOutside(0)
		g, _ := c.Env.Plain.GID.ToOutside(0)
		o.Map = fmt.Sprintf("u:0:%d:100,g:0:%d:100", u, g)
	}
	e, err := userns.NewEnv(o)
	check(t, err)
	return &Cache{Env: e, Store: c.Store}
}

// unpack restores an entry that was admitted with these sums.
func (s *site) unpack(t *testing.T, o *store.Object, sums [][32]byte) error {
	t.Helper()
	_, err := ferry.Unpack(t.Context(), s.Env, o.File, s.target(), ferry.UnpackOptions{Sums: sums})
	return err
}
