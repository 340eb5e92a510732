// Package tier says what a test needs. It keeps one rule: what is missing skips the test with the reason, and fails it where
// REQUIRE_ALL is set; only what the other pass of the same run covers may always be skipped. The runner runs all tests twice,
// as root and as an unprivileged user with sub-ids, and knows the two exceptions by the first words of their reasons.
package tier

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// PrivateMounts gives root's tests a mount namespace of their own, so that no mount outlives them, however they end, and none shows
// in the tests of another package. It belongs at the beginning of TestMain and returns in the process that runs the tests.
func PrivateMounts() {
	const inside = "TIER_PRIVATE_MOUNTS"
	if os.Geteuid() != 0 || os.Getenv(inside) != "" {
		return
	}
	self := exec.Command("/proc/self/exe", os.Args[1:]...)
	self.Env = append(os.Environ(), inside+"=1")
	self.Stdin, self.Stdout, self.Stderr = os.Stdin, os.Stdout, os.Stderr
	// Go makes the mounts of a process with Unshareflags private (syscall.SysProcAttr).
	self.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := self.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(self.ProcessState.ExitCode())
}

// Root skips a test that takes uid 0 for the reason why, in the pass of the unprivileged user.
func Root(t testing.TB, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("root tier: " + why)
	}
}

// User skips a test that is about an unprivileged user, in the pass of root.
func User(t testing.TB, why string) {
	t.Helper()
	if os.Geteuid() == 0 {
		t.Skip("user tier: " + why)
	}
}

// Program needs programs on the PATH or in the directories of root's.
func Program(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		_, err := exec.LookPath(name)
		for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
			if err != nil {
				_, err = exec.LookPath(dir + name)
			}
		}
		Have(t, err == nil, "the program "+name)
	}
}

// Have needs whatever ok tells of.
func Have(t testing.TB, ok bool, what string) {
	t.Helper()
	switch {
	case ok:
	case os.Getenv("REQUIRE_ALL") != "":
		t.Fatalf("REQUIRE_ALL is set, and the test needs %s", what)
	default:
		t.Skipf("needs %s", what)
	}
}

// Soak skips a long sweep outside of `make soak`. A smaller sample of each runs always.
func Soak(t testing.TB) {
	t.Helper()
	if os.Getenv("SOAK") == "" {
		t.Skip("soak tier: a long sweep")
	}
}

// Soaking returns long under `make soak`, else short: the size of a sweep.
func Soaking[T any](long, short T) T {
	if os.Getenv("SOAK") != "" {
		return long
	}
	return short
}

// OtherTier tells whether a reason to skip is covered by another pass.
func OtherTier(reason string) bool {
	for _, tier := range []string{"root tier", "user tier", "soak tier"} {
		if strings.HasPrefix(reason, tier) {
			return true
		}
	}
	return false
}
