//go:build linux

package mounts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// order tells a re-executed test binary what to do. Fds are numbers of inherited files, 0 for none.
type order struct {
	Do      string // "run" or "janitor"
	Unshare bool   // Detach as the caller, then unshare the mount namespace; else it is a fresh one already
	Become0 bool   // setresuid(0) after Detach
	Root    int
	Spec    Spec
	Sources []int
	Dirs    []int
	Legacy  bool
	Command []string
	List    []Placeholder
	Ready   int
	Run     []int
}

const orderEnv = "MOUNTS_TEST_ORDER"

func TestMain(m *testing.M) {
	text, ok := os.LookupEnv(orderEnv)
	if !ok {
		os.Exit(m.Run())
	}
	runtime.LockOSThread()
	os.Unsetenv(orderEnv)
	// What the test process inherited from its caller is not to be taken for a leak of ours.
	if err := unix.CloseRange(3, 1<<20, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		panic(err)
	}
	var o order
	err := json.Unmarshal([]byte(text), &o)
	if err == nil {
		switch o.Do {
		case "janitor":
			var run []*os.File
			for _, fd := range o.Run {
				run = append(run, fdFile(fd))
			}
			err = Janitor(fdFile(o.Root), o.List, fdFile(o.Ready), run...)
		default:
			err = o.run()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func fdFile(fd int) *os.File {
	if fd == 0 {
		return nil
	}
	return os.NewFile(uintptr(fd), fmt.Sprintf("fd %d", fd))
}

// run is the inner side: everything that nsferry's own init would do, then the command.
func (o *order) run() error {
	s := o.Spec
	s.legacy = o.Legacy
	s.Root = fdFile(o.Root)
	for i := range s.Binds {
		s.Binds[i].Source, s.Binds[i].Dir = fdFile(o.Sources[i]), fdFile(o.Dirs[i])
	}
	if o.Unshare {
		if err := s.Detach(); err != nil {
			return fmt.Errorf("detach: %w", err)
		}
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
	}
	if o.Become0 {
		if err := syscall.Setgroups(nil); err != nil {
			return err
		}
		if err := unix.Setresgid(0, 0, 0); err != nil {
			return err
		}
		if err := unix.Setresuid(0, 0, 0); err != nil {
			return err
		}
	}
	res, err := Setup(s)
	if err != nil {
		return fmt.Errorf("setup: %w", err)
	}
	for _, n := range res.Notes {
		fmt.Fprintln(os.Stderr, "note:", n)
	}
	return unix.Exec(o.Command[0], o.Command, append(res.Env, "PATH=/bin"))
}

// way is one way to enter.
type way struct {
	name    string
	userns  bool
	uid     uint32 // outside id of inner root
	unshare bool   // Detach before the mount namespace is unshared
	legacy  bool
}

var ways = []way{
	{"userns", true, 100000, true, false},
	{"userns by path", true, 100000, false, false},
	{"userns legacy", true, 100000, false, true},
	{"one id", true, 4242, true, false},
	{"real root", false, 0, false, false},
	{"real root detached", false, 0, true, false},
	{"real root legacy", false, 0, false, true},
}

// need skips, or fails where nothing may be skipped.
func need(t testing.TB, ok bool, what string) {
	t.Helper()
	if ok {
		return
	}
	if os.Getenv("REQUIRE_ALL") != "" {
		t.Fatalf("needs %s", what)
	}
	t.Skipf("needs %s", what)
}

func needRoot(t testing.TB) {
	t.Helper()
	need(t, os.Getuid() == 0, "root, to write full id maps")
	_, err := os.Stat("/bin/busybox")
	need(t, err == nil, "busybox-static as /bin/busybox")
}

// command prepares the re-executed binary. Its files are opened here, outside.
func (w way) command(t testing.TB, s Spec, argv ...string) *exec.Cmd {
	t.Helper()
	o := order{Do: "run", Unshare: w.unshare, Legacy: w.legacy, Command: argv}
	cmd := exec.Command("/proc/self/exe")
	pass := func(f *os.File) int {
		if f == nil {
			return 0
		}
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		return 2 + len(cmd.ExtraFiles)
	}
	o.Root = pass(s.Root)
	for _, b := range s.Binds {
		o.Sources, o.Dirs = append(o.Sources, pass(b.Source)), append(o.Dirs, pass(b.Dir))
	}
	o.Spec = s
	o.Spec.Root = nil
	o.Spec.Binds = nil
	for _, b := range s.Binds {
		b.Source, b.Dir = nil, nil
		o.Spec.Binds = append(o.Spec.Binds, b)
	}
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	if !w.unshare {
		attr.Cloneflags |= syscall.CLONE_NEWNS
	}
	if w.userns {
		size := 65536
		if w.name == "one id" {
			size = 1
		}
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(w.uid), Size: size}}
		attr.GidMappings = attr.UidMappings
		attr.GidMappingsEnableSetgroups = true
		attr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SETUID, unix.CAP_SETGID}
		o.Become0 = true
	}
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = []string{orderEnv + "=" + string(text)}
	cmd.SysProcAttr = attr
	return cmd
}

// sh runs a shell script inside and returns its output.
func (w way) sh(t testing.TB, s Spec, script string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := w.command(t, s, "/bin/sh", "-c", script)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// mustSh is sh for scripts that have to succeed.
func (w way) mustSh(t testing.TB, s Spec, script string) string {
	t.Helper()
	out, errs, err := w.sh(t, s, script)
	if err != nil {
		t.Fatalf("inside: %v\n%s", err, errs)
	}
	return out
}

// tree builds a rootfs with a shell, owned by uid. Names ending in "/" are directories, "a -> b" symlinks, others
// files holding their own name.
func tree(t testing.TB, base string, uid uint32, names ...string) *os.File {
	t.Helper()
	dir, err := os.MkdirTemp(base, "mounts-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	grow(t, dir, names...)
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), busybox, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"sh", "cat", "ls", "stat", "touch", "mkdir", "sleep", "readlink", "mount", "echo", "id", "test"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", a)); err != nil {
			t.Fatal(err)
		}
	}
	own(t, dir, uid)
	return open(t, dir)
}

// publicDir is a temporary directory that everybody can search, unlike t.TempDir.
func publicDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mounts-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func grow(t testing.TB, dir string, names ...string) {
	t.Helper()
	for _, n := range names {
		link, target, isLink := strings.Cut(n, " -> ")
		at := filepath.Join(dir, link)
		parent := at
		if !strings.HasSuffix(n, "/") || isLink {
			parent = filepath.Dir(at)
		}
		if err := os.MkdirAll(parent, 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		switch {
		case isLink:
			err = os.Symlink(target, at)
		case !strings.HasSuffix(n, "/"):
			err = os.WriteFile(at, []byte(n+"\n"), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func own(t testing.TB, dir string, uid uint32) {
	t.Helper()
	err := filepath.Walk(dir, func(p string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(p, int(uid), int(uid))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, name string) *os.File {
	t.Helper()
	f, err := openPath(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// hostTable returns the mount table of the test process and fails the test if it differs in the end.
func hostTable(t testing.TB) string {
	t.Helper()
	read := func() string {
		b, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	before := read()
	t.Cleanup(func() {
		if after := read(); after != before {
			t.Errorf("mount table changed\nbefore:\n%s\nafter:\n%s", before, after)
		}
	})
	return before
}

// openBind is OpenBind for tests.
func openBind(t testing.TB, source, target string, ro bool) Bind {
	t.Helper()
	b, err := OpenBind(source, target, ro)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// filesystems are the places that trees are tried on.
var filesystems = []string{"/tmp", "/dev/shm"}

// errnos are those that a lookup may end with.
var errnos = []unix.Errno{unix.ENOENT, unix.ENOTDIR, unix.ELOOP}
