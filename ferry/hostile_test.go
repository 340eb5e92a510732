package ferry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/archive/treetest"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/tier"
)

// maxPeak is what a flow may take, in KiB: 256 MiB.
const maxPeak = 256 << 10

// environments are the ways to run a flow that this user has, each once: the real ones.
func environments(t testing.TB) map[string]userns.Options {
	t.Helper()
	if os.Geteuid() == 0 {
		return map[string]userns.Options{
			"root":     {Mode: "root"},
			"root-map": {Mode: "root", Map: "0:3000000000:65536"},
			"unshare":  {Mode: "unshare", Map: "0:3000000000:65536"},
		}
	}
	if _, err := userns.NewEnv(userns.Options{Mode: "unshare"}); err != nil {
		tier.Have(t, false, "a namespace: "+err.Error())
	}
	return map[string]userns.Options{"user": {Mode: "unshare"}}
}

// site is a directory with things that must stay as they are, and in it the place where trees are made.
type site struct {
	base   string
	before []listing.Node
}

func newSite(t testing.TB) *site {
	t.Helper()
	base := t.TempDir()
	nodes, err := listing.Parse(strings.ReplaceAll(`
dir . @ 755
file canary @ 644 mtime=1.5 "sings"
dir canary-dir @ 755 mtime=2.5
file canary-dir/f @ 600 mtime=3.5 "too"
symlink canary-link @ canary mtime=4.5
dir in @ 755
`, "@", fmt.Sprintf("%d:%d", os.Geteuid(), os.Getegid())))
	check(t, err)
	check(t, treetest.Build(base, nodes))
	s := &site{base: base}
	s.before = s.dump(t)
	return s
}

// dump returns everything but what is in the place for trees, and that directory's time.
func (s *site) dump(t testing.TB) []listing.Node {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.base, "in"))
	check(t, err)
	for _, e := range entries {
		t.Errorf("left behind: %s", e.Name())
	}
	nodes, err := treetest.Dump(s.base)
	check(t, err)
	for i := range nodes {
		if nodes[i].Name == "in" {
			nodes[i].MTime = nil
		}
	}
	return nodes
}

func (s *site) target() string { return filepath.Join(s.base, "in", "tree") }

// check demands that nothing has changed and nothing is left.
func (s *site) check(t testing.TB) {
	t.Helper()
	if d := treetest.Diff(s.before, s.dump(t)); d != "" {
		t.Errorf("changed outside of the target:\n%s", d)
	}
}

// unpack writes the archive to a file and unpacks it.
func (s *site) unpack(t testing.TB, o userns.Options, archive []byte) error {
	t.Helper()
	e, err := userns.NewEnv(o)
	check(t, err)
	in := archiveFile(t, archive)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = Unpack(ctx, e, in, s.target(), UnpackOptions{Workers: 2})
	if ctx.Err() != nil {
		t.Error("took more than a minute")
	}
	return err
}

func archiveFile(t testing.TB, archive []byte) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "archive"))
	check(t, err)
	t.Cleanup(func() { f.Close() })
	_, err = f.Write(archive)
	check(t, err)
	_, err = f.Seek(0, 0)
	check(t, err)
	return f
}

// take compares the tree that was made with what is wanted, and removes it.
func (s *site) take(t testing.TB, o userns.Options, want string) {
	t.Helper()
	e, err := userns.NewEnv(o)
	check(t, err)
	if want != "" {
		var got []listing.Node
		check(t, List(t.Context(), func() (*userns.Env, error) { return e, nil }, s.target(), ListOptions{}, func(n listing.Node) error {
			got = append(got, n)
			return nil
		}))
		nodes, err := listing.Parse(want)
		check(t, err)
		if d := treetest.Diff(nodes, got); d != "" {
			t.Errorf("tree differs (- wanted, + there):\n%s", d)
		}
	}
	_, err = Remove(t.Context(), e, s.target(), false)
	check(t, err)
}

// judge says whether what came of an attack is right.
func (a *attack) judge(t testing.TB, s *site, o userns.Options, err error) {
	t.Helper()
	switch {
	case err == nil && (a.bad == "" || a.when == "any"):
		s.take(t, o, a.tree)
	case err == nil:
		t.Errorf("taken, but must be refused with %q", a.bad)
		s.take(t, o, "")
	case a.bad == "" && a.when != "any":
		t.Errorf("refused: %v", err)
	case !strings.Contains(err.Error(), a.bad):
		t.Errorf("the message lacks %s: %v", a.bad, err)
	case len(err.Error()) > 8<<10:
		t.Errorf("a message of %d bytes", len(err.Error()))
	}
	s.check(t)
}

// applies tells whether the attack means something in the environment: to root all ids have a place.
func (a *attack) applies(o userns.Options) bool {
	return a.when != "map" || o.Mode == "unshare" || o.Map != ""
}

func TestHostile(t *testing.T) {
	for name, o := range environments(t) {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			out := s.base + "/"
			for _, table := range [][]attack{nameAttacks(out), linkAttacks(out), fieldAttacks(), legal(out)} {
				for _, a := range table {
					if !a.applies(o) {
						continue
					}
					t.Run(a.name, func(t *testing.T) {
						a.judge(t, s, o, s.unpack(t, o, a.archive))
					})
				}
			}
		})
	}
}

// TestHostileBombs runs each in a process of its own, to see what it takes.
func TestHostileBombs(t *testing.T) {
	for name, o := range environments(t) {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			for _, a := range bombs() {
				if !a.applies(o) {
					continue
				}
				t.Run(a.name, func(t *testing.T) {
					in := archiveFile(t, a.archive)
					start := time.Now()
					r := runJob(t, job{Mode: o.Mode, Map: o.Map, In: in.Name(), Out: s.target()})
					t.Logf("%d bytes: %d MiB, %v: %.200s", len(a.archive), r.Peak>>10, time.Since(start).Round(time.Millisecond), r.Err)
					if r.Peak > maxPeak {
						t.Errorf("took %d MiB", r.Peak>>10)
					}
					var err error
					if r.Err != "" {
						err = fmt.Errorf("%s", r.Err)
					}
					a.judge(t, s, o, err)
				})
			}
		})
	}
}

// runJob runs a flow in a process of its own, for some minutes at most.
func runJob(t testing.TB, j job) outcome {
	t.Helper()
	text, err := json.Marshal(j)
	check(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), childVar+"="+string(text))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var o outcome
	if err == nil {
		err = json.Unmarshal(out, &o)
	}
	if err != nil {
		t.Fatalf("%v: %s%s", err, out, stderr.String())
	}
	return o
}
