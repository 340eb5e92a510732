package main

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/token"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/idshift/userns"
)

// TestDoctorBlames shows surroundings in which nsferry works, or half works, and wants the finding that names what is odd, with
// what to do. Where nothing works at all is TestNoWayIn's.
func TestDoctorBlames(t *testing.T) {
	rootTier(t)
	line := func(who string, first int) string { return fmt.Sprintf("%s:%d:65536\n", who, first) }
	both := func(text string) place { return place{SubUID: text, SubGID: text} }
	for _, tt := range []struct {
		name   string
		place  place
		args   []string
		id     string
		state  userns.State
		text   string // what and evidence, a regular expression
		remedy string
		exit   int
	}{
		{"all well", place{}, nil, "userns.enter", userns.StateOK, "can be entered", "", 0},
		{"range by name", place{}, nil, "subid.ranges", userns.StateOK, "sub-ids of ferryman .* 2500000000 to 2500065535", "", 0},
		{"range by uid", both(line(strconv.Itoa(placeUser), placeFirst)), nil, "subid.ranges", userns.StateOK, "2500000000 to", "", 0},
		{"two ranges", both(line("ferryman", placeFirst) + line("ferryman", placeFirst+100000)), nil, "subid.several", userns.StateNote, "first line only.*2500100000", "make the first line", 0},
		{"overlapping ranges", both(line("ferryman", placeFirst) + line("other", placeFirst+60000)), nil, "subid.overlap", userns.StateNote, `/etc/sub[ug]id:1: shares ids 2500060000 to 2500065535 with line 2, which belong to "other"`, "usermod --add-subuids 100000-165535 .* ferryman", 0},
		{"overlay", place{}, nil, "overlay", userns.StateOK, "yes", "", 0},
		{"security modules that cannot be read", place{Setup: "mkdir /tmp/none; mount --bind /tmp/none /sys/kernel/security"}, nil, "lsm", userns.StateNote, "is unknown", "mount -t securityfs", 0},
		{"SELinux", place{Setup: "mkdir /tmp/lsm; echo capability,yama,selinux >/tmp/lsm/lsm; mount --bind /tmp/lsm /sys/kernel/security"}, nil, "lsm", userns.StateNote, "whether it enforces is unknown", "ausearch", 0},
		{"AppArmor, unconfined", place{Setup: "mkdir /tmp/lsm; echo capability,apparmor >/tmp/lsm/lsm; mount --bind /tmp/lsm /sys/kernel/security"}, nil, "lsm", userns.StateOK, "AppArmor is active", "", 0},
		{"all user namespaces' ids", place{Sysctls: true}, nil, "nesting", userns.StateOK, "uid_map 0:0:4294967295", "", 0},
		{"0700 ancestor", place{Setup: "mkdir -p build; chown $U:$U build"}, []string{"build"}, "path.traverse", userns.StateNote, "cannot walk.*/tmp/home has mode 700, owner 54321:54321; inner root is 2500000000:", "nsferry grant --traverse /tmp/home/build$", 0},
		{"0700 ancestor of somebody else", place{Setup: "mkdir -p -m 0755 /tmp/a/b/c; chmod 0710 /tmp/a/b; chgrp $U /tmp/a/b; chown $U:$U /tmp/a/b/c"}, []string{"/tmp/a/b/c"}, "path.traverse", userns.StateNote, "/tmp/a/b has mode 710, owner 0:", "as root: setfacl -m u:2500000000:--x /tmp/a/b$", 0},
		{"traversable", place{Setup: "mkdir -m 0755 /tmp/open; chown $U:$U /tmp/open"}, []string{"/tmp/open/not/there/yet"}, "path.traverse", userns.StateOK, "can walk", "", 0},
		{"ramfs", place{Setup: "mkdir ram; mount -t ramfs none ram; chown $U:$U ram"}, []string{"ram"}, "path.acl", userns.StateNote, "not supported", "mount with the option acl", 0},
		{"ramfs, capabilities", place{Setup: "mkdir ram; mount -t ramfs none ram; chown $U:$U ram"}, []string{"ram"}, "path.capability", userns.StateNote, "not supported", "ping", 0},
		{"tmpfs as an overlay's", place{Setup: "mkdir -m 0755 /tmp/open; chown $U:$U /tmp/open"}, []string{"/tmp/open"}, "path.overlay", userns.StateOK, "yes", "", 0},
		{"read-only", place{Setup: "mkdir ro; chown $U:$U ro; mount --bind ro ro; mount -o remount,bind,ro ro"}, []string{"ro"}, "path.write", userns.StateProblem, "read-only file system", "may write", 4},
		{"somebody else's", place{Setup: "mkdir -m 0755 /tmp/his"}, []string{"/tmp/his"}, "path.write", userns.StateProblem, "permission denied", "may write", 4},
		{"proc", place{}, []string{"/proc"}, "path.write", userns.StateProblem, "mkdirat", "may write", 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := tt.place
			p.Do = calls(append([]string{"--json", "doctor"}, tt.args...))
			a := p.visit(t)[0]
			var r struct{ Result checkup }
			if err := json.Unmarshal([]byte(a.Stdout), &r); err != nil {
				t.Fatalf("%v\n%s%s", err, a.Stdout, a.Stderr)
			}
			all := r.Result.Findings
			for _, more := range r.Result.Paths {
				all = append(all, more...)
			}
			found := false
			for _, f := range all {
				if f.ID != tt.id {
					continue
				}
				found = true
				if f.State != tt.state || !regexp.MustCompile(tt.text).MatchString(f.What+" "+f.Evidence) || !regexp.MustCompile(tt.remedy).MatchString(f.Remedy) {
					t.Errorf("got %+v", f)
				}
				if f.State == userns.StateOK && f.Remedy != "" {
					t.Errorf("a remedy for what is in order: %+v", f)
				}
			}
			if !found || a.Exit != tt.exit {
				t.Errorf("%s: found %v, exit %d, want %d: %+v", tt.id, found, a.Exit, tt.exit, all)
			}
		})
	}
}

// TestDoctorDocumented wants every id of a finding in docs/DOCTOR.md, and in the page that tells what to do.
func TestDoctorDocumented(t *testing.T) {
	isID := regexp.MustCompile(`^(userns|subid|path|mode|map|root)\.[a-z]+(\.[a-z]+)?$|^user\.(name|lookup)$|^(newuidmap|newgidmap|nesting|lsm|overlay|proc|map|options)(\.[a-z]+)?$`)
	inCode := map[string]bool{}
	for _, s := range sources(t) {
		if s.test || s.dir != "idshift/userns" && s.dir != "ferry" {
			continue
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			if kv, ok := n.(*ast.KeyValueExpr); ok {
				if k, ok := kv.Key.(*ast.Ident); ok && k.Name == "Name" {
					return false // of a half
				}
			}
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
				if text, err := strconv.Unquote(l.Value); err == nil && isID.MatchString(text) {
					inCode[text] = true
				}
			}
			return true
		})
	}
	doc := read(t, "docs/DOCTOR.md")
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z.]+)` \\| (\\S.*) \\| (\\S.*) \\|$").FindAllStringSubmatch(doc, -1) {
		documented[m[1]] = true
	}
	for id := range inCode {
		if !documented[id] {
			t.Errorf("%s is not in docs/DOCTOR.md", id)
		}
	}
	trouble := read(t, "docs/TROUBLESHOOTING.md")
	for id := range documented {
		if !strings.Contains(trouble, "`"+id+"`") {
			t.Errorf("%s is not in docs/TROUBLESHOOTING.md", id)
		}
	}
	if len(documented) < 25 {
		t.Errorf("only %d ids are documented", len(documented))
	}
}
