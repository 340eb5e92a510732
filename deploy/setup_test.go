package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/idshift/userns/usernstest"
	"github.com/nsferry/nsferry/tier"
)

func TestMain(m *testing.M) {
	userns.Main(append(append(Halves(), ferry.Halves()...), plantHalf, swapHalf, abuseHalf)...)
	tier.PrivateMounts()
	os.Exit(m.Run())
}

// plant is an inode that a test wants inside. Directories above it are made.
type plant struct {
	Path   rawString
	Data   map[int64]string // at offsets
	Size   int64            // 0: where the data end
	Mode   uint32           // 0: 0600
	Owner  uint32
	Link   string // makes it a symlink
	Hard   string // makes it a hard link
	Rights bool   // an ACL and a capability
	Kind   uint32 // S_IFIFO, S_IFSOCK, S_IFDIR; 0 is a regular file
}

// rawString is a name, which JSON would make valid UTF-8.
type rawString string

func (s rawString) MarshalJSON() ([]byte, error) { return json.Marshal([]byte(s)) }

func (s *rawString) UnmarshalJSON(text []byte) error {
	var b []byte
	err := json.Unmarshal(text, &b)
	*s = rawString(b)
	return err
}

// plantHalf makes plants in a directory, as inner root.
var plantHalf = userns.Half[[]plant, struct{}]{Name: "test plant", Func: func(_ context.Context, in *userns.Inner, all []plant) (none struct{}, err error) {
	root := fmt.Sprintf("/proc/self/fd/%d", in.Files[0].Fd())
	if err := in.Files[0].Chown(0, 0); err != nil {
		return none, err
	}
	for _, p := range all {
		path := filepath.Join(root, string(p.Path))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return none, err
		}
		switch {
		case p.Link != "":
			err = os.Symlink(p.Link, path)
		case p.Hard != "":
			err = os.Link(filepath.Join(root, p.Hard), path)
		case p.Kind == unix.S_IFDIR:
			err = os.Mkdir(path, 0o755)
		case p.Kind != 0:
			err = unix.Mknod(path, p.Kind|0o600, 0)
		default:
			err = p.write(path)
		}
		if err != nil {
			return none, err
		}
	}
	return none, nil
}}

func (p plant) write(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for off, data := range p.Data {
		if _, err := f.WriteAt([]byte(data), off); err != nil {
			return err
		}
	}
	if p.Size > 0 {
		err = f.Truncate(p.Size)
	}
	if p.Owner != 0 {
		err = errors.Join(err, f.Chown(int(p.Owner), int(p.Owner)))
	}
	err = errors.Join(err, syscall.Fchmod(int(f.Fd()), max(p.Mode, 0o600)))
	if p.Rights {
		err = errors.Join(err, rights(f))
	}
	return errors.Join(err, os.Chtimes(path, epoch, epoch))
}

// text is a file with the content s.
func text(path, s string) plant { return plant{Path: rawString(path), Data: map[int64]string{0: s}} }

// ground is a directory of the caller's with a rootfs in it, below a directory that is closed to everybody else, and out/.
type ground struct {
	env usernstest.Way
	dir string
}

func newGround(t testing.TB, e usernstest.Way, all ...plant) *ground {
	t.Helper()
	g := &ground{e, t.TempDir()}
	check(t, os.Chmod(g.dir, 0o700))
	t.Cleanup(func() {
		_, err := ferry.Remove(context.Background(), e.Env, g.root(), ferry.RemoveOptions{Force: true})
		check(t, err)
	})
	check(t, errors.Join(os.Mkdir(g.root(), 0o755), os.Mkdir(g.out(), 0o755)))
	g.plant(t, all...)
	return g
}

func (g *ground) root() string { return filepath.Join(g.dir, "rootfs") }

// out is the path of an output, or of the directory of outputs.
func (g *ground) out(name ...string) string {
	return filepath.Join(append([]string{g.dir, "out"}, name...)...)
}

func (g *ground) plant(t testing.TB, all ...plant) {
	t.Helper()
	f, err := os.Open(g.root())
	check(t, err)
	defer f.Close()
	_, err = plantHalf.Run(t.Context(), g.env.Env, all, nil, f)
	check(t, err)
}

// deploy deploys from the rootfs.
func (g *ground) deploy(t testing.TB, sources []string, dest string, o Options) (Summary, error) {
	t.Helper()
	o.From = g.root()
	return Files(t.Context(), g.env.Env, sources, dest, o)
}

// must is deploy that has to work.
func (g *ground) must(t testing.TB, source string, dest string, o Options) Delivered {
	t.Helper()
	s, err := g.deploy(t, []string{source}, dest, o)
	if err != nil {
		t.Fatalf("%s: %v", g.env.Name, err)
	}
	return s.Outputs[0]
}

// outputs are the names in out/.
func (g *ground) outputs(t testing.TB) string {
	t.Helper()
	entries, err := os.ReadDir(g.out())
	check(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	check(t, err)
	return string(b)
}

// tool runs an oracle in a directory and returns what it printed.
func tool(t testing.TB, dir, name string, args ...string) string {
	t.Helper()
	tier.Program(t, name)
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin", "LC_ALL=C.UTF-8")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out.String())
	}
	return out.String()
}
