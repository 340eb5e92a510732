package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nsferry/nsferry/idshift/userns"
)

// entering are commands that need a namespace, and would leave something if they did half their work.
var entering = [][]string{
	{"unpack", "good.tar", "new"},
	{"pack", "tree", "-o", "new.tar.zst"},
	{"ls", "tree"},
	{"diff", "tree", "good.tar"},
	{"rm", "tree"},
	{"run", "--", "/bin/true"},
	{"run", "--rootfs", "tree", "--", "/bin/true"},
	{"run", "--rootfs", "tree", "--bind", "/etc:/mnt/etc", "--apt", "--", "/bin/true"},
}

func calls(all ...[]string) (list []placeCall) {
	for _, args := range all {
		list = append(list, placeCall{Args: args})
	}
	return list
}

// fakeKernel puts other values over kernel sysctls: they are not of any namespace, and must not change for others.
func fakeKernel(name, value string) string {
	return fmt.Sprintf(`mkdir /tmp/kernel
for f in cap_last_cap pid_max threads-max overflowuid overflowgid; do cat /proc/sys/kernel/$f >/tmp/kernel/$f; done
echo %s >/tmp/kernel/%s
mount --bind /tmp/kernel /proc/sys/kernel
`, value, name)
}

// TestNoWayIn calls every command that needs a namespace where there is none to be had: exit status 4, one message with the
// cause and what to do, nothing changed; and doctor names the same.
func TestNoWayIn(t *testing.T) {
	rootTier(t)
	var few = func(n int) string { return fmt.Sprintf("ferryman:%d:%d\n", placeFirst, n) }
	copies := `mkdir /tmp/tools; for p in newuidmap newgidmap; do cp "$(command -v $p)" /tmp/tools; done; chmod 0755 /tmp/tools/*`
	for _, tt := range []struct {
		name    string
		place   place
		message string // of the error, a regular expression
		remedy  string // likewise
		id      string // of doctor's finding
	}{
		{"no range", place{SubUID: "-", SubGID: "-"}, `no sub-uids and no sub-gids`, `/etc/subuid: ferryman:100000:65536; .*/etc/subgid: ferryman:100000:65536`, "subid.range"},
		{"ranges of others", place{SubUID: "ferry:1000000:65536\nferrymanx:2000000:65536\n5432:3000000:65536\n", SubGID: "-"}, `no sub-uids and no sub-gids`, `/etc/subuid: ferryman:`, "subid.range"},
		{"only subuid", place{SubGID: "-"}, `no sub-gids`, `/etc/subgid: ferryman:100000:65536`, "subid.range"},
		{"only subgid", place{SubUID: "-"}, `no sub-uids`, `/etc/subuid: ferryman:100000:65536`, "subid.range"},
		{"range of one", place{SubUID: few(1), SubGID: few(1)}, `1 sub-uids are too few`, `/etc/subuid: ferryman:`, "subid.range"},
		{"range of none", place{SubUID: few(0), SubGID: few(0)}, `/etc/subuid:1: a range of 0 ids`, `/etc/subuid`, "user.lookup"},
		{"garbled file", place{SubUID: "ferryman:many:65536\n"}, `subuid`, `subuid`, ""},
		{"uid without a name", place{SubUID: "54321:2500000000:65536\n", SubGID: "54321:2500000000:65536\n", Setup: "grep root /etc/passwd >/tmp/p; cat /tmp/p >/etc/passwd"}, `uid 54321 has no name`, `line for uid 54321 to /etc/passwd`, "user.name"},
		{"newuidmap missing", place{Env: []string{"PATH=/nowhere"}}, `newuidmap is not installed`, `apt-get install uidmap`, "newuidmap.missing"},
		{"newuidmap without setuid", place{Setup: copies, Env: []string{"PATH=/tmp/tools"}}, `newuidmap has no privilege`, `chmod 4755 /tmp/tools/newuidmap`, "newuidmap.privilege"},
		{"newgidmap without setuid", place{Setup: copies + "\nchmod 4755 /tmp/tools/newuidmap", Env: []string{"PATH=/tmp/tools"}}, `newgidmap has no privilege`, `chmod 4755 /tmp/tools/newgidmap`, "newgidmap.privilege"},
		{"nosuid", place{Setup: copies + "\nchmod 4755 /tmp/tools/*; mount --bind /tmp/tools /tmp/tools; mount -o remount,bind,nosuid /tmp/tools", Env: []string{"PATH=/tmp/tools"}}, `mounted nosuid`, `nosuid`, "newuidmap.privilege"},
		{"max_user_namespaces", place{Sysctls: true, Setup: "echo 0 >/proc/sys/user/max_user_namespaces"}, `user.max_user_namespaces forbids`, `sysctl --system`, "userns.sysctl.max"},
		{"max_mnt_namespaces", place{Sysctls: true, Setup: "echo 0 >/proc/sys/user/max_mnt_namespaces"}, `user.max_mnt_namespaces forbids`, `user.max_mnt_namespaces = 15000`, "userns.sysctl.mnt"},
		{"unprivileged_userns_clone", place{NoUserNS: true, Setup: fakeKernel("unprivileged_userns_clone", "0")}, `lets only root make user namespaces`, `kernel.unprivileged_userns_clone = 1`, "userns.sysctl.clone"},
		{"apparmor_restrict_unprivileged_userns", place{NoUserNS: true, Setup: fakeKernel("apparmor_restrict_unprivileged_userns", "1")}, `AppArmor restricts user namespaces`, `apparmor_parser -r /etc/apparmor.d/nsferry`, "userns.apparmor"},
		{"no_new_privs", place{NoNewPrivs: true}, `no_new_privs is set`, `setpriv --no-new-privs`, "userns.nnp"},
		{"seccomp", place{NoUserNS: true}, `system call filter forbids user namespaces`, `seccomp=unconfined`, "userns.seccomp"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := tt.place
			p.Do = append(calls(entering...), placeCall{Args: []string{"--json", "doctor", "."}}, placeCall{Args: []string{"doctor", "."}})
			answers := p.visit(t)
			for i, args := range entering {
				a := answers[i]
				checkRefusal(t, strings.Join(args, " "), a, userns.ExitEnvironment, tt.message)
				if !regexp.MustCompile(`(?m)^nsferry: remedy: .*` + tt.remedy).MatchString(a.Stderr) {
					t.Errorf("%v: no remedy %q:\n%s", args, tt.remedy, a.Stderr)
				}
				if strings.Count(a.Stderr, "remedy:") != 1 {
					t.Errorf("%v: %d remedies:\n%s", args, strings.Count(a.Stderr, "remedy:"), a.Stderr)
				}
			}
			checkDoctor(t, answers[len(entering)], tt.id, tt.remedy)
			if text := answers[len(entering)+1]; text.Exit != userns.ExitEnvironment || !strings.Contains(text.Stdout, "remedy: ") {
				t.Errorf("doctor for people: status %d\n%s%s", text.Exit, text.Stdout, text.Stderr)
			}
		})
	}
}

// checkRefusal demands an exit status, one message that matches, and that nothing has changed.
func checkRefusal(t *testing.T, what string, a placeAnswer, status int, message string) {
	t.Helper()
	if a.Exit != status || !regexp.MustCompile(message).MatchString(a.Stderr) {
		t.Errorf("%s: status %d, want %d and %q\n%s%s", what, a.Exit, status, message, a.Stdout, a.Stderr)
	}
	if n := strings.Count(a.Stderr, "nsferry: ") - strings.Count(a.Stderr, "nsferry: remedy: ") - strings.Count(a.Stderr, "nsferry:   "); n != 1 {
		t.Errorf("%s: %d messages:\n%s", what, n, a.Stderr)
	}
	if d := cmp.Diff(a.Before, a.After); d != "" {
		t.Errorf("%s: half done (-before +after):\n%s", what, d)
	}
}

// checkDoctor demands that doctor finds the problem id with the remedy, and exits as the commands do.
func checkDoctor(t *testing.T, a placeAnswer, id, remedy string) {
	t.Helper()
	var r struct {
		Exit   int
		Result checkup
	}
	if err := json.Unmarshal([]byte(a.Stdout), &r); err != nil {
		t.Fatalf("doctor: %v\n%s%s", err, a.Stdout, a.Stderr)
	}
	if a.Exit != userns.ExitEnvironment || r.Exit != a.Exit {
		t.Errorf("doctor: status %d, reported %d", a.Exit, r.Exit)
	}
	if d := cmp.Diff(a.Before, a.After); d != "" {
		t.Errorf("doctor changed something (-before +after):\n%s", d)
	}
	var all []userns.Finding
	all = append(all, r.Result.Findings...)
	for _, more := range r.Result.Paths {
		all = append(all, more...)
	}
	if !slices.ContainsFunc(all, func(f userns.Finding) bool {
		return f.State == userns.StateProblem && (id == "" || f.ID == id) && regexp.MustCompile(remedy).MatchString(f.Remedy)
	}) {
		t.Errorf("doctor does not tell %s with remedy %q: %+v", id, remedy, all)
	}
}
