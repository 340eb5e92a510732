package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/idshift/userns/usernstest"
	"github.com/nsferry/nsferry/tier"
)

func TestMain(m *testing.M) {
	userns.Main(Halves()...)
	os.Exit(m.Run())
}

// world is a directory of the caller's in which two sides work.
type world struct {
	*testing.T
	env  *userns.Env
	dir  string
	base uint32
}

func newWorld(t *testing.T) *world {
	t.Helper()
	tier.Program(t, "setfacl", "setcap", "du")
	e, dir := usernstest.Base(t)
	w := &world{T: t, env: e, dir: dir}
	w.base, _ = e.Plain.UID.ToOutside(0)
	w.sh("mkdir in; chmod 0777 in")
	t.Cleanup(func() { w.inner("rm -rf in/* in/.[a-z]*") })
	return w
}

// sh runs a script of the caller's.
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

// inner runs a script as inner root.
func (w *world) inner(script string) {
	w.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		w.Fatal(err)
	}
	defer null.Close()
	code, err := w.env.Exec(context.Background(), userns.Spec{Argv: []string{"/bin/sh", "-euc", "umask 022; cd " + w.dir + "; " + script}, Stdin: null, Stdout: null})
	if err != nil || code != 0 {
		w.Fatalf("inner: %s: exit %d, %v", script, code, err)
	}
}

func (w *world) audit() Report {
	w.Helper()
	r, err := Audit(context.Background(), w.env, w.dir, Options{})
	if err != nil {
		w.Fatal(err)
	}
	return r
}

// told lists findings as "id path", sorted.
func (w *world) told(r Report) []string {
	told := []string{}
	for _, f := range r.Findings {
		rel, err := filepath.Rel(w.dir, f.Path)
		if err != nil || f.What == "" || f.Why == "" || f.Mend == "" {
			w.Errorf("%v: incomplete: %+v", err, f)
		}
		told = append(told, f.ID+" "+rel)
	}
	slices.Sort(told)
	return told
}

const makeRootfs = "mkdir -p in/rootfs/etc in/rootfs/usr/bin in/rootfs/var/cache/apt/archives; echo x >in/rootfs/etc/f; "

func TestCleanTree(t *testing.T) {
	w := newWorld(t)
	w.inner(makeRootfs + "chmod 0700 in/rootfs; mkdir -m 1777 in/rootfs/tmp; cp /bin/true in/rootfs/usr/bin/su; chmod 4755 in/rootfs/usr/bin/su; setcap cap_net_raw+ep in/rootfs/usr/bin/su; chown 33:33 in/rootfs/etc/f; setfacl -m u:5:r in/rootfs/etc/f; chown 65534:65534 in/rootfs/var/cache")
	w.sh("chmod 1777 in")
	r := w.audit()
	if got := w.told(r); len(got) > 0 || r.Problems != 0 {
		t.Errorf("nothing is wrong, and yet: %q", got)
	}
	if diff := cmp.Diff([]Rootfs{{w.dir + "/in/rootfs", "base"}}, r.Trees); diff != "" {
		t.Error(diff)
	}
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
}

// Who owns what: the numbers are those that find -uid gives from outside, the inner ids those of the map.
func TestOwners(t *testing.T) {
	w := newWorld(t)
	w.inner(makeRootfs + "chown 33:34 in/rootfs/etc/f; ln in/rootfs/etc/f in/rootfs/usr/g; chown 65534:65534 in/rootfs/var/cache")
	w.sh("touch mine; ln -s mine link")
	got := map[string]Owner{}
	for _, o := range w.audit().Owners {
		got[o.Kind+strconv.Itoa(int(o.ID))] = o
	}
	for _, tt := range []struct {
		kind  string
		id    uint32
		who   Class
		inner uint32
	}{{"uid", w.base, SubID, 0}, {"uid", w.base + 33, SubID, 33}, {"gid", w.base + 34, SubID, 34}, {"uid", w.base + 65534, SubID, 65534}, {"uid", uint32(os.Getuid()), Caller, 0}} {
		key := tt.kind + strconv.Itoa(int(tt.id))
		o, ok := got[key]
		if tt.kind == "uid" {
			want := w.sh(fmt.Sprintf("find . -uid %d -printf '%%i\n' 2>/dev/null | sort -u | wc -l", tt.id))
			if strings.TrimSpace(want) != strconv.FormatInt(o.Inodes, 10) {
				t.Errorf("%s: %d inodes, find says %s", key, o.Inodes, want)
			}
		}
		if !ok || o.Who != tt.who {
			t.Errorf("%s: %+v", key, o)
		}
		if in, ok := o.Inside["base"]; os.Getuid() != 0 && tt.who == SubID && (!ok || in != tt.inner) {
			t.Errorf("%s: inside %v", key, o.Inside)
		}
	}
}

// Every finding, beside what the tools of today say of it: nothing, for find -perm and getfacl do not know whose ids are whose.
func TestFindings(t *testing.T) {
	caller := os.Getuid()
	for _, tt := range []struct {
		name, inner, sh string
		want            []string
		problems        int64
	}{
		{"caller's files in a rootfs", makeRootfs + "chmod 0777 in/rootfs/etc", "echo mine >in/rootfs/etc/mine; mkdir in/rootfs/etc/dir", []string{"mode.world in/rootfs/etc", "owner.caller in/rootfs/etc/dir", "owner.caller in/rootfs/etc/mine"}, 3},
		{"the archives that deb_dl_dir_import leaves", makeRootfs + "chmod 777 in/rootfs/var/cache/apt/archives", "", []string{"mode.world in/rootfs/var/cache/apt/archives"}, 1},
		{"the packages that it links there", makeRootfs + "chmod 777 in/rootfs/var/cache/apt/archives", "mkdir dl; echo deb >dl/a_1_all.deb; find dl -name '*.deb' -exec ln -t in/rootfs/var/cache/apt/archives/ {} +",
			[]string{"link.outside in/rootfs/var/cache/apt/archives/a_1_all.deb", "mode.world in/rootfs/var/cache/apt/archives", "owner.caller in/rootfs/var/cache/apt/archives/a_1_all.deb"}, 3},
		{"hard links within a rootfs", makeRootfs + "ln in/rootfs/etc/f in/rootfs/usr/g", "", []string{}, 0},
		{"setuid and setgid", makeRootfs + "cd in/rootfs/usr/bin; for f in su sg both not; do cp /bin/true $f; done; chmod 4755 su; chmod 2755 sg; chmod 6755 both; chmod 4700 not; chown 0:42 sg; chmod 2755 sg", "",
			[]string{"setid.reachable in/rootfs/usr/bin/both", "setid.reachable in/rootfs/usr/bin/sg", "setid.reachable in/rootfs/usr/bin/su"}, 3},
		{"setuid in a closed tree, and its open other name", makeRootfs + "chmod 0700 in/rootfs; cp /bin/true in/rootfs/usr/bin/su; chmod 4755 in/rootfs/usr/bin/su; ln in/rootfs/usr/bin/su in/zz", "", []string{"link.outside in/rootfs/usr/bin/su", "setid.reachable in/zz"}, 2},
		{"setuid behind a directory open to one user", makeRootfs + "chmod 0700 in/rootfs; cp /bin/true in/rootfs/usr/bin/su; chmod 4755 in/rootfs/usr/bin/su", "", []string{}, 0},
		{"entries for the caller, inherited", "", "setfacl -d -m u:$(id -u):rwx,o::rx in", []string{}, 0},
		{"partial trees", "mkdir -p in/.rootfs.partial-0123abcd/etc in/.rootfs.partial-0123abcd/usr in/.rootfs.partial-0123abcd/bin; chmod 0777 in/.rootfs.partial-0123abcd/etc", "touch .a.tar.zst.partial-0a0b", []string{"leftover.partial .a.tar.zst.partial-0a0b", "leftover.partial in/.rootfs.partial-0123abcd"}, 2},
		{"what sbuild and mmdebstrap leave", "mkdir -p -m 0700 in/tmp.sbuild.aB3x in/tmp.sbuild.lhAd_VDB_q in/mmdebstrap.k3jd9_2kdL in/mmdebstrap.conf", "", []string{"leftover.mmdebstrap in/mmdebstrap.k3jd9_2kdL", "leftover.sbuild in/tmp.sbuild.aB3x", "leftover.sbuild in/tmp.sbuild.lhAd_VDB_q"}, 3},
		{"mount stubs", makeRootfs + "mkdir in/rootfs/isar-apt; setfattr -n user.nsferry.placeholder -v 1 in/rootfs/isar-apt", "", []string{"mount.stub in/rootfs/isar-apt"}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			if tt.inner != "" {
				w.inner(tt.inner)
			}
			if tt.sh != "" {
				w.sh(tt.sh)
			}
			w.sh("chmod +t in")
			r := w.audit()
			if diff := cmp.Diff(tt.want, w.told(r)); diff != "" || r.Problems != tt.problems {
				t.Errorf("%d problems, want %d (caller %d)\n%s\n%+v", r.Problems, tt.problems, caller, diff, r.Findings)
			}
		})
	}
}

// A symlink on the command line leads to the tree, as for find(1) with a slash behind it; those in the tree are not followed.
func TestSymlink(t *testing.T) {
	w := newWorld(t)
	w.sh("mkdir -m 0777 world out; mkdir -m 0777 out/far; chmod 0755 out; ln -s world link; ln -s ../out world/up; ln -s nowhere dangling")
	for _, name := range []string{"link", "world"} {
		r, err := Audit(context.Background(), w.env, filepath.Join(w.dir, name), Options{})
		if err != nil || r.Problems != 1 || r.Inodes != 2 {
			t.Errorf("%s: %v %+v", name, err, r)
		}
	}
	for _, name := range []string{"dangling", "missing"} {
		if _, err := Audit(context.Background(), w.env, filepath.Join(w.dir, name), Options{}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What audit says to type closes the tree to others, and leaves a grant on the directory as it is.
func TestMendKeepsGrant(t *testing.T) {
	w := newWorld(t)
	w.sh("setfacl -m u:$B:rwx .")
	w.inner("cp /bin/true in/su; chmod 4755 in/su")
	w.sh("chmod +t in")
	r := w.audit()
	if len(r.Findings) != 1 || r.Findings[0].ID != "setid.reachable" {
		t.Fatalf("%+v", r.Findings)
	}
	w.sh(r.Findings[0].Mend)
	if r = w.audit(); r.Problems != 0 {
		t.Errorf("still: %+v", r.Findings)
	}
	w.inner("touch granted; rm granted")
}

// Security finding (a), as audit sees it afterwards: a default ACL above, and what the tree has inherited from it.
func TestInheritedACL(t *testing.T) {
	w := newWorld(t)
	w.sh("setfacl -d -m u:$(id -u):rwx,o::rx in")
	w.inner(makeRootfs)
	r := w.audit()
	got := w.told(r)
	for _, want := range []string{"acl.inheritable in", "acl.caller in/rootfs/etc", "acl.caller in/rootfs/etc/f"} {
		if !slices.Contains(got, want) {
			t.Errorf("%q is missing in %q", want, got)
		}
	}
	if n := len(r.Findings); n < 5 {
		t.Fatalf("%d findings", n)
	}
	few, err := Audit(context.Background(), w.env, w.dir, Options{Most: 2})
	if err != nil || few.Problems != r.Problems || few.More["acl.caller"] == 0 {
		t.Errorf("%v: bounded: %+v", err, few)
	}
}

// Row 7 of what is moved today: the import hard-links the user's packages into the rootfs. In the model caller they belong to
// inner root there, who rewrites the cache; audit names them, and its remedy keeps both apart.
func TestHardLinkedCache(t *testing.T) {
	tier.User(t, "the caller's own files")
	tier.Program(t, "busybox")
	w := newWorld(t)
	var err error
	if w.env, err = userns.NewEnv(userns.Options{Model: "caller"}); err != nil {
		t.Fatal(err)
	}
	w.inner(makeRootfs + "chmod 777 in/rootfs/var/cache/apt/archives; chmod +t in; mkdir in/rootfs/bin; cp /bin/busybox in/rootfs/bin; for f in sh cp mv; do ln -s busybox in/rootfs/bin/$f; done")
	w.sh("mkdir dl; echo deb >dl/a_1_all.deb; ln dl/a_1_all.deb in/rootfs/var/cache/apt/archives/")
	w.inner("echo evil >in/rootfs/var/cache/apt/archives/a_1_all.deb")
	if w.sh("cat dl/a_1_all.deb") != "evil\n" {
		t.Fatal("the cache is as it was: this test shows nothing")
	}
	r := w.audit()
	want := []string{"link.outside in/rootfs/var/cache/apt/archives/a_1_all.deb", "mode.world in/rootfs/var/cache/apt/archives"}
	if diff := cmp.Diff(want, w.told(r)); diff != "" {
		t.Fatalf("%s\n%+v", diff, r.Findings)
	}
	i := slices.IndexFunc(r.Findings, func(f Finding) bool { return f.ID == "link.outside" })
	_, script, ok := strings.Cut(r.Findings[i].Mend, " -- ")
	if !ok {
		t.Fatal(r.Findings[i].Mend)
	}
	// What nsferry run --rootfs would do; the rest of the line is as it was told.
	w.inner("PATH=/bin /usr/sbin/chroot in/rootfs " + script)
	w.inner("echo worse >in/rootfs/var/cache/apt/archives/a_1_all.deb")
	if w.sh("cat dl/a_1_all.deb") != "evil\n" {
		t.Error("they are one file still")
	}
	if told := w.told(w.audit()); slices.Contains(told, want[0]) {
		t.Errorf("after the remedy: %q", told)
	}
}

// Ids in no range: the kernel shows them as nobody inside, and real nobodies too.
func TestForeignOwner(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("root tier: gives files to strangers")
	}
	w := newWorld(t)
	w.inner(makeRootfs + "touch in/rootfs/usr/nobody; chown 65534:65534 in/rootfs/usr/nobody; chmod 0666 in/rootfs/usr/nobody; cp /bin/true in/rootfs/usr/bin/cap; cp /bin/true in/rootfs/usr/bin/own")
	w.inner("setcap cap_net_raw+ep in/rootfs/usr/bin/own")
	w.sh(`cd in/rootfs; echo x >usr/stranger; chown 12345:12345 usr/stranger; chmod 0666 usr/stranger; ln -s x usr/link; chown -h 12345:$B usr/link; chgrp 12346 etc/f
		setfacl -m u:12345:r usr/nobody; setcap -n 12345 cap_net_raw+ep usr/bin/cap`)
	r := w.audit()
	want := []string{"acl.foreign in/rootfs/usr/nobody", "capability.foreign in/rootfs/usr/bin/cap", "owner.foreign in/rootfs/etc/f", "owner.foreign in/rootfs/usr/link", "owner.foreign in/rootfs/usr/stranger"}
	if diff := cmp.Diff(want, slices.DeleteFunc(w.told(r), func(s string) bool { return s == "mode.world in" })); diff != "" {
		t.Errorf("%s\n%+v", diff, r.Findings)
	}
	for _, f := range r.Findings {
		if f.ID == "owner.foreign" && !strings.Contains(f.What, ": 12345:") && !strings.Contains(f.What, ":12346") {
			t.Errorf("the true ids are not told: %s", f.What)
		}
	}
}

// As root, in a tree that is his, nothing is foreign and uid 0 is nobody's leak.
func TestRootMode(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("root tier: needs uid 0")
	}
	w := newWorld(t)
	e, err := userns.NewEnv(userns.Options{Mode: "root"})
	if err != nil {
		t.Fatal(err)
	}
	w.env = e
	w.sh("cd in; mkdir -p rootfs/etc rootfs/usr rootfs/var; touch rootfs/etc/f; chown 33:33 rootfs/etc/f; chmod 0777 rootfs/var; chmod 1777 .")
	if diff := cmp.Diff([]string{"mode.world in/rootfs/var"}, w.told(w.audit())); diff != "" {
		t.Error(diff)
	}
	if w.env, err = userns.NewEnv(userns.Options{Mode: "root", Map: "0:3000000000:65536"}); err != nil {
		t.Fatal(err)
	}
	w.sh("chown -R 3000000000:3000000000 in/rootfs; touch in/rootfs/etc/mine in/rootfs/etc/his; chown 12345:12345 in/rootfs/etc/his")
	if diff := cmp.Diff([]string{"mode.world in/rootfs/var", "owner.caller in/rootfs/etc/mine", "owner.foreign in/rootfs/etc/his"}, w.told(w.audit())); diff != "" {
		t.Error(diff)
	}
	w.sh("rm -r in/rootfs")
}

// Row 21 of what is moved today: the outer du skips what it cannot read; inner root's does not.
func TestMeasure(t *testing.T) {
	w := newWorld(t)
	w.inner(makeRootfs + "mkdir -m 0700 in/rootfs/var/cache/apt/archives/partial; head -c 300001 /dev/zero >in/rootfs/var/cache/apt/archives/partial/x; truncate -s 9M in/rootfs/sparse; ln in/rootfs/sparse in/rootfs/usr/again; ln -s sparse in/rootfs/link; du -s --block-size=1 in/rootfs >in/true; du -s --apparent-size --block-size=1 in/rootfs >in/apparent; mkdir in/empty; du -s --apparent-size --block-size=1 in/empty >in/dirs")
	number := func(file string) int64 {
		n, err := strconv.ParseInt(strings.Fields(w.sh("cat in/" + file))[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	s, err := Measure(context.Background(), w.env, w.dir+"/in/rootfs")
	if err != nil {
		t.Fatal(err)
	}
	if os.Getuid() != 0 {
		if out := w.sh("du -s --block-size=1 in/rootfs 2>/dev/null | cut -f1 || true"); strings.TrimSpace(out) == strconv.FormatInt(s.Allocated, 10) {
			t.Fatal("the outer du sees everything: this test shows nothing")
		}
	}
	apparent := s.Apparent
	if number("dirs") == 0 { // du since coreutils 9.2 leaves directories out
		apparent = s.Content
	}
	if s.Allocated != number("true") || apparent != number("apparent") {
		t.Errorf("got %+v, du says %d and %d", s, number("true"), number("apparent"))
	}
}
