//go:build linux

package mounts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/nsferry/nsferry/tier"

	"golang.org/x/sys/unix"
)

// order tells a re-executed test binary what to do. Fds are numbers of inherited files, 0 for none.
type order struct {
	Do      string // "run" or "janitor"
	Unshare bool   // Detach as the caller, then unshare the mount namespace; else it is a fresh one already
	Become0 bool   // setresuid(0) after Detach
	Groups  bool   // clear the supplementary groups
	Root    int
	Spec    Spec
	Sources []int
	Dirs    []int
	Legacy  bool
	Command []string
	List    []Placeholder
	Ready   int
	Run     []int
	Keep    int // an fd that the command inherits
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
		if o.Groups {
			if err := syscall.Setgroups(nil); err != nil {
				return err
			}
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
	for _, f := range res.Hold { // the command is pid 1
		if _, err := unix.FcntlInt(f.Fd(), unix.F_SETFD, 0); err != nil {
			return err
		}
	}
	if o.Keep != 0 {
		if _, err := unix.FcntlInt(uintptr(o.Keep), unix.F_SETFD, 0); err != nil {
			return err
		}
	}
	return unix.Exec(o.Command[0], o.Command, append(res.Env, "PATH=/bin"))
}

// way is one way to enter.
type way struct {
	name    string
	userns  bool
	uid     uint32 // outside id of inner root
	size    int    // ids mapped
	unshare bool   // Detach before the mount namespace is unshared
	legacy  bool
}

// ways returns the ways that the test's own ids allow: as an ordinary user, or as root of a small user namespace,
// only maps of one id.
func ways(t testing.TB) []way {
	t.Helper()
	_, err := os.Stat("/bin/busybox")
	tier.Have(t, err == nil, "busybox-static as /bin/busybox")
	uid, size := uint32(os.Getuid()), 1
	if wide(t) {
		uid, size = 100000, 65536
	}
	list := []way{
		{"userns", true, uid, size, true, false},
		{"userns by path", true, uid, size, false, false},
		{"userns legacy", true, uid, size, false, true},
		{"userns legacy carried", true, uid, size, true, true},
	}
	if wide(t) {
		list = append(list, way{"one id", true, 4242, 1, true, false})
	}
	if os.Getuid() == 0 {
		list = append(list, way{"real root", false, 0, 0, false, false},
			way{"real root detached", false, 0, 0, true, false}, way{"real root legacy", false, 0, 0, false, true})
	}
	return list
}

// fewWays leaves out what differs in how sources are found only.
func fewWays(t testing.TB) []way {
	return slices.DeleteFunc(ways(t), func(w way) bool {
		return w.name != "userns" && w.name != "userns legacy" && w.name != "real root"
	})
}

// wide tells whether the test may map the ids from 100000.
func wide(t testing.TB) bool {
	t.Helper()
	if os.Getuid() != 0 {
		return false
	}
	text, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(text)), " ") == "0 0 4294967295"
}

// command prepares the re-executed binary. Its files are opened here, outside; keep is for the command.
func (w way) command(t testing.TB, s Spec, keep *os.File, argv ...string) *exec.Cmd {
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
	o.Root, o.Keep = pass(s.Root), pass(keep)
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
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(w.uid), Size: w.size}}
		attr.GidMappings = w.gids()
		attr.GidMappingsEnableSetgroups = wide(t)
		attr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SETUID, unix.CAP_SETGID}
		o.Become0, o.Groups = true, wide(t)
	}
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = []string{orderEnv + "=" + string(text)}
	cmd.SysProcAttr = attr
	return cmd
}

// gids maps the own gid where no other may be mapped.
func (w way) gids() []syscall.SysProcIDMap {
	gid := int(w.uid)
	if w.size == 1 && os.Getuid() == int(w.uid) {
		gid = os.Getgid()
	}
	return []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: w.size}}
}

// sh runs a shell script inside and returns its output.
func (w way) sh(t testing.TB, s Spec, script string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := w.command(t, s, nil, "/bin/sh", "-c", script)
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

// errnos are those that a lookup may end with.
var errnos = []unix.Errno{unix.ENOENT, unix.ENOTDIR, unix.ELOOP}
