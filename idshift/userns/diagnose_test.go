package userns

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nsferry/nsferry/idshift"
	"github.com/nsferry/nsferry/tier"
	"golang.org/x/sys/unix"
)

// TestBlame shows a failure and a machine, and wants the one finding that explains it.
func TestBlame(t *testing.T) {
	status := func(nnp, seccomp, eff string) map[string]string {
		return map[string]string{"proc/self/status": "NoNewPrivs:\t" + nnp + "\nSeccomp:\t" + seccomp + "\nCapEff:\t" + eff + "\n"}
	}
	sysctl := func(name, v string) map[string]string { return map[string]string{"proc/sys/" + name: v + "\n"} }
	for _, tt := range []struct {
		name  string
		step  string
		errno syscall.Errno
		files map[string]string
		want  string
		words string // in the remedy
	}{
		{"max 0", "clone", syscall.ENOSPC, sysctl("user/max_user_namespaces", "0"), "userns.sysctl.max", "user.max_user_namespaces = "},
		{"max reached", "clone", syscall.ENOSPC, nil, "userns.limit", "user.max_user_namespaces=100000"},
		{"nested too deep", "clone", syscall.EUSERS, nil, "userns.limit", "sandboxes"},
		{"mount namespaces 0", "clone", syscall.ENOSPC, sysctl("user/max_mnt_namespaces", "0"), "userns.sysctl.mnt", "user.max_mnt_namespaces"},
		{"pid namespaces 0", "clone", syscall.ENOSPC, sysctl("user/max_pid_namespaces", "0"), "userns.sysctl.pid", "user.max_pid_namespaces"},
		{"Debian", "clone", syscall.EPERM, sysctl("kernel/unprivileged_userns_clone", "0"), "userns.sysctl.clone", "kernel.unprivileged_userns_clone = 1"},
		{"Ubuntu, refused", "clone", syscall.EACCES, sysctl("kernel/apparmor_restrict_unprivileged_userns", "1"), "userns.apparmor", "/etc/apparmor.d/"},
		{"Ubuntu, without capabilities", "setresuid", syscall.EPERM, sysctl("kernel/apparmor_restrict_unprivileged_userns", "1"), "userns.apparmor", "userns,"},
		{"Ubuntu, mount", "mount", syscall.EACCES, sysctl("kernel/apparmor_restrict_unprivileged_userns", "1"), "userns.apparmor", "userns,"},
		{"Docker", "clone", syscall.EPERM, status("0", "2", "0"), "userns.seccomp", "seccomp=unconfined"},
		{"chroot", "clone", syscall.EPERM, map[string]string{"proc/self/mountinfo": "1 0 0:1 / /proc rw - proc proc rw\n"}, "userns.chroot", "outside the chroot"},
		{"process limit", "clone", syscall.EAGAIN, nil, "userns.processes", "ulimit -u"},
		{"no_new_privs", "uid_map", syscall.EPERM, status("1", "0", "0"), "userns.nnp", "NoNewPrivileges="},
		{"no newuidmap", "uid_map", syscall.ENOENT, nil, "newuidmap.missing", "apt-get install uidmap"},
		{"no newgidmap", "gid_map", syscall.ENOENT, nil, "newgidmap.missing", "apt-get install uidmap"},
		{"container without SETFCAP", "uid_map", syscall.EPERM, status("0", "0", "00000000000000c0"), "userns.rootmap", "SETFCAP"},
		{"nothing known", "clone", syscall.EPERM, nil, "userns.clone", "security module"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := idshift.NewMap(idshift.Extent{Inside: 0, Outside: 0, Count: 1})
			if err != nil {
				t.Fatal(err)
			}
			e := &Env{sys: machine(t, wholeMap, "", tt.files), Handoff: idshift.Mapping{UID: m, GID: m}}
			err = e.blame(&spawnError{step: tt.step, err: tt.errno})
			var env *EnvError
			if !errors.As(err, &env) || env.ID != tt.want || !strings.Contains(env.Remedy, tt.words) {
				t.Fatalf("blamed %v; want %s with %q", err, tt.want, tt.words)
			}
			if !errors.Is(err, tt.errno) || ExitCode(err) != ExitEnvironment {
				t.Errorf("the failure is lost: %v", err)
			}
		})
	}
}

func TestBlameOfRootWithoutSysAdmin(t *testing.T) {
	e := &Env{Direct: true, sys: machine(t, wholeMap, "", map[string]string{"proc/self/status": "Seccomp:\t2\nCapEff:\t00000000a80425fb\n"})}
	var env *EnvError
	if err := e.blame(&spawnError{step: "clone", err: syscall.EPERM}); !errors.As(err, &env) || env.ID != "root.sysadmin" {
		t.Errorf("blamed %v", err)
	}
}

// unprivileged skips for those who need no newuidmap.
func unprivileged(t *testing.T) *Env {
	t.Helper()
	if os.Getuid() == 0 {
		t.Skip("user tier: root writes maps itself")
	}
	return testEnv(t)
}

func TestMissingAndUnprivilegedTools(t *testing.T) {
	e := unprivileged(t)
	dir := t.TempDir()
	run := func() *EnvError {
		other := *e
		other.sys.Path = dir
		_, err := whoami.Run(t.Context(), &other, struct{}{}, nil)
		var env *EnvError
		if !errors.As(err, &env) {
			t.Fatalf("error %v", err)
		}
		return env
	}
	if got := run(); got.ID != "newuidmap.missing" {
		t.Errorf("empty PATH: %v", got)
	}
	for _, tool := range []string{"newuidmap", "newgidmap"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			tier.Have(t, false, err.Error())
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, tool), text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if got := run(); got.ID != "newuidmap.privilege" || !strings.Contains(got.Remedy, "chmod 4755 "+dir) {
		t.Errorf("copy without setuid: %v", got)
	}
}

func TestForeignRange(t *testing.T) {
	unprivileged(t)
	e, err := NewEnv(Options{Mode: "unshare", Map: "0:3999000000:65536"})
	if err != nil {
		t.Fatal(err)
	}
	err = e.Probe(t.Context())
	var env *EnvError
	if !errors.As(err, &env) || env.ID != "subid.foreign" || !strings.Contains(env.Remedy, ":3999000000:65536' >> /etc/subuid") {
		t.Errorf("error %v", err)
	}
}

func TestNoNewPrivs(t *testing.T) {
	unprivileged(t)
	if _, err := exec.LookPath("setpriv"); err != nil {
		tier.Have(t, false, err.Error())
	}
	run := runnerCmd(t, "true")
	cmd := exec.Command("setpriv", "--no-new-privs", testBinary(t))
	cmd.Env = run.Env
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != ExitEnvironment || !strings.Contains(string(out), "no_new_privs is set") || !strings.Contains(string(out), "remedy:") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestSysctlForbids sets the real sysctl of a user namespace of its own, so that nobody else is troubled.
func TestSysctlForbids(t *testing.T) {
	e := testEnv(t)
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(t.TempDir(), "t")
	if err := os.WriteFile(exe, self, 0o755); err != nil {
		t.Fatal(err)
	}
	makeReachable(t, filepath.Dir(exe))
	s := sh(`echo 0 >/proc/sys/user/max_user_namespaces && exec ` + exe + ` 2>&1`)
	s.Env = []string{runnerVar + `={"Argv":["true"]}`}
	out, code, err := output(t, e, s)
	if err != nil || code != ExitEnvironment || !strings.Contains(out, "user.max_user_namespaces forbids user namespaces") || !strings.Contains(out, "sysctl --system") {
		t.Errorf("status %d, %v: %s", code, err, out)
	}
}

func TestDiagnose(t *testing.T) {
	testEnv(t)
	ids := map[string]State{}
	for _, f := range Diagnose(context.Background(), testOptions()) {
		if _, twice := ids[f.ID]; twice {
			t.Errorf("finding %s is there twice", f.ID)
		}
		ids[f.ID] = f.State
		if f.State == StateProblem {
			t.Errorf("on this machine: %+v", f)
		}
	}
	for _, id := range []string{"map", "userns.enter", "userns.sysctl.max", "userns.apparmor", "newuidmap", "newgidmap", "subid.granted"} {
		if ids[id] == "" {
			t.Errorf("no finding %s", id)
		}
	}
	o := testOptions()
	o.System = machine(t, wholeMap, "", map[string]string{"proc/sys/user/max_user_namespaces": "0\n"})
	o.Mode, o.Map = "unshare", ""
	problems := map[string]bool{}
	for _, f := range Diagnose(context.Background(), o) {
		if f.State == StateProblem {
			problems[f.ID] = true
			if f.Remedy == "" {
				t.Errorf("no remedy: %+v", f)
			}
		}
	}
	for _, id := range []string{"subid.range", "userns.sysctl.max", "newuidmap.missing", "newgidmap.missing"} {
		if !problems[id] {
			t.Errorf("%s is not told; told are %v", id, problems)
		}
	}
}

// TestUnreadableBinary: with mode 0711 the kernel gives /proc/PID to root, and newuidmap then refuses.
func TestUnreadableBinary(t *testing.T) {
	testEnv(t)
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(t.TempDir(), "t")
	if err := os.WriteFile(exe, self, 0o111); err != nil {
		t.Fatal(err)
	}
	cmd := runnerCmd(t, "sh", "-c", "exit 7")
	cmd.Path = exe
	if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 7 {
		t.Error(err)
	}
}

func BenchmarkEnter(b *testing.B) {
	e := testEnv(b)
	for b.Loop() {
		if err := e.Probe(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkExec(b *testing.B) {
	e := testEnv(b)
	for b.Loop() {
		if code, err := e.Exec(b.Context(), Spec{Argv: []string{"/bin/true"}}); code != 0 || err != nil {
			b.Fatal(code, err)
		}
	}
}

// TestPrivilegeByFileCapabilities: distributions ship the tools either setuid or with file capabilities.
func TestPrivilegeByFileCapabilities(t *testing.T) {
	tool := filepath.Join(t.TempDir(), "newuidmap")
	if err := os.WriteFile(tool, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := privilege(tool, unix.CAP_SETUID); err == nil {
		t.Error("a plain file passes")
	}
	if os.Getuid() != 0 {
		return // only root may plant the rest
	}
	for spec, ok := range map[string]bool{"cap_setuid=ep": true, "cap_setuid=p": false, "cap_setgid=ep": false} {
		if out, err := exec.Command("setcap", spec, tool).CombinedOutput(); err != nil {
			tier.Have(t, false, "setcap: "+string(out))
		}
		if how, err := privilege(tool, unix.CAP_SETUID); (err == nil) != ok {
			t.Errorf("%s: %q, %v", spec, how, err)
		}
	}
}
