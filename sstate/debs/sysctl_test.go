package debs

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/nsferry/nsferry/idshift/userns/usernstest"
	"github.com/nsferry/nsferry/tier"
)

// TestSysctlsSoak: the kernel's protections of links, fifos and files in sticky directories make no difference. All 36
// combinations, and the flows of an unprivileged user under each, in four minutes: SOAK=1 PACKAGES=./sstate/debs bash .ci/test -run Sysctls
func TestSysctlsSoak(t *testing.T) {
	tier.Root(t, "sets sysctls")
	unlock := sysctlLock(t)
	defer unlock()
	names := []string{"protected_hardlinks", "protected_symlinks", "protected_regular", "protected_fifos"}
	for _, n := range names {
		path := "/proc/sys/fs/" + n
		was, err := os.ReadFile(path)
		check(t, err)
		t.Cleanup(func() {
			if err := os.WriteFile(path, was, 0); err != nil {
				t.Error(err)
			}
		})
	}
	all := ways(t)
	results := map[string]string{}
	for n := range 2 * 2 * 3 * 3 {
		v := []int{n % 2, n / 2 % 2, n / 4 % 3, n / 12}
		if n%7 != 0 && !tier.Soaking(true, false) {
			continue // a sample, in which each has each of its values
		}
		for i, name := range names {
			check(t, os.WriteFile("/proc/sys/fs/"+name, fmt.Appendf(nil, "%d", v[i]), 0))
		}
		for _, e := range all {
			got := sweepOne(t, e)
			if first, ok := results[e.Name]; !ok {
				results[e.Name] = got
			} else if got != first {
				t.Errorf("%s, %v = %v:\n%s\nelse\n%s", e.Name, names, v, got, first)
			}
		}
		flowsAsUser(t, fmt.Sprint(v))
	}
}

// flowsAsUser runs the tests of all flows as the runner's unprivileged user, for whom the sysctls are meant. The runner alone has him.
func flowsAsUser(t *testing.T, values string) {
	t.Helper()
	ci := os.Getenv("NSFERRY_TEST_CI")
	if ci == "" {
		t.Log("not as an unprivileged user: only .ci/test has one")
		return
	}
	self, err := os.Executable() // /proc/self would be that of whoever copies it
	check(t, err)
	out, err := exec.Command(ci+"/as-user", self, "-test.run=^(TestFlow|TestImportReplacesWhatIsWrong|TestLinks)$").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "PASS") {
		t.Errorf("as a user, with %s: %v\n%s", values, err, out)
	}
}

// sweepOne imports into and exports from archives of mode 1777 with planted files, and returns what came of it.
func sweepOne(t *testing.T, e usernstest.Way) string {
	a, b := deb(t, "alpha", "1", "amd64"), deb(t, "beta", "1", "all")
	w := newWorld(t, e)
	w.seed(a)
	w.lists(a, b)
	one, err := Import(t.Context(), e.Lazy, w.dl, w.root, ImportOptions{Mode: Mode1777})
	check(t, err)
	w.put(b.FileName(), b.data, 0o644)
	w.inside("sh", "-c", `cd "$1" && mkfifo fifo_1_all.deb && ln -s beta_1_all.deb link_1_all.deb`, "sh", w.archives())
	settled()
	two, err := Export(t.Context(), e.Lazy, w.root, w.dl, ExportOptions{KeepMode: true})
	w.ours(a)
	w.ours(b)
	return strings.ReplaceAll(fmt.Sprintf("%+v\n%+v\n%v", one, two, err), w.dir, "DIR")
}

// sysctlLock keeps other tests that set sysctls away.
func sysctlLock(t *testing.T) func() {
	t.Helper()
	f, err := os.OpenFile("/run/lock/nsferry-test-sysctl", os.O_RDWR|os.O_CREATE, 0o600)
	check(t, err)
	check(t, syscall.Flock(int(f.Fd()), syscall.LOCK_EX))
	return func() { f.Close() }
}
