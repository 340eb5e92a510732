package facl_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/acl"
	"github.com/nsferry/nsferry/acl/facl"
	"github.com/nsferry/nsferry/idshift"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/tier"
)

// side is one of the two trees that a case is run on, and what came of it.
type side struct {
	dir            string
	stdout, stderr string
	status         int
}

// names are all inodes of a tree, parents first; the ones with a target are symlinks.
var names = []struct{ name, target string }{
	{"d", ""}, {"d/sub", ""}, {"d/sub/g", ""}, {"d/f", ""}, {"d/up", ".."}, {"d/l", "sub"}, {"e", ""}, {"f", ""},
	{"lf", "f"}, {"ld", "d"}, {"dang", "nowhere"}, {"a b", ""}, {`b\s`, ""},
}

func isDir(name string) bool { return name == "d" || name == "d/sub" }

// build makes the tree's inodes.
func build(dir string) error {
	for _, n := range names {
		var err error
		switch path := filepath.Join(dir, n.name); {
		case n.target != "":
			err = os.Symlink(n.target, path)
		case isDir(n.name):
			err = os.Mkdir(path, 0o755)
		default:
			err = os.WriteFile(path, nil, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// reset gives both trees the same random owners, modes and ACLs.
func reset(r *rand.Rand, sides [2]side, root bool) error {
	for _, n := range names {
		if n.target != "" {
			continue
		}
		mode := uint32(r.IntN(512))
		if r.IntN(4) == 0 {
			mode |= uint32(r.IntN(8)) << 9
		}
		if isDir(n.name) && !root {
			mode |= 0o500
		}
		uid, gid := -1, -1
		if root {
			uid, gid = []int{0, 1, 4242}[r.IntN(3)], []int{0, 12, 4242}[r.IntN(3)]
		}
		lists := [2]acl.ACL{randomACL(r), nil}
		if isDir(n.name) {
			lists[1] = randomACL(r)
		}
		for _, s := range sides {
			path := filepath.Join(s.dir, n.name)
			f, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err == nil && root {
				err = unix.Fchownat(f, "", uid, gid, unix.AT_EMPTY_PATH)
			}
			for kind := acl.Access; err == nil && kind <= acl.Default; kind++ {
				if kind == acl.Access || isDir(n.name) {
					err = acl.Apply(f, kind, lists[kind])
				}
			}
			if err == nil {
				err = unix.Chmod(path, mode)
			}
			unix.Close(f)
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// open gives a directory mode 0755 and no ACLs.
func open(dir string) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return errors.Join(acl.Apply(fd, acl.Access, nil), acl.Apply(fd, acl.Default, nil), unix.Chmod(dir, 0o755))
}

// randomACL makes a valid ACL, or none.
func randomACL(r *rand.Rand) acl.ACL {
	if r.IntN(3) == 0 {
		return nil
	}
	a := acl.FromMode(r.Uint32())
	for _, id := range []uint32{0, 1, 5, 4242} {
		for _, tag := range []acl.Tag{acl.User, acl.Group} {
			if r.IntN(4) == 0 {
				a = append(a, acl.Entry{Tag: tag, ID: id, Perm: uint16(r.IntN(8))})
			}
		}
	}
	if len(a) > 3 || r.IntN(4) == 0 {
		a = append(a, acl.Entry{Tag: acl.Mask, Perm: uint16(r.IntN(8))})
	}
	return a
}

// deniedAgain is what setfacl says of "." when its first change took away the caller's own right to search it, so that the
// second one is denied.
const deniedAgain = "setfacl: .: Permission denied\n"

// lockedOut tells that setfacl, a, was denied "." more often than ours, b, for that reason (docs/ACL.md).
func lockedOut(a, b side) bool {
	var st unix.Stat_t
	return os.Getuid() != 0 && unix.Lstat(a.dir, &st) == nil && st.Mode&0o100 == 0 &&
		strings.Count(a.stderr, deniedAgain) > strings.Count(b.stderr, deniedAgain)
}

// state is everything that a command may change, byte for byte.
func state(dir string) string {
	var b strings.Builder
	for _, n := range append(names, struct{ name, target string }{name: "."}) {
		path := filepath.Join(dir, n.name)
		var st unix.Stat_t
		_ = unix.Lstat(path, &st)
		fmt.Fprintf(&b, "%s %o %d:%d", n.name, st.Mode, st.Uid, st.Gid)
		for _, attr := range []string{"system.posix_acl_access", "system.posix_acl_default"} {
			var value [4096]byte
			k, err := unix.Lgetxattr(path, attr, value[:])
			fmt.Fprintf(&b, " %x %v", value[:max(k, 0)], err)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// testCase is one command line.
type testCase struct {
	tool  string // setfacl or getfacl
	args  []string
	stdin string
	files map[string]string
}

func (c testCase) String() string {
	return fmt.Sprintf("%s %q <%q, files %q", c.tool, c.args, c.stdin, c.files)
}

// oracle runs the acl package's program.
func (c testCase) oracle(s *side) error {
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(c.tool, c.args...)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = s.dir, strings.NewReader(c.stdin), &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err
	}
	s.stdout, s.stderr, s.status = stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
	return nil
}

// ours runs this package.
func (c testCase) ours(s *side, accounts facl.Names) error {
	dir, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	var stdout, stderr bytes.Buffer
	run := facl.Set
	if c.tool == "getfacl" {
		run = facl.Get
	}
	s.status = run(c.args, facl.IO{Program: c.tool, Command: c.tool, Stdin: strings.NewReader(c.stdin),
		Stdout: &stdout, Stderr: &stderr, Dir: dir, Names: accounts})
	s.stdout, s.stderr = stdout.String(), stderr.String()
	return nil
}

// compare returns what differs, "" for nothing.
func (c testCase) compare(a, b side) string {
	var d []string
	// setfacl does not say where in standard input a backup is wrong.
	if strings.HasSuffix(a.stderr, "setfacl: Invalid argument\n") && strings.Contains(b.stderr, "setfacl: standard input: Invalid argument in line ") {
		a.stderr = b.stderr
	}
	// setfacl returns the status of its last file; ours is that of the worst.
	if a.status != b.status && !(a.status == 1 && b.status == 0 && lockedOut(a, b)) && !(c.tool == "setfacl" && a.status == 0 && b.status == 1 && a.stderr != "") {
		d = append(d, fmt.Sprintf("status %d, ours %d", a.status, b.status))
	}
	was, is := state(a.dir), state(b.dir)
	if lockedOut(a, b) { // all but the default ACL of ".", the last of all, and what is said of it, is the same still
		a.stderr, b.stderr = strings.ReplaceAll(a.stderr, deniedAgain, ""), strings.ReplaceAll(b.stderr, deniedAgain, "")
		was, is = was[:strings.LastIndex(was, " no data available")], is[:min(len(is), strings.LastIndex(was, " no data available"))]
	}
	for _, x := range []struct{ what, a, b string }{{"stdout", a.stdout, b.stdout}, {"stderr", a.stderr, b.stderr}, {"state", was, is}} {
		if x.a != x.b {
			d = append(d, x.what+" (-program, +ours):\n"+cmp.Diff(strings.Split(x.a, "\n"), strings.Split(x.b, "\n")))
		}
	}
	if len(d) == 0 {
		return ""
	}
	return fmt.Sprintf("%s\n%s\nstderr %s", c, strings.Join(d, "\n"), a.stderr)
}

type sweepArgs struct {
	Dir  string
	Path string // $PATH
	Seed uint64
	N    int
}

type sweepResult struct {
	Run, Failed int // command lines, and how many of them the program refused
	Differences []string
	Map         string
}

// sweep is the comparison, as a function that a namespace can run.
var sweep = userns.Half[sweepArgs, sweepResult]{Name: "facl-sweep", Func: func(_ context.Context, _ *userns.Inner, a sweepArgs) (res sweepResult, err error) {
	sides := [2]side{{dir: filepath.Join(a.Dir, "a")}, {dir: filepath.Join(a.Dir, "b")}}
	for _, s := range sides {
		if err := os.Mkdir(s.dir, 0o755); err != nil {
			return res, err
		}
		if err := build(s.dir); err != nil {
			return res, err
		}
	}
	if err := os.Setenv("PATH", a.Path); err != nil { // a half's environment is empty
		return res, err
	}
	accounts, err := idshift.LoadAccounts(idshift.Sources{})
	if err != nil {
		return res, err
	}
	m, _ := os.ReadFile("/proc/self/uid_map")
	res.Map = strings.Join(strings.Fields(string(m)), " ")
	r := rand.New(rand.NewPCG(a.Seed, 1))
	for res.Run = 0; res.Run < a.N && len(res.Differences) < 8; res.Run++ {
		for _, s := range sides { // what the last command line did to the tree's root must not hinder us
			if err := open(s.dir); err != nil {
				return res, err
			}
		}
		if res.Run%4 == 0 {
			if err := reset(r, sides, os.Getuid() == 0); err != nil {
				return res, err
			}
		}
		c := generate(r, sides[0].dir)
		for name, text := range c.files {
			for _, s := range sides {
				_ = os.Remove(filepath.Join(s.dir, name))
				if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o644); err != nil {
					return res, err
				}
			}
		}
		if err := c.oracle(&sides[0]); err != nil {
			return res, err
		}
		if err := c.ours(&sides[1], accounts); err != nil {
			return res, err
		}
		if sides[0].status != 0 {
			res.Failed++
		}
		if d := c.compare(sides[0], sides[1]); d != "" {
			res.Differences = append(res.Differences, fmt.Sprintf("case %d: %s", res.Run, d))
			res.Run |= 3 // both sides anew
		}
	}
	return res, nil
}}

func TestMain(m *testing.M) {
	userns.Main(sweep, wipe)
	os.Exit(m.Run())
}

// run makes a sweep outside, or inside a namespace, and reports what differed.
func runSweep(t *testing.T, e *userns.Env, seed uint64, n int) {
	t.Helper()
	tier.Program(t, "setfacl", "getfacl")
	dir := t.TempDir()
	for p := dir; p != filepath.Dir(os.TempDir()) && p != "/"; p = filepath.Dir(p) {
		if st, err := os.Stat(p); err == nil && st.Mode().Perm()&0o077 != 0o077 {
			_ = os.Chmod(p, 0o777)
		}
	}
	start := time.Now()
	res, err := sweep.Run(context.Background(), e, sweepArgs{dir, os.Getenv("PATH"), seed, n}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range res.Differences {
		t.Error(d)
	}
	t.Logf("seed %d, map %s: %d command lines, %d of them refused by both, %.1f s", seed, res.Map, res.Run, res.Failed, time.Since(start).Seconds())
	// What inner root made only inner root can remove.
	cleanup(t, e, dir)
}

// cleanup removes a sweep's trees with the rights that made them.
func cleanup(t *testing.T, e *userns.Env, dir string) {
	t.Helper()
	if _, err := wipe.Run(context.Background(), e, dir, nil); err != nil {
		t.Error(err)
	}
}

var wipe = userns.Half[string, bool]{Name: "facl-wipe", Func: func(_ context.Context, _ *userns.Inner, dir string) (bool, error) {
	for _, name := range []string{"a", "b"} {
		_ = os.Chmod(filepath.Join(dir, name), 0o700)
		for _, d := range names { // a tree of modes that its owner cannot enter
			if isDir(d.name) {
				_ = os.Chmod(filepath.Join(dir, name, d.name), 0o700)
			}
		}
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return false, err
		}
	}
	return true, nil
}}

// TestOracle compares 1,200 command lines with the programs, outside and inside. The second seed once found a directory named "."
// that could not be searched; TestSoakOracle looks for more.
func TestOracle(t *testing.T) {
	for _, seed := range []uint64{1, 1795338658767958587} {
		t.Run(fmt.Sprintf("outside/%d", seed), func(t *testing.T) { runSweep(t, &userns.Env{Direct: true}, seed, 300) })
		t.Run(fmt.Sprintf("inside/%d", seed), func(t *testing.T) { runSweep(t, namespace(t), seed, 300) })
	}
}

// TestSoakOracle is TestOracle with 20,000 command lines outside and 20,000 inside.
func TestSoakOracle(t *testing.T) {
	tier.Soak(t)
	seed := uint64(time.Now().UnixNano())
	t.Run("outside", func(t *testing.T) { runSweep(t, &userns.Env{Direct: true}, seed, 20000) })
	t.Run("inside", func(t *testing.T) { runSweep(t, namespace(t), seed+1, 20000) })
}
