package idshift_test

import (
	"os/exec"
	"testing"
)

// run runs a program and returns its standard output.
func run(t testing.TB, dir string, argv ...string) string {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	var stderr []byte
	out, err := cmd.Output()
	if e, ok := err.(*exec.ExitError); ok {
		stderr = e.Stderr
	}
	if err != nil {
		t.Fatalf("%q: %v: %s", argv, err, stderr)
	}
	return string(out)
}
