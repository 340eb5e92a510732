package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A place is a small world for nsferry to be called in, usually one where something is wrong. It is a mount namespace of a
// child process, with a tmpfs of its own on /tmp, sub-id files of its own and a user who exists nowhere else, so
// nothing of it can be left behind, however the test ends.
//
// In /tmp/home, the user's own 0700 directory, there are always good.tar, an archive of a small tree, and tree, the same
// as an earlier unpack would have left it.
type place struct {
	SubUID, SubGID string      // the files' content; empty means a good range, "-" no line at all
	Setup          string      // sh -eu, as root, in /tmp/home, after all else is there; $U is the user
	Sysctls        bool        // in a user namespace with all ids, so that Setup may change user.* sysctls for this place alone
	NoNewPrivs     bool        // as by setpriv --no-new-privs
	NoUserNS       bool        // a system call filter refuses user namespaces, as container engines' do
	Groups         []int       // supplementary groups
	Umask          int         // 0 means 022
	Env            []string    // besides PATH and HOME; NAME alone takes a variable away
	Dir            string      // working directory if not /tmp/home
	Gone           bool        // the working directory has been removed
	AsRoot         bool        // call as root instead
	Via            []string    // a command that starts nsferry: the program and its arguments are appended
	Do             []placeCall // in order
}

// placeCall is one command in a place; Args without the program's name.
type placeCall struct {
	Args  []string
	Stdin string
}

// placeAnswer is what came of a call. Before and After list all of /tmp/home.
type placeAnswer struct {
	Exit           int
	Stdout, Stderr string
	Before, After  []string
}

const (
	placeUser  = 54321
	placeFirst = 2500000000 // first sub-id
	placeVar   = "NSFERRY_TEST_PLACE"
	callVar    = "NSFERRY_TEST_CALL"
)

// visit runs the calls of p and returns their answers.
func (p place) visit(t *testing.T) []placeAnswer {
	t.Helper()
	rootTier(t)
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), placeVar+"="+string(text))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if p.Sysctls {
		all := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1<<32 - 1}}
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = all, all
		cmd.SysProcAttr.GidMappingsEnableSetgroups = true
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	runtime.LockOSThread() // the child dies with this thread
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); err != nil {
		t.Fatalf("place: %v\n%s", err, stderr.String())
	}
	var answers []placeAnswer
	if err := json.Unmarshal(stdout.Bytes(), &answers); err != nil {
		t.Fatalf("place: %v\n%s%s", err, stdout.String(), stderr.String())
	}
	return answers
}

// rootTier skips a test that only root can run.
func rootTier(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("root tier: makes mounts and changes ids")
	}
}

// servePlace is the child of visit, or one call in it. In any other process it does nothing.
func servePlace() {
	var p place
	for name, serve := range map[string]func(place) error{placeVar: place.serve, callVar: place.become} {
		text, ok := os.LookupEnv(name)
		if !ok {
			continue
		}
		os.Unsetenv(name)
		err := json.Unmarshal([]byte(text), &p)
		if err == nil {
			err = serve(p)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(99)
		}
		os.Exit(0)
	}
}

// serve makes the place, does the calls and prints the answers.
func (p place) serve() error {
	if err := p.furnish(); err != nil {
		return err
	}
	var answers []placeAnswer
	for _, c := range p.Do {
		one := p
		one.Do = []placeCall{c}
		text, err := json.Marshal(one)
		if err != nil {
			return err
		}
		a := placeAnswer{}
		if a.Before, err = listHome(); err != nil {
			return err
		}
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), callVar+"="+string(text))
		cmd.Stdin = strings.NewReader(c.Stdin)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		var exit *exec.ExitError
		if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
			return err
		}
		a.Exit, a.Stdout, a.Stderr = cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()
		if a.After, err = listHome(); err != nil {
			return err
		}
		answers = append(answers, a)
	}
	return json.NewEncoder(os.Stdout).Encode(answers)
}

// furnish mounts and fills the place, and runs its Setup.
func (p place) furnish() error {
	exe, err := os.Open("/proc/self/exe") // before /tmp, where it may lie, is covered
	if err != nil {
		return err
	}
	defer exe.Close()
	script := fmt.Sprintf(`mount --make-rprivate /
mount -t tmpfs -o mode=1777,nr_inodes=100000,size=200m none /tmp
cd /tmp
mkdir -m 0755 bin
cp -a /etc etc # not single files: whoever replaces /etc/subuid elsewhere takes a mount on it away
mkdir -m 0700 home
cat >bin/nsferry
chmod 0755 bin/nsferry
printf 'root:x:0:0::/root:/bin/sh\nferryman:x:%[1]d:%[1]d::/tmp/home:/bin/sh\n' >etc/passwd
printf '%%s' "$SUBUID" >etc/subuid
printf '%%s' "$SUBGID" >etc/subgid
chmod 0644 etc/passwd etc/subuid etc/subgid
mount --bind etc /etc
mkdir -p home/tree/etc home/tree/var/log home/tree/bin
echo hello >home/tree/etc/hostname
echo log >home/tree/var/log/messages
chmod 0640 home/tree/var/log/messages
tar -C home/tree --numeric-owner --owner=0 --group=0 -cf home/good.tar .
chown -R $((%[2]d)):$((%[2]d)) home/tree
chown -h $((%[2]d + 7)):$((%[2]d + 4)) home/tree/var/log/messages
chown %[1]d:%[1]d home home/good.tar
cd home
`, placeUser, placeFirst)
	cmd := exec.Command("/bin/sh", "-euc", script+p.Setup)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = exe, os.Stderr, os.Stderr
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", fmt.Sprintf("U=%d", placeUser),
		"SUBUID=" + subIDs(p.SubUID), "SUBGID=" + subIDs(p.SubGID)}
	return cmd.Run()
}

func subIDs(text string) string {
	switch text {
	case "":
		return fmt.Sprintf("ferryman:%d:65536\n", placeFirst)
	case "-":
		return ""
	}
	return text
}

// listHome lists everything in the home directory, one line an inode.
func listHome() (lines []string, err error) {
	err = filepath.Walk("/tmp/home", func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		size := st.Size
		if info.IsDir() {
			size = 0
		}
		lines = append(lines, fmt.Sprintf("%s %o %d:%d %d", path, st.Mode, st.Uid, st.Gid, size))
		return nil
	})
	sort.Strings(lines)
	return lines, err
}

// become turns this process into one call of p.
func (p place) become() error {
	runtime.LockOSThread() // no_new_privs and the filter belong to a thread; exec keeps this one
	mask := p.Umask
	if mask == 0 {
		mask = 0o022
	}
	syscall.Umask(mask & 0o777)
	dir := "/tmp/home"
	if p.Dir != "" {
		dir = p.Dir
	}
	if p.Gone {
		dir = "/tmp/gone"
		if err := os.Mkdir(dir, 0o777); err != nil {
			return err
		}
	}
	if err := os.Chdir(dir); err != nil {
		return err
	}
	if p.Gone {
		if err := os.Remove(dir); err != nil {
			return err
		}
	}
	if p.NoUserNS {
		if err := forbidUserNS(); err != nil {
			return err
		}
	}
	if !p.AsRoot {
		if err := errors.Join(syscall.Setgroups(p.Groups), syscall.Setresgid(placeUser, placeUser, placeUser), syscall.Setresuid(placeUser, placeUser, placeUser)); err != nil {
			return err
		}
	}
	if p.NoNewPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
	}
	argv := append([]string{"nsferry"}, p.Do[0].Args...)
	exe := "/tmp/bin/nsferry"
	if len(p.Via) > 0 {
		argv[0] = exe
		argv = append(slices.Clone(p.Via), argv...)
		exe = p.Via[0]
	}
	return syscall.Exec(exe, argv, p.environment())
}

func (p place) environment() []string {
	env := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp/home", "LOGNAME=ferryman", "USER=ferryman"}
	for _, e := range p.Env {
		name, _, set := strings.Cut(e, "=")
		for i, have := range env {
			if strings.HasPrefix(have, name+"=") {
				env = append(env[:i], env[i+1:]...)
				break
			}
		}
		if set {
			env = append(env, e)
		}
	}
	return env
}

// forbidUserNS installs a filter as container engines do (seccomp(2)): unshare(2) and a clone(2) for a user namespace are
// EPERM, clone3(2), whose flags a filter cannot see, is ENOSYS.
func forbidUserNS() error {
	const (
		offNr, offArg0 = 0, 16 // of struct seccomp_data; the low half of an argument comes first, on little-endian machines
		errno          = unix.SECCOMP_RET_ERRNO
	)
	stmt := func(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }
	jeq := func(k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: yes, Jf: no, K: k}
	}
	load := uint16(unix.BPF_LD | unix.BPF_W | unix.BPF_ABS)
	ret := uint16(unix.BPF_RET | unix.BPF_K)
	filter := []unix.SockFilter{
		stmt(load, offNr),
		jeq(unix.SYS_UNSHARE, 6, 0),
		jeq(unix.SYS_CLONE3, 4, 0),
		jeq(unix.SYS_CLONE, 0, 2),
		stmt(load, offArg0),
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, Jt: 2, K: unix.CLONE_NEWUSER},
		stmt(ret, unix.SECCOMP_RET_ALLOW),
		stmt(ret, errno|uint32(unix.ENOSYS)),
		stmt(ret, errno|uint32(unix.EPERM)),
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(filter)
	if e != 0 {
		return os.NewSyscallError("seccomp", e)
	}
	return nil
}
