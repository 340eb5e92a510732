package idshift_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nsferry/nsferry/idshift"
	"github.com/nsferry/nsferry/tier"
)

// system is a set of files for LookupCaller in place of those in /etc; an empty text leaves the file out.
type system struct {
	passwd, subuid, subgid, nsswitch string
	run                              map[string]string // output by command line; others are not installed
	uid, gid                         uint32
}

// sources writes the files.
func (s system) sources(t testing.TB) idshift.Sources {
	t.Helper()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if text != "" {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	return idshift.Sources{
		Passwd: file("passwd", s.passwd), SubUID: file("subuid", s.subuid), SubGID: file("subgid", s.subgid), NSSwitch: file("nsswitch", s.nsswitch),
		IDs: func() (uint32, uint32) { return s.uid, s.gid },
		Run: func(name string, args ...string) ([]byte, error) {
			out, ok := s.run[strings.Join(append([]string{name}, args...), " ")]
			switch {
			case !ok:
				return nil, &exec.Error{Name: name, Err: exec.ErrNotFound}
			case out == "exit 1" || out == "exit 2" || out == "exit 3":
				return exec.Command("sh", "-c", "echo Error fetching ranges >&2; "+out).Output()
			}
			return []byte(out), nil
		},
	}
}

const passwd = `root:x:0:0:root:/root:/bin/bash
# builder2:x:1001:1001::/:/bin/sh
short:x:1001
bad:x:+1001:1001::/:/bin/sh
:x:1001:1001::/:/bin/sh
builder:x:1001:1001:,,,:/home/builder:/bin/sh
alias:x:1001:1001:,,,:/home/builder:/bin/sh
+::::::
`

func TestLookupCaller(t *testing.T) {
	r := func(first, count uint32) idshift.Range { return idshift.Range{First: first, Count: count} }
	for _, tt := range []struct {
		name string
		sys  system
		want idshift.Caller
	}{
		{"usual", system{passwd: passwd, subuid: "builder:100000:65536\n", subgid: "x:1:1\nbuilder:200000:65535\n", uid: 1001, gid: 1002},
			idshift.Caller{UID: 1001, GID: 1002, Name: "builder", UIDRanges: []idshift.Range{r(100000, 65536)}, GIDRanges: []idshift.Range{r(200000, 65535)},
				FreeUID: 165536, FreeGID: 100000}},
		{"gid lines are keyed by the user's id, not by the gid", system{passwd: passwd, subuid: "1001:5:5\n", subgid: "1002:1:1\n1001:7:7\n", uid: 1001, gid: 1002},
			idshift.Caller{UID: 1001, GID: 1002, Name: "builder", UIDRanges: []idshift.Range{r(5, 5)}, GIDRanges: []idshift.Range{r(7, 7)}, FreeUID: 100000, FreeGID: 100000}},
		{"second name", system{passwd: passwd, subuid: "alias:5:5\n", uid: 1001},
			idshift.Caller{UID: 1001, Name: "builder", UIDRanges: []idshift.Range{r(5, 5)}, FreeUID: 100000}},
		{"uid not in passwd", system{passwd: passwd, subuid: "4711:5:5\n", subgid: "builder:1:1\n", uid: 4711},
			idshift.Caller{UID: 4711, UIDRanges: []idshift.Range{r(5, 5)}, FreeUID: 100000, FreeGID: 100000}},
		{"no files at all", system{uid: 4711, gid: 1}, idshift.Caller{UID: 4711, GID: 1}},
		{"directory service knows the user", system{
			passwd: passwd, nsswitch: "# x\npasswd: files sss [NOTFOUND=return] # y\n", subuid: "joe:5:5\n", uid: 5000,
			run: map[string]string{"getent passwd 5000": "joe:*:5000:5000:Joe:/home/joe:/bin/sh\n"},
		}, idshift.Caller{UID: 5000, Name: "joe", UIDRanges: []idshift.Range{r(5, 5)}, FreeUID: 100000}},
		{"directory service does not know the user", system{
			passwd: passwd, nsswitch: "passwd: files systemd\n", uid: 5000, run: map[string]string{"getent passwd 5000": "exit 2"},
		}, idshift.Caller{UID: 5000}},
		{"no getent", system{passwd: passwd, nsswitch: "passwd: files systemd\n", uid: 5000}, idshift.Caller{UID: 5000}},
		{"files only: getent is not asked", system{passwd: passwd, nsswitch: "passwd: files\nsubid: files sss\n", subuid: "1001:5:5", uid: 1001,
			run: map[string]string{"getsubids builder": "0: builder 9 9\n"}},
			idshift.Caller{UID: 1001, Name: "builder", UIDRanges: []idshift.Range{r(5, 5)}, FreeUID: 100000}},
		{"getsubids", system{
			passwd: passwd, nsswitch: "Subid:\tsss files\n", subuid: "builder:1:1\n", uid: 1001,
			run: map[string]string{"getsubids builder": "0: builder 100000 65536\n1: builder 300000 7\n", "getsubids -g builder": "0: builder 200000 65536\n"},
		}, idshift.Caller{UID: 1001, Name: "builder", Source: "sss", UIDRanges: []idshift.Range{r(100000, 65536), r(300000, 7)},
			GIDRanges: []idshift.Range{r(200000, 65536)}}},
		{"getsubids has none", system{
			passwd: passwd, nsswitch: "subid: sss\n", uid: 4711,
			run: map[string]string{"getsubids 4711": "0: 4711 5 5\n", "getsubids -g 4711": "exit 1"},
		}, idshift.Caller{UID: 4711, Source: "sss", UIDRanges: []idshift.Range{r(5, 5)},
			Notes: []string{`getsubids -g 4711: source "sss" gives no ranges: Error fetching ranges`}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := idshift.LookupCaller(tt.sys.sources(t))
			if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
				t.Errorf("%v %s", err, diff)
			}
		})
	}
}

func TestLookupCallerErrors(t *testing.T) {
	for _, tt := range []struct {
		name string
		sys  system
		want string
	}{
		{"bad line in subuid", system{passwd: passwd, subuid: "\nbuilder:1\n", uid: 1001}, "subuid:2: "},
		{"bad line in subgid", system{passwd: passwd, subgid: "1001:1:x\n", uid: 1001}, `subgid:1: "x"`},
		{"getsubids missing", system{passwd: passwd, nsswitch: "subid: sss", uid: 1001}, "package uidmap"},
		{"getsubids broken", system{passwd: passwd, nsswitch: "subid: sss", uid: 1001, run: map[string]string{"getsubids builder": "exit 3"}}, "exit status 3"},
		{"getsubids prints something else", system{passwd: passwd, nsswitch: "subid: sss", uid: 1001, run: map[string]string{"getsubids builder": "builder 1 1\n"}},
			"unexpected line"},
		{"getsubids prints no number", system{passwd: passwd, nsswitch: "subid: sss", uid: 1001, run: map[string]string{"getsubids builder": "0: builder x 1\n"}},
			"is not a number"},
		{"getent broken", system{passwd: passwd, nsswitch: "passwd: sss", uid: 4711, run: map[string]string{"getent passwd 4711": "exit 3"}}, "look up uid 4711"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := idshift.LookupCaller(tt.sys.sources(t))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %+v, %v; want %q", c, err, tt.want)
			}
		})
	}
}

// TestLookupSelf runs with the zero Sources, as nsferry does.
func TestLookupSelf(t *testing.T) {
	t.Setenv("LOGNAME", "somebody-else")
	c, err := idshift.LookupCaller(idshift.Sources{})
	if err != nil {
		t.Fatal(err)
	}
	if c.UID != uint32(os.Getuid()) || c.GID != uint32(os.Getgid()) || os.Getuid() == 0 && c.Name != "root" {
		t.Errorf("got %+v", c)
	}
}

// TestOracleGetsubids compares with getsubids(1) on sub-id files that only a private mount namespace sees.
func TestOracleGetsubids(t *testing.T) {
	tier.Root(t, "owners and namespaces of every kind")
	tier.Program(t, "getsubids", "mount", "sh")
	const subuid = "# c\nother:1:1\nroot:300000:7\n0:100000:65536\n\nroot:5:5\n"
	const subgid = "0:200000:65536\n"
	src := system{passwd: passwd, subuid: subuid, subgid: subgid}.sources(t)
	mounted := func(argv string) []byte {
		cmd := exec.Command("sh", "-ec", fmt.Sprintf("mount --bind %s /etc/subuid; mount --bind %s /etc/subgid; exec %s", src.SubUID, src.SubGID, argv))
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", argv, err)
		}
		return out
	}
	byFile, err := idshift.LookupCaller(src)
	if err != nil {
		t.Fatal(err)
	}
	sss := system{passwd: passwd, nsswitch: "subid: sss\n", run: map[string]string{
		"getsubids root": string(mounted("getsubids root")), "getsubids -g root": string(mounted("getsubids -g root")),
	}}
	byTool, err := idshift.LookupCaller(sss.sources(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(byFile.UIDRanges) != 3 || !cmp.Equal(byFile.UIDRanges, byTool.UIDRanges) || !cmp.Equal(byFile.GIDRanges, byTool.GIDRanges) {
		t.Errorf("from the files %+v, from getsubids %+v", byFile, byTool)
	}
}
