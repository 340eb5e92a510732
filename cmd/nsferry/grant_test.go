package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/grant"
)

// TestGrantWithoutACLs is the filesystem on which setfacl only fails: nothing is granted but by a change of owner that was
// asked for, and that goes back.
func TestGrantWithoutACLs(t *testing.T) {
	rootTier(t)
	p := place{Setup: `chmod 0711 /tmp/home; mkdir ram; mount -t ramfs none ram; chown $U:$U ram; chmod 0755 ram
if setfacl -m u:$U:rwX ram 2>/dev/null; then exit 1; fi`}
	p.Do = calls(
		[]string{"grant", "ram/a/b"},
		[]string{"grant", "--or-take", "--default", "ram/a"},
		[]string{"grant", "--or-take", "--also-id", "999", "ram/a"},
		[]string{"grant", "--or-take", "ram/a"},
		[]string{"run", "--", "touch", "/tmp/home/ram/a/x"},
		[]string{"--json", "grant", "--check", "ram/a"},
		[]string{"grant", "--or-take", "ram/a"},
		[]string{"run", "--", "rm", "/tmp/home/ram/a/x"},
		[]string{"revoke", "ram/a"},
	)
	a := p.visit(t)
	for i, want := range []string{"--or-take inner root becomes the owner", "neither for --default nor for --also-id", "neither for --default nor for --also-id"} {
		if a[i].Exit != 1 || !strings.Contains(a[i].Stderr, want) || inRam(a[i].After) != "" {
			t.Errorf("%v: exit %d, %s\n%q", p.Do[i].Args, a[i].Exit, a[i].Stderr, inRam(a[i].After))
		}
	}
	for i := 3; i < len(a); i++ {
		if a[i].Exit != 0 {
			t.Errorf("%v: exit %d, %s%s", p.Do[i].Args, a[i].Exit, a[i].Stdout, a[i].Stderr)
		}
	}
	if !strings.Contains(a[3].Stderr, "taken: its owner is now inner root (2500000000 outside)") || !strings.Contains(a[6].Stderr, "already inner root's") {
		t.Errorf("the change of owner is not told: %s%s", a[3].Stderr, a[6].Stderr)
	}
	var r struct{ Result []grant.Holding }
	if err := json.Unmarshal([]byte(a[5].Stdout), &r); err != nil || len(r.Result) != 1 || !r.Result[0].Holds {
		t.Errorf("check: %v %+v", err, r)
	}
	if left := inRam(a[8].After); left != "" {
		t.Errorf("after revoke there is still %s", left)
	}
}

func inRam(listing []string) string {
	for _, line := range listing {
		if strings.Contains(line, "ram/") {
			return line
		}
	}
	return ""
}

// TestGrantAboveStranger names a directory that is closed and not the caller's: nothing he could do by a flag.
func TestGrantAboveStranger(t *testing.T) {
	rootTier(t)
	p := place{Setup: "mkdir -m 0710 /tmp/his; chgrp $U /tmp/his; mkdir /tmp/his/mine; chown $U:$U /tmp/his/mine",
		Do: calls([]string{"grant", "--traverse", "/tmp/his/mine/new"})}
	a := p.visit(t)[0]
	if a.Exit != 1 || !strings.Contains(a.Stderr, "cannot search /tmp/his,") || !strings.Contains(a.Stderr, "as root: setfacl -m u:2500000000:--x /tmp/his") {
		t.Errorf("exit %d: %s", a.Exit, a.Stderr)
	}
}

// TestAuditWhatFindCannotTell is row by row what clean-up by "find ! -user" sees, a list of paths, and what audit says of the
// same tree: whose each is in each model, and what removes all of it.
func TestAuditWhatFindCannotTell(t *testing.T) {
	rootTier(t)
	p := place{Setup: `mkdir -m 0700 build; mkdir -p build/tmp.sbuild.aB1/etc build/rootfs/etc build/rootfs/usr build/rootfs/var/cache/apt/archives
chmod 0777 build/rootfs/var/cache/apt/archives; chmod 0700 build/tmp.sbuild.aB1
chown -R $((2500000000)):$((2500000000)) build/*; chown $((2500000033)) build/rootfs/etc; chown $U:$U build build/rootfs/var
found=$(setpriv --reuid=$U --regid=$U --clear-groups find build ! -user $U 2>/dev/null | wc -l)
[ "$found" = 7 ] # the closed one's inside is missing, and no line says whose it is
if setpriv --reuid=$U --regid=$U --clear-groups rm -rf build/tmp.sbuild.aB1 2>/dev/null; then exit 1; fi`}
	p.Do = calls([]string{"audit", "build"}, []string{"du", "--bytes", "build"}, []string{"rm", "build"})
	a := p.visit(t)
	if a[0].Exit != 1 {
		t.Errorf("audit: exit %d %s", a[0].Exit, a[0].Stderr)
	}
	for _, want := range []string{"uid 2500000033  sub-id         1 inodes", "base 33", "uid 54321       caller         2 inodes",
		"/tmp/home/build/tmp.sbuild.aB1: a chroot that sbuild has left  [leftover.sbuild]", "mend: nsferry rm /tmp/home/build/tmp.sbuild.aB1",
		"rootfs/var: it belongs to you, within a rootfs  [owner.caller]", "archives: everybody may write", "mend: nsferry run --rootfs /tmp/home/build/rootfs -- chmod o-w /var/cache/apt/archives"} {
		if !strings.Contains(a[0].Stdout, want) {
			t.Errorf("audit does not say %q:\n%s", want, a[0].Stdout)
		}
	}
	if a[1].Exit != 0 || a[2].Exit != 0 {
		t.Errorf("du: %d %s, rm: %d %s", a[1].Exit, a[1].Stderr, a[2].Exit, a[2].Stderr)
	}
}
