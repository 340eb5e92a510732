package facl_test

import (
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/acl/facl"
	"github.com/nsferry/nsferry/idshift"
)

// FuzzText gives any text to -m, -x and --restore. What -m took is shown by Get, and what that shows sets the same ACL.
func FuzzText(f *testing.F) {
	for _, seed := range []string{"u:5:rwX,g::r,m:-", "d:u:5:r", "u:ro\\157t:7, d:o::07", "# file: f\n# owner: 0\n# flags: s-t\nuser::rw-\ngroup::r--\nother::-\n",
		"u : 5 : r ,", "g:1\n:w", "u:0x10:r", "m:7", ":::", ",", "# file: \\057etc\n"} {
		f.Add(seed)
	}
	dir := f.TempDir()
	if err := build(dir); err != nil {
		f.Fatal(err)
	}
	if err := os.Chmod(dir+"/e", 0o644); err != nil {
		f.Fatal(err)
	}
	d, err := os.Open(dir)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { d.Close() })
	accounts, err := idshift.LoadAccounts(idshift.Sources{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		call := func(run func([]string, facl.IO) int, stdin string, args ...string) (string, int) {
			var out strings.Builder
			status := run(args, facl.IO{Program: "nsferry", Command: "x", Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: io.Discard, Dir: d, Names: accounts})
			return out.String(), status
		}
		if _, status := call(facl.Set, "", "--test", "-x", text, "f"); status > 2 {
			t.Fatalf("-x: status %d", status)
		}
		if _, status := call(facl.Set, text, "--test", "--restore=-"); status > 2 {
			t.Fatalf("--restore: status %d", status)
		}
		call(facl.Set, "", "-b", "f", "e")
		if err := unix.Chmod(dir+"/f", 0o644); err != nil {
			t.Fatal(err)
		}
		if _, status := call(facl.Set, "", "-m", text, "f"); status != 0 {
			return
		}
		list, _ := call(facl.Get, "", "f")
		if _, status := call(facl.Set, list, "--set-file=-", "e"); status != 0 || describe(t, dir+"/e") != describe(t, dir+"/f") {
			t.Fatalf("%q made %s, which reads back as %s (status %d)", text, describe(t, dir+"/f"), describe(t, dir+"/e"), status)
		}
	})
}
