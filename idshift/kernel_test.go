package idshift_test

import (
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nsferry/nsferry/acl"
	"github.com/nsferry/nsferry/idshift"
	"github.com/nsferry/nsferry/tier"
)

// nestedEnv tells the test binary to be the middle of TestOracleNested; its value is the mapping.
const nestedEnv = "IDSHIFT_TEST_NESTED"

func TestMain(m *testing.M) {
	if s, ok := os.LookupEnv(nestedEnv); ok {
		nestedMain(s)
	}
	os.Exit(m.Run())
}

// within returns a command that runs as uid 0 of a new user namespace with the mapping, which a process with CAP_SETUID may
// give without newuidmap.
func within(m idshift.Mapping, argv ...string) *exec.Cmd {
	ids := func(m idshift.Map) (out []syscall.SysProcIDMap) {
		for _, e := range m.Extents() {
			out = append(out, syscall.SysProcIDMap{ContainerID: int(e.Inside), HostID: int(e.Outside), Size: int(e.Count)})
		}
		return out
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids(m.UID), GidMappings: ids(m.GID), GidMappingsEnableSetgroups: true,
		Credential: &syscall.Credential{Uid: 0, Gid: 0},
	}
	cmd.Stderr = os.Stderr
	return cmd
}

// TestOracleKernelMaps gives planned maps to the kernel and reads them back.
func TestOracleKernelMaps(t *testing.T) {
	tier.Root(t, "owners and namespaces of every kind")
	tier.Program(t, "cat")
	for _, n := range []uint32{65537, 65536, 65535, 65534, 65533, 64536, 1000, 2} {
		for _, model := range idshift.Models() {
			c := caller(1001, idshift.Range{First: 100000, Count: n}, idshift.Range{First: 900000, Count: 3})
			c.GIDRanges = c.GIDRanges[:1]
			plain, err := idshift.Plan(model, c)
			if err != nil {
				t.Fatal(err)
			}
			hand, err := idshift.Handoff(plain, c)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range []idshift.Mapping{plain, hand} {
				for k, file := range map[idshift.Kind]string{idshift.UID: "/proc/self/uid_map", idshift.GID: "/proc/self/gid_map"} {
					out, err := within(m, "cat", file).Output()
					if err != nil {
						t.Fatalf("%d %s: %s: %v", n, model, m.Of(k), err)
					}
					got, err := idshift.ParseProcMap(strings.NewReader(string(out)))
					if err != nil || !got.Equal(m.Of(k)) {
						t.Errorf("%d %s: the kernel has %s of %s, %v", n, model, got, m.Of(k), err)
					}
				}
			}
		}
	}
}

// TestOracleKernelShift compares owner, ACL and capability as a process inside sees them with the arithmetic, and what it
// writes with the arithmetic in the other direction.
func TestOracleKernelShift(t *testing.T) {
	tier.Root(t, "owners and namespaces of every kind")
	tier.Program(t, "setfacl", "getfacl", "getfattr", "setfattr", "setcap", "stat", "sh")
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m := spec(t, "u:0:100000:1000,u:65534:1001:1,g:0:200000:1000")
	path := filepath.Join(dir, "f")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	a, err := acl.Parse("u::rwx,u:100007:r,u:1001:w,g::r,g:200009:x,m::rwx,o::-", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Chown(100005, 200006); err != nil {
		t.Fatal(err)
	}
	if err := acl.Apply(int(f.Fd()), acl.Access, a); err != nil {
		t.Fatal(err)
	}
	script := "stat -c %u:%g f; getfacl -ncE f | grep . | paste -sd,; getfattr -e hex -n security.capability f | grep ="
	for _, setcap := range [][]string{{"-n", "100000", "cap_net_raw+ep"}, {"cap_net_raw+ep"}} {
		tier.Output(t, dir, append(append([]string{"setcap"}, setcap...), "f")...)
		cmd := within(m, "sh", "-ec", script)
		cmd.Dir = dir
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		in, err := m.Inside().ACL(a)
		if err != nil {
			t.Fatal(err)
		}
		value := unhex(t, capRawNS)
		if len(setcap) == 1 {
			value = unhex(t, capRaw)
		}
		capability, err := m.Inside().Capability(value)
		if err != nil {
			t.Fatal(err)
		}
		want := "5:6\n" + in.Text() + "\nsecurity.capability=0x" + hex.EncodeToString(capability) + "\n"
		if string(out) != want {
			t.Errorf("setcap %q: inside sees\n%s, arithmetic says\n%s", setcap, out, want)
		}
	}

	cmd := within(m, "sh", "-ec", "chown 8:9 f; setfacl --set u::rwx,u:3:r,g::-,g:4:w,m::rw,o::- f; setfattr -n security.capability -v 0x"+capHigh+" f")
	cmd.Dir = dir
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	in, err := acl.Parse("u::rwx,u:3:r,g::-,g:4:w,m::rw,o::-", nil)
	if err != nil {
		t.Fatal(err)
	}
	want, err := m.Outside().ACL(in)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := acl.Read(int(f.Fd()), acl.Access); err != nil || !got.Equal(want) {
		t.Errorf("inside root wrote %s, arithmetic says %s; %v", got.Short(), want.Short(), err)
	}
	value, err := m.Outside().Capability(unhex(t, capHigh))
	if err != nil {
		t.Fatal(err)
	}
	if out := tier.Output(t, dir, "getfattr", "-e", "hex", "-n", "security.capability", "f"); !strings.Contains(out, "=0x"+hex.EncodeToString(value)+"\n") {
		t.Errorf("inside root wrote %s, arithmetic says %x", out, value)
	}
	if out := tier.Output(t, dir, "stat", "-c", "%u:%g", "f"); out != "100008:200009\n" {
		t.Errorf("inside root gave the file to %s", out)
	}
}

// TestOracleNested plans a map from what a namespace with two lines shows, where a line across both is refused.
func TestOracleNested(t *testing.T) {
	tier.Root(t, "owners and namespaces of every kind")
	tier.Program(t, "cat")
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	// The test binary's own directory is closed to other users.
	bin := filepath.Join(t.TempDir(), "nested")
	if err := os.WriteFile(bin, exe, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{filepath.Dir(bin), filepath.Dir(filepath.Dir(bin))} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	outer := spec(t, "0:1001:1,1:100000:65536")
	for mode, want := range map[string]string{"split": "ok: 0:0:1,1:1:65536\n", "whole": "refused\n"} {
		cmd := within(outer, bin)
		cmd.Env = append(os.Environ(), nestedEnv+"="+mode)
		out, err := cmd.Output()
		if err != nil || string(out) != want {
			t.Errorf("%s: got %q, want %q; %v", mode, out, want, err)
		}
	}
}

// nestedMain runs inside the outer namespace: it makes the map that its visible ids allow, cut or not, and says whether the
// kernel took it.
func nestedMain(mode string) {
	fail := func(err error) {
		if err != nil {
			os.Stdout.WriteString(err.Error() + "\n")
			os.Exit(0)
		}
	}
	f, err := os.Open("/proc/self/uid_map")
	fail(err)
	parent, err := idshift.ParseProcMap(f)
	fail(err)
	c := caller(0, idshift.Visible([]idshift.Range{{First: 0, Count: 4294967295}}, parent)...)
	m, err := idshift.Plan(idshift.ModelCaller, c)
	fail(err)
	if mode == "split" {
		m.UID, err = m.UID.Under(parent)
		fail(err)
		m.GID = m.UID
	}
	cmd := within(m, "cat", "/proc/self/uid_map")
	cmd.Stderr = nil
	out, err := cmd.Output()
	if err != nil {
		os.Stdout.WriteString("refused\n")
		os.Exit(0)
	}
	got, err := idshift.ParseProcMap(strings.NewReader(string(out)))
	fail(err)
	os.Stdout.WriteString("ok: " + got.String() + "\n")
	os.Exit(0)
}
