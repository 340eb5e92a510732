package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/tier"
)

// TestMain serves inner processes, and lets scripts run nsferry as a command: this test binary under that name.
func TestMain(m *testing.M) {
	userns.Main(halves()...)
	servePlace()
	testscript.Main(m, map[string]func(){"nsferry": main})
}

// TestScript runs testdata/script/*.txtar, one subtest a file. What scripts have beyond testscript's own commands:
//
//	exits CODE COMMAND ARG...   runs COMMAND and demands this very exit status
//	[root]                      the tests run as root
//	[subids]                    the caller has sub-ids and newuidmap is there
//
// A script that is for one tier only starts with "[!root] skip 'root tier'" or "[root] skip 'user tier'"; every other
// skip is a failure when REQUIRE_ALL is set.
func TestScript(t *testing.T) {
	testscript.RunT(scriptT{t}, testscript.Params{
		Dir:                filepath.Join(moduleRoot, "testdata", "script"),
		RequireUniqueNames: true,
		UpdateScripts:      os.Getenv("UPDATE") != "",
		Condition:          scriptCondition,
		Cmds:               map[string]func(*testscript.TestScript, bool, []string){"exits": cmdExits},
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", filepath.Join(e.WorkDir, "home"))
			return os.Mkdir(filepath.Join(e.WorkDir, "home"), 0o700)
		},
	})
}

// scriptT is *testing.T as testscript wants it, with skips that REQUIRE_ALL turns into failures.
type scriptT struct{ *testing.T }

func (t scriptT) Run(name string, f func(testscript.T)) {
	t.T.Run(name, func(t *testing.T) { f(scriptT{t}) })
}

func (t scriptT) Verbose() bool { return testing.Verbose() }

func (t scriptT) Skip(args ...any) {
	t.Helper()
	reason := fmt.Sprint(args...)
	tier.Have(t, tier.OtherTier(reason), "what this script skips for: "+reason)
	t.T.Skip(args...)
}

func scriptCondition(cond string) (bool, error) {
	switch cond {
	case "root":
		return os.Geteuid() == 0, nil
	case "subids":
		return haveSubids(), nil
	}
	return false, fmt.Errorf("unknown condition %q", cond)
}

// haveSubids looks for a line that names the caller, by name or by uid.
func haveSubids() bool {
	if _, err := exec.LookPath("newuidmap"); err != nil {
		return false
	}
	f, err := os.Open("/etc/subuid")
	if err != nil {
		return false
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		who, _, _ := strings.Cut(s.Text(), ":")
		if who != "" && (who == os.Getenv("USER") || who == strconv.Itoa(os.Getuid())) {
			return true
		}
	}
	return false
}

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}
