package grant

import (
	"github.com/nsferry/nsferry/tier"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/idshift"
	"github.com/nsferry/nsferry/idshift/userns"
)

// Each test here shows first what mkdir, setfacl and grep do, as create_chroot_parent_dir and its like in the first rootless
// patch of Isar call them, and then what Grant does in the same place.

const oldGrant = `mkdir -p dir/sub; setfacl -m u:$B:rwX dir/sub`

func TestClosedAncestor(t *testing.T) {
	w := newWorld(t)
	w.sh(`mkdir -m 0700 dir; ` + oldGrant)
	if w.inner(0, "touch dir/sub/x") {
		t.Fatal("the old way works: this test shows nothing")
	}
	w.sh("rm -r dir; mkdir -m 0700 dir")
	before := w.snapshot("dir")

	_, err := w.grant(Options{}, "dir/sub")
	if err == nil || !strings.Contains(err.Error(), "cannot search "+w.path("dir")+",") || !strings.Contains(err.Error(), "--traverse") {
		t.Fatalf("got %v, want the first closed directory and the flag", err)
	}
	if after := w.snapshot("dir"); after != before || w.sh("ls dir") != "" {
		t.Errorf("refused, and yet changed:\n%s", after)
	}

	w.mustGrant(Options{Traverse: true}, "dir/sub")
	if !w.inner(0, "touch dir/sub/x && rm dir/sub/x") {
		t.Error("inner root cannot use the granted directory")
	}
	if w.inner(0, "ls dir") || w.inner(0, "touch dir/x") {
		t.Error("--traverse let inner root do more than search the directory above")
	}
	if h := w.holds("dir/sub"); !h.Holds || !h.Record {
		t.Errorf("check: %+v", h)
	}
	w.revoke("dir/sub")
	if after := w.snapshot("dir"); after != before || w.sh("ls dir") != "" || w.records() != 0 {
		t.Errorf("revoked, before:\n%s\nafter:\n%s", before, after)
	}
}

func TestChmodAfterGrant(t *testing.T) {
	w := newWorld(t)
	w.sh(oldGrant + "; chmod g-w dir/sub; getfacl -n dir/sub | grep -q user:$B:rwx") // as if all were well
	if w.inner(0, "touch dir/sub/x") {
		t.Fatal("the old grant survives chmod: this test shows nothing")
	}
	w.sh("rm -r dir; mkdir -p dir/sub")
	before := w.snapshot("dir/sub")
	w.mustGrant(Options{}, "dir/sub")
	w.sh("chmod g-w dir/sub")
	h := w.holds("dir/sub")
	if h.Holds || len(h.Broken) != 1 || !strings.Contains(h.Broken[0], "the mask cuts it to r-x: a chmod") {
		t.Errorf("check: %+v", h)
	}
	w.mustGrant(Options{}, "dir/sub")
	if !w.inner(0, "touch dir/sub/x && rm dir/sub/x") || !w.holds("dir/sub").Holds {
		t.Error("granting again does not mend it")
	}
	w.revoke("dir/sub")
	if after := w.snapshot("dir/sub"); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// What setfacl gives, setfacl -x does not take back: mask and group bits stay.
func TestNeverRevoked(t *testing.T) {
	w := newWorld(t)
	w.sh("mkdir dir; chmod 2750 dir; setfacl -m u:12345:rwx,m::r-x dir")
	before := w.snapshot("dir")
	w.sh("setfacl -m u:$B:rwX dir; setfacl -x u:$B dir")
	if w.snapshot("dir") == before {
		t.Fatal("setfacl restores it: this test shows nothing")
	}
	if !strings.Contains(w.sh("getfacl -cn dir"), "user:12345:rwx\n") {
		t.Fatal("setfacl kept the mask: this test shows nothing")
	}
	w.sh("setfacl -b dir; chmod 2750 dir; setfacl -m u:12345:rwx,m::r-x dir")
	w.mustGrant(Options{}, "dir")
	if text := w.sh("getfacl -cn dir"); !strings.Contains(text, "user:12345:r-x\n") {
		t.Errorf("somebody else has gained by the grant:\n%s", text)
	}
	w.revoke("dir")
	if after := w.snapshot("dir"); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if r := w.revoke("dir"); r.Changes[0].What != "was never granted, or is revoked already" {
		t.Errorf("the second time: %v", r)
	}
}

// The compiler cache: subdirectories that one of the two ids makes are closed to the other.
func TestCache(t *testing.T) {
	w := newWorld(t)
	tier.Program(t, "setpriv")
	w.sh(`mkdir old; setfacl -m u:$B:rwX -m u:$((B+999)):rwx old`)
	if !w.inner(999, "mkdir old/a") || w.inner(1000, "touch old/x") {
		t.Fatal("the old way does not even open the directory itself")
	}
	if w.inner(999, "umask 022; mkdir old/b") && !w.inner(0, "setpriv --bounding-set=-all --inh-caps=-all true") {
		t.Log("no bounding set here")
	}
	if !w.inner(0, "mkdir -m 0755 old/root") || w.inner(999, "touch old/root/x") {
		t.Fatal("the old way opens subdirectories: this test shows nothing")
	}
	w.mustGrant(Options{AlsoIDs: []uint32{999}, Default: true}, "new")
	if !w.inner(0, "umask 022; mkdir new/root && touch new/root/f") || !w.inner(999, "touch new/root/x && mkdir new/sbuild && echo hello >>new/root/f") {
		t.Error("a subdirectory of the cache is closed to inner id 999")
	}
	if h := w.holds("new"); !h.Holds {
		t.Errorf("check: %+v", h)
	}
	w.sh("setfacl -k new")
	if h := w.holds("new"); h.Holds || !strings.Contains(h.Broken[0], "the default ACL") {
		t.Errorf("check without the default ACL: %+v", h)
	}
	w.inner(0, "rm -r old/* new/*")
}

// Sub-id lookup by an unanchored grep takes joanna's range for ann's; by text compared with a number, none.
func TestLookup(t *testing.T) {
	w := newWorld(t)
	w.sh(`printf 'joanna:200000:65536\n\n# ann had 1:1 once\nann:300000:65536\n1234:400000:65536\n' >subid
		printf 'joanna:x:1233:1233::/:/bin/sh\nann:x:1234:1234::/:/bin/sh\n' >passwd; : >nsswitch`)
	if got := w.sh(`grep ann subid | cut -d: -f2`); got != "200000\n1 once\n300000\n" {
		t.Fatalf("grep finds %q: this test shows nothing", got)
	}
	if got := w.sh(`awk -F: -v u=1234 '$1 == "ann" { print $2; exit }' subid`); got != "300000\n" {
		t.Fatal(got)
	}
	w.firstPatchLookup()
	for _, tt := range []struct{ file, want string }{{"subid", "300000"}, {"keyed", "400000"}} {
		w.sh("grep ^1234 subid >keyed")
		src := idshift.Sources{Passwd: w.path("passwd"), SubUID: w.path(tt.file), SubGID: w.path(tt.file), NSSwitch: w.path("nsswitch"),
			IDs: func() (uint32, uint32) { return 1234, 1234 }}
		e, err := userns.NewEnv(userns.Options{Mode: "unshare", System: userns.System{Sources: src}})
		if err != nil {
			t.Fatal(err)
		}
		r, err := Grant(t.Context(), e, []string{w.path("for-" + tt.file)}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Changes[1].ACL; !strings.Contains(got, ",u:"+tt.want+":rwx,") {
			t.Errorf("%s: granted %s, want %s", tt.file, got, tt.want)
		}
	}
}

// firstPatchLookup runs get_subid_range of the first patch, which is Python, with the names of this test in place of os.getlogin.
func (w *world) firstPatchLookup() {
	w.Helper()
	tier.Program(w.T, "python3", "setsid")
	script := func(login, file string) string {
		return `setsid python3 -c '
import os, sys
def get_subid_range(idmap):
    for e in open(idmap).readlines():
        user, base, cnt = e.split(":")
        if user == 1234 or user == ` + login + `:
            return base
try: print(get_subid_range("` + file + `"))
except Exception as e: print(type(e).__name__)' </dev/null 2>&1`
	}
	w.sh("printf '1234:400000:65536\n' >uid; printf 'joanna:200000:65536\nann:300000:65536\n' >plain")
	for _, tt := range []struct{ what, login, file, want string }{
		{"where all is well", `"ann"`, "plain", "300000\n"},
		{"a blank line", `"ann"`, "subid", "ValueError\n"},
		{"a line keyed by uid: text is compared with a number", `"ann"`, "uid", "None\n"},
		{"no terminal, as in CI", "os.getlogin()", "plain", "OSError\n"},
	} {
		if got := w.sh(script(tt.login, tt.file)); got != tt.want {
			w.Errorf("%s: the first patch finds %q, want %q: this test shows nothing", tt.what, got, tt.want)
		}
	}
}

// Security finding (a): a default ACL above a rootfs ends up in it, where cp -a cannot keep it. (b): on a directory of
// packages it makes those of tomorrow writable for inner root.
func TestInheritable(t *testing.T) {
	w := newWorld(t)
	w.sh(`mkdir -p old dl/deb/debian-trixie; setfacl -d -m u:$(id -u):rwx,u:$B:rwx old; setfacl -m u:$B:rwx old; umask 022; echo deb >dl/deb/debian-trixie/a_1_all.deb`)
	if !w.inner(0, "mkdir -p old/rootfs/etc old/rootfs/usr old/rootfs/var; echo x >old/rootfs/etc/f") {
		t.Fatal("cannot make a tree")
	}
	if text := w.sh("getfacl -cn old/rootfs/etc/f"); !strings.Contains(text, "user:"+uid(w)+":") {
		t.Fatalf("nothing is inherited: this test shows nothing\n%s", text)
	}
	if w.inner(0, "cp -a old/rootfs/etc /dev/shm/nsferry-test.$$; s=$?; rm -rf /dev/shm/nsferry-test.$$; exit $s") {
		t.Fatal("cp -a keeps the inherited entries: this test shows nothing")
	}
	w.sh("setfacl -d -m u:$B:rwx dl/deb/debian-trixie; setfacl -m u:$B:x dl/deb/debian-trixie; umask 022; echo deb >dl/deb/debian-trixie/b_1_all.deb; setfacl -m m::rwx dl/deb/debian-trixie/b_1_all.deb")
	if !w.inner(0, "echo evil >dl/deb/debian-trixie/b_1_all.deb") {
		t.Fatal("inner root cannot rewrite the package: this test shows nothing")
	}
	w.sh("setfacl -bk old dl/deb/debian-trixie")

	for _, tt := range []struct {
		name, want string
		force      Force
	}{
		{"old", "rootfs", ForceInheritable}, {"old/rootfs/var/cache", "it is in the rootfs", ForceInheritable},
		{"dl", ".deb is in it", ForceDebs}, {"dl/deb/debian-trixie", "its name says", ForceDebs}, {"empty/deb", "its name says", ForceDebs},
	} {
		before := w.snapshot("old", "old/rootfs", "dl")
		_, err := w.grant(Options{Default: true}, tt.name)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "--force="+string(tt.force)) {
			t.Errorf("%s: got %v", tt.name, err)
		}
		if w.snapshot("old", "old/rootfs", "dl") != before || w.records() != 0 {
			t.Errorf("%s: refused, and yet changed", tt.name)
		}
	}
	w.mustGrant(Options{}, "old", "dl") // without a default ACL there is no harm
	w.mustGrant(Options{Default: true, Force: []Force{ForceInheritable}}, "old")
	w.mustGrant(Options{Default: true, Force: []Force{ForceDebs}}, "dl")
	w.revoke("old", "dl")
	w.inner(0, "rm -r old/rootfs")
}

func uid(w *world) string { return strings.TrimSpace(w.sh("id -u")) }
