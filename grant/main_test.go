package grant

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/idshift/userns/usernstest"
	"github.com/nsferry/nsferry/tier"
)

func TestMain(m *testing.M) {
	userns.Main(Halves()...)
	os.Exit(m.Run())
}

// world is a namespace with true sub-ids, a state directory, and a directory of the caller's that everybody may search.
type world struct {
	*testing.T
	env  *userns.Env
	dir  string
	base uint32 // inner 0 outside
}

func newWorld(t *testing.T) *world {
	t.Helper()
	tier.Program(t, "setfacl", "getfacl")
	e, dir := usernstest.Base(t)
	t.Setenv("XDG_STATE_HOME", filepath.Join(t.TempDir(), "state"))
	w := &world{T: t, env: e, dir: dir}
	w.base, _ = e.Plain.UID.ToOutside(0)
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// sh runs a script of the caller's, in the world's directory, with $B and the arguments after it.
func (w *world) sh(script string) string {
	w.Helper()
	cmd := exec.Command("sh", "-euc", script)
	cmd.Dir = w.dir
	cmd.Env = append(os.Environ(), fmt.Sprintf("B=%d", w.base))
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// inner tells whether the script succeeds as inner root, or as another inner id, walking by path as foreign tools do.
func (w *world) inner(id int, script string) bool {
	w.Helper()
	var said bytes.Buffer
	argv := []string{"/bin/sh", "-euc", "cd " + w.dir + " && " + script}
	if id != 0 {
		argv = append([]string{"setpriv", fmt.Sprintf("--reuid=%d", id), fmt.Sprintf("--regid=%d", id), "--clear-groups"}, argv...)
	}
	read, write, err := os.Pipe()
	if err != nil {
		w.Fatal(err)
	}
	defer read.Close()
	defer write.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		w.Fatal(err)
	}
	defer null.Close()
	code, err := w.env.Exec(context.Background(), userns.Spec{Argv: argv, Env: append(os.Environ(), fmt.Sprintf("B=%d", w.base)), Stdin: null, Stdout: write, Stderr: write})
	write.Close()
	_, _ = said.ReadFrom(read)
	if err != nil {
		w.Fatal(err)
	}
	w.Logf("inner %d: %s: exit %d %s", id, script, code, strings.TrimSpace(said.String()))
	return code == 0
}

// snapshot is all that getfacl and stat see of the names: modes, owners, both ACLs.
func (w *world) snapshot(names ...string) string {
	w.Helper()
	list := strings.Join(names, " ")
	return w.sh("getfacl -np " + list + "; stat -c '%n %a %u %g' " + list + "; getfattr -hm- -de hex " + list + " 2>/dev/null || true")
}

func (w *world) grant(o Options, names ...string) (Report, error) {
	w.Helper()
	for i := range names {
		names[i] = w.path(names[i])
	}
	return Grant(context.Background(), w.env, names, o)
}

func (w *world) mustGrant(o Options, names ...string) Report {
	w.Helper()
	r, err := w.grant(o, names...)
	if err != nil {
		w.Fatal(err)
	}
	return r
}

func (w *world) revoke(names ...string) Report {
	w.Helper()
	for i := range names {
		names[i] = w.path(names[i])
	}
	r, err := Revoke(context.Background(), w.env, names)
	if err != nil {
		w.Fatal(err)
	}
	return r
}

// holds is what Check says of one directory.
func (w *world) holds(name string, also ...uint32) Holding {
	w.Helper()
	all, err := Check(w.env, []string{w.path(name)}, also)
	if err != nil {
		w.Fatal(err)
	}
	return all[0]
}

// records counts what is on record.
func (w *world) records() int {
	names, _ := filepath.Glob(filepath.Join(os.Getenv("XDG_STATE_HOME"), "nsferry/grants/*.json"))
	return len(names)
}
