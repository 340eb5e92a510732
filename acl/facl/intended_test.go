package facl_test

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/acl"
	"github.com/nsferry/nsferry/acl/facl"
	"github.com/nsferry/nsferry/idshift"
	"github.com/nsferry/nsferry/tier"
)

// TestIntended runs both sides where they differ by intent (docs/ACL.md), and demands that they still do: each case names
// what is in the state or the messages of one side and not of the other.
func TestIntended(t *testing.T) {
	tier.Program(t, "setfacl", "getfacl")
	accounts, err := idshift.LoadAccounts(idshift.Sources{})
	if err != nil {
		t.Fatal(err)
	}
	backup := func(body string) string { return "# file: f\n" + body }
	const base = "user::rw-\ngroup::r--\nother::---\n"
	for name, tt := range map[string]struct {
		args         []string
		stdin        string
		theirStatus  int
		ourStatus    int
		theirs, ours string // a part of stderr, stdout or the state of f
	}{
		"negative id":           {args: []string{"-m", "u:-1:r", "f"}, theirs: "user:65535:r--", ourStatus: 2, ours: "ids are 0 to 4294967294 near character 3"},
		"id wraps round":        {args: []string{"-m", "u:4294967296:rwx", "f"}, theirs: "user:0:rwx", ourStatus: 2, ours: "ids are 0 to 4294967294 near character 3"},
		"no id":                 {args: []string{"-m", "u:4294967295:r", "f"}, theirStatus: 1, theirs: "Malformed access ACL", ourStatus: 2, ours: "ids are 0 to 4294967294 near character 3"},
		"status of all files":   {args: []string{"-m", "u:1:r", "nosuch", "f"}, theirs: "user:1:r--", ourStatus: 1, ours: "user:1:r--"},
		"unknown owner":         {args: []string{"--restore=-"}, stdin: backup("# owner: nosuch\n" + base), theirs: "mode 640", ourStatus: 1, ours: "No such owner: nosuch"},
		"no blank line":         {args: []string{"--restore=-"}, stdin: backup(base) + "# file: e\nuser::rwx\ngroup::rwx\nother::rwx\n", theirs: "mode 777", ours: "mode 640"},
		"no file comment":       {args: []string{"--restore=-"}, stdin: base, theirs: "mode 6755", ourStatus: 1, ours: "before any file comment in line 1"},
		"mode 000 with flags":   {args: []string{"--restore=-"}, stdin: backup("user::---\ngroup::---\nother::---\n"), theirs: "mode 755", ours: "mode 0 "},
		"--test changes flags":  {args: []string{"--test", "--restore=-"}, stdin: backup(base), theirs: "mode 755", ours: "mode 6755"},
		"place in a backup":     {args: []string{"--restore=-"}, stdin: backup("bogus\n"), theirStatus: 1, theirs: "setfacl: Invalid argument\n", ourStatus: 1, ours: "standard input: Invalid argument in line 2"},
		"flags comment":         {args: []string{"--restore=-"}, stdin: backup("# flags: zz\n" + base), theirStatus: 1, theirs: "No such file or directory", ourStatus: 1, ours: "flags comment in line 2"},
		"backup is a directory": {args: []string{"--restore=."}, theirStatus: 1, theirs: "Operation not permitted", ourStatus: 1, ours: "Is a directory in line 0"},
	} {
		t.Run(name, func(t *testing.T) {
			c := testCase{tool: "setfacl", args: tt.args, stdin: tt.stdin}
			var sides [2]side
			for i := range sides {
				sides[i].dir = t.TempDir()
				if err := build(sides[i].dir); err != nil {
					t.Fatal(err)
				}
				if err := unix.Chmod(sides[i].dir+"/f", 0o6755); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.oracle(&sides[0]); err != nil {
				t.Fatal(err)
			}
			if err := c.ours(&sides[1], accounts); err != nil {
				t.Fatal(err)
			}
			for i, want := range []struct {
				status int
				text   string
			}{{tt.theirStatus, tt.theirs}, {tt.ourStatus, tt.ours}} {
				s := sides[i]
				text := s.stdout + s.stderr + describe(t, s.dir+"/f")
				if s.status != want.status || !strings.Contains(text, want.text) {
					t.Errorf("%s: status %d, want %d; %q is not in\n%s", []string{"setfacl", "ours"}[i], s.status, want.status, want.text, text)
				}
			}
			if sides[0].status == sides[1].status && sides[0].stderr == sides[1].stderr && describe(t, sides[0].dir+"/f") == describe(t, sides[1].dir+"/f") {
				t.Error("there is no difference left: take the case out, here and in docs/ACL.md")
			}
		})
	}
}

// TestIntendedLockedOut: setfacl reaches a directory by its name for each of its two ACLs; the first may take away its caller's right
// to the second. Ours has it open.
func TestIntendedLockedOut(t *testing.T) {
	tier.User(t, "root may search everything")
	tier.Program(t, "setfacl")
	c := testCase{tool: "setfacl", args: []string{"-m", "u::r--,d:u:5:r", "."}}
	sides := [2]side{{dir: t.TempDir()}, {dir: t.TempDir()}}
	if err := c.oracle(&sides[0]); err != nil {
		t.Fatal(err)
	}
	if err := c.ours(&sides[1], facl.Names(nil)); err != nil {
		t.Fatal(err)
	}
	if !lockedOut(sides[0], sides[1]) || sides[0].status != 1 || sides[1].status != 0 {
		t.Errorf("setfacl: %d %s, ours: %d %s", sides[0].status, sides[0].stderr, sides[1].status, sides[1].stderr)
	}
	for i, want := range []bool{false, true} {
		n, err := unix.Getxattr(sides[i].dir, "system.posix_acl_default", nil)
		if (n > 0) != want {
			t.Errorf("side %d: %d bytes of default ACL, %v", i, n, err)
		}
	}
}

// describe is mode and ACL of a file.
func describe(t *testing.T, path string) string {
	t.Helper()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	a, err := acl.Read(fd, acl.Access)
	if err != nil {
		t.Fatal(err)
	}
	return "mode " + octal(st.Mode&0o7777) + " " + a.Text()
}

func octal(mode uint32) string {
	s := ""
	for ; mode > 0; mode >>= 3 {
		s = string(rune('0'+mode&7)) + s
	}
	if s == "" {
		return "0"
	}
	return s
}

// shifted are ids that texts have 1000 less than the process; 0 to 999 of the process are in no text.
type shifted struct{}

func (shifted) ToText(_ bool, id uint32) (uint32, bool)    { return id - 1000, id >= 1000 && id < 70000 }
func (shifted) ToProcess(_ bool, id uint32) (uint32, bool) { return id + 1000, id < 69000 }

// TestInside reads and writes texts with other ids, and keeps what they cannot name.
func TestInside(t *testing.T) {
	dir := t.TempDir()
	if err := build(dir); err != nil {
		t.Fatal(err)
	}
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	accounts, err := idshift.LoadAccounts(idshift.Sources{})
	if err != nil {
		t.Fatal(err)
	}
	call := func(f func([]string, facl.IO) int, stdin string, args ...string) (string, int) {
		var out strings.Builder
		status := f(args, facl.IO{Program: "nsferry", Command: "x", Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &out, Dir: d, Names: accounts,
			Inside: func() (facl.IDs, error) { return shifted{}, nil }})
		return out.String(), status
	}
	for _, args := range [][]string{{"-m", "u:5:r", "f"}, {"--inside", "-m", "u:5:w,g:0:x", "f"}, {"--inside", "-x", "u:6", "f"}} {
		if out, status := call(facl.Set, "", args...); status != 0 || out != "" {
			t.Fatalf("%q: %d, %s", args, status, out)
		}
	}
	if got := describe(t, dir+"/f"); !strings.Contains(got, "user::rw-,user:5:r--,user:1005:-w-,group::r--,group:1000:--x,") {
		t.Errorf("the file has %s", got)
	}
	out, _ := call(facl.Get, "", "--inside", "-cn", "f")
	if want := "user::rw-\nuser:4294967295:r--\nuser:5:-w-\ngroup::r--\ngroup:0:--x\nmask::rwx\nother::r--\n\n"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
	if out, status := call(facl.Set, "", "--inside", "-m", "u:69000:r", "f"); status != 2 || !strings.Contains(out, "uid 69000 is not in the map near character 3") {
		t.Errorf("an id outside the map: %d, %s", status, out)
	}
	// A backup calls an owner without a name nobody. That must not come back as an owner.
	list, _ := call(facl.Get, "", "--inside", "-n", "e")
	if os.Getuid() < 1000 && !strings.Contains(list, "# owner: 65534\n") {
		t.Errorf("got %q", list)
	}
	before := state(dir)
	if out, status := call(facl.Set, list, "--inside", "--restore=-"); status != 0 || state(dir) != before {
		t.Errorf("restoring what is: %d, %s, %s", status, out, state(dir))
	}
	if out, status := call(facl.Set, "", "--inside", "--restore=nosuch"); status != 2 || out != "nsferry: nosuch: No such file or directory\n" {
		t.Errorf("no backup: %d, %q", status, out)
	}
}

// TestTerminal holds the column of comments, as getfacl 2.3.1 has it on a terminal.
func TestTerminal(t *testing.T) {
	dir := t.TempDir()
	if err := build(dir); err != nil {
		t.Fatal(err)
	}
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	accounts, err := idshift.LoadAccounts(idshift.Sources{Passwd: dir + "/none", Group: dir + "/none"})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	e := facl.IO{Program: "nsferry", Command: "x", Stdout: &out, Stderr: &out, Dir: d, Names: accounts, Terminal: true}
	if facl.Set([]string{"-m", "u:100001:rwx,u:4294967294:rwx,m:r", "f"}, e) != 0 || facl.Get([]string{"-c", "f"}, e) != 0 {
		t.Fatal(out.String())
	}
	want := "user::rw-\nuser:100001:rwx\t\t\t#effective:r--\nuser:4294967294:rwx\t\t#effective:r--\ngroup::r--\nmask::r--\nother::r--\n\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}
