package tier

import (
	"errors"
	"os/exec"
	"testing"
)

// Output runs a program that the test needs, in dir or where the test is, and returns its standard output. It must succeed.
func Output(t testing.TB, dir string, argv ...string) string {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		t.Fatalf("%q: %v: %s", argv, err, exit.Stderr)
	}
	if err != nil {
		t.Fatalf("%q: %v", argv, err)
	}
	return string(out)
}
