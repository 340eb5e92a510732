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
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/idshift/userns/usernstest"
	"github.com/nsferry/nsferry/sstate/minisign"
	"github.com/nsferry/nsferry/sstate/store"
	"github.com/nsferry/nsferry/tier"
)

func TestMain(m *testing.M) {
	userns.Main(append(ferry.Halves(), usernstest.Halves()...)...)
	serveJob()
	tier.PrivateMounts()
	os.Exit(m.Run())
}

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

// in runs a program as inner root in e's plain map and returns what it prints.
func in(t testing.TB, e usernstest.Way, argv ...string) string {
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
		t.Fatalf("%s: %q: status %d, %v", e.Name, argv, status, err)
	}
	text, err := os.ReadFile(out.Name())
	check(t, err)
	return string(text)
}

// tools are what programs that nobody here wrote tell of a tree.
func tools(t testing.TB, e usernstest.Way, dir string) map[string]string {
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

// small is the cache with a map of a hundred ids.
func (c *Cache) small(t testing.TB) *Cache {
	t.Helper()
	o := userns.Options{}
	if os.Geteuid() == 0 {
		o.Mode, o.Map, o.System = "unshare", "0:300000:100", usernstest.SubIDs(t, 300000)
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
