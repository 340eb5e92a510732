package userns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

type identity struct {
	UID, GID, EUID, EGID int
	Groups               []int
	UIDMap, GIDMap       string
	Eff, Inh, Amb        []string
	Env                  []string
	FDs                  []string
	Propagation          bool // some mount still has a peer group
}

var whoami = Half[struct{}, identity]{Name: "whoami", Func: func(context.Context, *Inner, struct{}) (identity, error) {
	id := identity{UID: os.Getuid(), GID: os.Getgid(), EUID: os.Geteuid(), EGID: os.Getegid(), Env: os.Environ()}
	var err error
	if id.Groups, err = os.Getgroups(); err != nil {
		return id, err
	}
	u, _ := os.ReadFile("/proc/self/uid_map")
	g, _ := os.ReadFile("/proc/self/gid_map")
	id.UIDMap, id.GIDMap = strings.Join(strings.Fields(string(u)), " "), strings.Join(strings.Fields(string(g)), " ")
	id.Eff, id.Inh, id.Amb = threadCaps("CapEff"), threadCaps("CapInh"), threadCaps("CapAmb")
	for line := range strings.Lines(openFDs()) {
		id.FDs = append(id.FDs, strings.TrimSpace(line))
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	id.Propagation = strings.Contains(string(table), " shared:") || strings.Contains(string(table), " master:")
	return id, err
}}

var echo = Half[string, string]{Name: "echo", Func: func(_ context.Context, in *Inner, args string) (string, error) {
	for _, f := range in.Files {
		if _, err := fmt.Fprintf(f, "%s %s\n", args, f.Name()); err != nil {
			return "", err
		}
	}
	for i := range 1000 {
		in.Progress(i)
	}
	return strings.ToUpper(args), nil
}}

var upper = Half[string, string]{Name: "upper", Isolated: true, Func: func(_ context.Context, _ *Inner, args string) (string, error) {
	return strings.ToUpper(args) + " " + strconv.Itoa(os.Getpid()), nil
}}

var mounting = Half[string, string]{Name: "mounting", Isolated: true, Func: func(_ context.Context, _ *Inner, dir string) (string, error) {
	if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, "mark"), nil, 0o600)
}}

// classed is an error that asks for an exit code, as a cache miss does.
type classed struct{ error }

func (classed) ExitCode() int { return 3 }

var fails = Half[string, int]{Name: "fails", Func: func(_ context.Context, _ *Inner, how string) (int, error) {
	switch how {
	case "miss":
		return 0, fmt.Errorf("sstate: %w", classed{errors.New("key k1 is not there")})
	case "usage":
		return 0, &UsageError{"what is that?"}
	case "env":
		return 0, fmt.Errorf("deep: %w", &EnvError{ID: "x", What: "no tea", Remedy: "boil water"})
	case "errno":
		return 0, &os.PathError{Op: "write", Path: "out", Err: syscall.ENOSPC}
	}
	return 0, errors.New("plain")
}}

type waitArgs struct {
	Litter   string // removed when told to stop
	Stubborn bool
}

var waits = Half[waitArgs, int]{Name: "waits", Func: func(ctx context.Context, in *Inner, a waitArgs) (int, error) {
	in.Progress(os.Getpid())
	if a.Stubborn {
		select {}
	}
	<-ctx.Done()
	if a.Litter != "" {
		time.Sleep(50 * time.Millisecond)
		if err := os.Remove(a.Litter); err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("waits: %w", ctx.Err())
}}

var panics = Half[string, int]{Name: "panics", Func: func(context.Context, *Inner, string) (int, error) { panic("hear me") }}

var dies = Half[int, int]{Name: "dies", Func: func(_ context.Context, _ *Inner, sig int) (int, error) {
	if sig == 0 {
		os.Exit(9)
	}
	_ = syscall.Kill(os.Getpid(), syscall.Signal(sig))
	select {}
}}

// crossing gives a file to a uid and back, which needs the map, the capability and the caller in the map.
var crossing = Half[[2]int, int]{Name: "crossing", Func: func(_ context.Context, in *Inner, to [2]int) (int, error) {
	return 0, in.Files[0].Chown(to[0], to[1])
}}

func TestHalfIsRootInside(t *testing.T) {
	e := testEnv(t)
	leak, err := unix.Open("/dev/null", unix.O_RDONLY, 0) // no O_CLOEXEC: as a caller's lock would be
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)
	t.Setenv("SECRET", "x")
	id, err := whoami.Run(t.Context(), e, struct{}{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := [4]int{id.UID, id.GID, id.EUID, id.EGID}; got != [4]int{} {
		t.Errorf("ids inside: %v", got)
	}
	if own, err := os.Getgroups(); err != nil || len(id.Groups) != len(own) {
		t.Errorf("groups inside: %v, outside %v, %v: a half needs what the caller's groups open to him", id.Groups, own, err)
	}
	all, err := e.sys.allCaps()
	if err != nil {
		t.Fatal(err)
	}
	full := fmt.Sprintf("%016x", uint64(1)<<len(all)-1)
	for _, c := range id.Eff {
		if c != full {
			t.Errorf("a thread has effective capabilities %s, want %s", c, full)
		}
	}
	for _, c := range slices.Concat(id.Inh, id.Amb) {
		if !cgoBuild() && c != "0000000000000000" {
			t.Errorf("inheritable or ambient capabilities are left: %s", c)
		}
	}
	if want := mapText(e.Handoff.UID.Extents()); id.UIDMap != want {
		t.Errorf("uid_map %q, want %q", id.UIDMap, want)
	}
	if want := mapText(e.Handoff.GID.Extents()); id.GIDMap != want {
		t.Errorf("gid_map %q, want %q", id.GIDMap, want)
	}
	if id.Propagation {
		t.Error("mounts still propagate")
	}
	for _, kv := range id.Env {
		if strings.HasPrefix(kv, "SECRET") || strings.HasPrefix(kv, "HOME") {
			t.Errorf("environment is not clean: %s", kv)
		}
	}
	for _, fd := range id.FDs {
		if n, _, _ := strings.Cut(fd, " "); len(n) == 1 && n <= "3" {
			continue
		}
		t.Errorf("a descriptor leaked: %s", fd)
	}
}

func TestHalfFilesProgressResult(t *testing.T) {
	unshared := testEnv(t)
	for name, e := range map[string]*Env{"unshare": unshared, "direct": {Mode: ModeRoot, Direct: true}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var files []*os.File
			for _, n := range []string{"a", "b"} {
				f, err := os.Create(filepath.Join(dir, n))
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				files = append(files, f)
			}
			var reports []string
			got, err := echo.Run(t.Context(), e, "grüße", func(m json.RawMessage) { reports = append(reports, string(m)) }, files...)
			if err != nil || got != "GRÜSSE" && got != "GRÜßE" {
				t.Fatalf("result %q, %v", got, err)
			}
			var want []string
			for i := range 1000 {
				want = append(want, strconv.Itoa(i))
			}
			if d := cmp.Diff(want, reports); d != "" {
				t.Errorf("progress (-want +got):\n%s", d)
			}
			for _, f := range files {
				text, err := os.ReadFile(f.Name())
				if want := "grüße " + f.Name() + "\n"; err != nil || string(text) != want {
					t.Errorf("file %s: %q, %v", f.Name(), text, err)
				}
			}
		})
	}
}

func TestErrorsCrossTheBorder(t *testing.T) {
	e := testEnv(t)
	for _, tt := range []struct {
		how, msg string
		code     int
		errno    syscall.Errno
	}{
		{"miss", "sstate: key k1 is not there", 3, 0},
		{"usage", "what is that?", ExitUsage, 0},
		{"env", "deep: no tea\n  remedy: boil water", ExitEnvironment, 0},
		{"errno", "write out: no space left on device", ExitFailed, syscall.ENOSPC},
		{"", "plain", ExitFailed, 0},
	} {
		t.Run(tt.how, func(t *testing.T) {
			_, err := fails.Run(t.Context(), e, tt.how, nil)
			var r *RemoteError
			if !errors.As(err, &r) || err.Error() != tt.msg || ExitCode(err) != tt.code {
				t.Errorf("got %q (%T, exit %d), want %q (exit %d)", err, err, ExitCode(err), tt.msg, tt.code)
			}
			if isErrno(err, syscall.ENOSPC) != (tt.errno == syscall.ENOSPC) {
				t.Errorf("ENOSPC in the chain: %v", isErrno(err, syscall.ENOSPC))
			}
		})
	}
	unknown := Half[int, int]{Name: "unheard-of"}
	if _, err := unknown.Run(t.Context(), e, 1, nil); err == nil || !strings.Contains(err.Error(), "unheard-of") {
		t.Errorf("a half that is not in the table: %v", err)
	}
}

func TestDeathOfAHalfIsNamed(t *testing.T) {
	e := testEnv(t)
	for sig, want := range map[int]string{
		9: "dies: inner process was killed by signal 9 (SIGKILL; out of memory, or killed by hand)",
		0: "dies: inner process ended with exit status 9 and no result",
	} {
		_, err := dies.Run(t.Context(), e, sig, nil)
		var d *DiedError
		if !errors.As(err, &d) || err.Error() != want {
			t.Errorf("signal %d: %v, want %s", sig, err, want)
		}
	}
	segv := &DiedError{Name: "x", Status: syscall.WaitStatus(syscall.SIGSEGV)}
	if got, want := segv.Error(), "x: inner process was ended by signal 11 (segmentation fault)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPanicReachesStderr(t *testing.T) {
	e := testEnv(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	old := os.Stderr
	os.Stderr = w
	_, runErr := panics.Run(t.Context(), e, "", nil)
	os.Stderr = old
	w.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "hear me") || !strings.Contains(string(text), "half_test.go") {
		t.Errorf("no trace on stderr: %q", text)
	}
	if runErr == nil || !strings.Contains(runErr.Error(), "exit status 2 and no result") {
		t.Errorf("error %v", runErr)
	}
}

func TestCancelLetsAHalfCleanUp(t *testing.T) {
	e := testEnv(t)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil { // the half is the caller's uid or another one
		t.Fatal(err)
	}
	litter := filepath.Join(dir, "litter")
	if err := os.WriteFile(litter, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	makeReachable(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := waits.Run(ctx, e, waitArgs{Litter: litter}, func(json.RawMessage) { cancel() })
	if !errors.Is(err, context.Canceled) || err.Error() != "waits: context canceled" {
		t.Errorf("error %v", err)
	}
	if _, err := os.Lstat(litter); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the half was not left to clean up: %v", err)
	}
}

func TestStubbornHalfIsKilledAfterGrace(t *testing.T) {
	e := testEnv(t)
	e.Grace = 100 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	start := time.Now()
	_, err := waits.Run(ctx, e, waitArgs{Stubborn: true}, func(json.RawMessage) { cancel() })
	if took := time.Since(start); took < e.Grace || took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	var d *DiedError
	if !errors.Is(err, context.Canceled) || !errors.As(err, &d) {
		t.Errorf("error %v", err)
	}
	if _, err := waits.Run(ctx, e, waitArgs{}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a half was started for a context that is done: %v", err)
	}
}
