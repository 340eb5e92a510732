package facl_test

import (
	"os"
	"os/exec"
	"testing"

	"github.com/nsferry/nsferry/idshift/userns"
)

// need skips the test, or fails it when REQUIRE_ALL is set, unless all programs are installed.
func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			lack(t, p+" is not installed")
		}
	}
}

// lack skips or fails the test for the reason.
func lack(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("REQUIRE_ALL") != "" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// namespace returns an Env with a namespace: of the user's own sub-ids, or for root of a range that nobody needs.
func namespace(t testing.TB) *userns.Env {
	t.Helper()
	o := userns.Options{Mode: "unshare"}
	if os.Getuid() == 0 {
		o.Map = "0:3000000000:65536"
	}
	e, err := userns.NewEnv(o)
	if err != nil {
		lack(t, err.Error())
	}
	return e
}
