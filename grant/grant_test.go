package grant

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/nsferry/nsferry/acl"
)

// Whatever the directory was, a grant lets the grantees in and nobody else further, and revoke gives back every bit.
func TestRevokeIsExact(t *testing.T) {
	w := newWorld(t)
	rnd := rand.New(rand.NewPCG(3, 7))
	perms := func() string { return []string{"---", "r--", "r-x", "rwx", "-wx", "--x"}[rnd.IntN(6)] }
	others := []acl.Subject{{UID: 12345, GID: 1}, {UID: 12346, GID: 54321}, {UID: 12347, GID: 12347, Groups: []uint32{uint32(os.Getgid())}}, {UID: 12348}}
	for i := range 60 {
		name := fmt.Sprintf("d%d", i)
		w.sh(fmt.Sprintf("mkdir %s; chmod %o %[1]s", name, []int{0, 0o1000, 0o2000}[rnd.IntN(3)]|0o700|rnd.IntN(0o100)))
		for range rnd.IntN(4) {
			spec := []string{"u:12345:", "u:12346:", "g:54321:", "m::", "d:u:12345:", "d:g::", fmt.Sprintf("u:%d:", w.base)}[rnd.IntN(7)] + perms()
			w.sh(fmt.Sprintf("setfacl %s-m %s %s", []string{"", "-n "}[rnd.IntN(2)], spec, name) + " 2>/dev/null || setfacl -m " + spec + " " + name)
		}
		before := w.snapshot(name)
		was, err := openDirectory(w.path(name))
		if err != nil {
			t.Fatal(err)
		}
		was.Close()
		o := Options{Default: rnd.IntN(2) == 0}
		if rnd.IntN(2) == 0 {
			o.AlsoIDs = []uint32{999, 5}
		}
		w.mustGrant(o, name)
		first := w.snapshot(name)
		if r := w.mustGrant(o, name); w.snapshot(name) != first || r.Changes[0].What != "already granted" {
			t.Errorf("granting twice is not the same as once: %v", r)
		}
		is, err := openDirectory(w.path(name))
		if err != nil {
			t.Fatal(err)
		}
		is.Close()
		for _, s := range others {
			for _, p := range []acl.ACL{was.now.effective(), is.now.effective()} {
				if err := p.Validate(); err != nil {
					t.Fatal(err)
				}
			}
			for _, p := range []uint16{1, 2, 4} {
				a, b := was.now.effective().Permits(s, was.now.UID, was.now.GID, p), is.now.effective().Permits(s, is.now.UID, is.now.GID, p)
				if a != b {
					t.Errorf("right %d of %+v was %v and is %v\n%s%s", p, s, a, b, before, first)
				}
			}
		}
		if h := w.holds(name); !h.Holds {
			t.Errorf("%+v\n%s", h, first)
		}
		w.revoke(name)
		if after := w.snapshot(name); after != before || w.records() != 0 {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
	}
}

func TestChangedSince(t *testing.T) {
	w := newWorld(t)
	w.sh("mkdir -m 0755 dir")
	w.mustGrant(Options{Default: true}, "dir")
	w.sh("setfacl -m u:12345:r-x,g:5:r-x dir; setfacl -d -m u:12345:r-x dir; chmod o-rx dir")
	r := w.revoke("dir")
	if !strings.Contains(r.String(), "changed since it was granted") {
		t.Errorf("got %v", r)
	}
	got := w.sh("getfacl -cnE dir")
	for _, line := range []string{"user:12345:r-x", "group:5:r-x", "default:user:12345:r-x", "other::---"} {
		if !strings.Contains(got, line) {
			t.Errorf("%s is lost:\n%s", line, got)
		}
	}
	if strings.Contains(got, fmt.Sprintf("user:%d:", w.base)) {
		t.Errorf("the grant is still there:\n%s", got)
	}
	// A chmod alone leaves no trace of an ACL behind.
	w.sh("mkdir -m 0755 two")
	w.mustGrant(Options{}, "two")
	w.sh("chmod 0750 two")
	w.revoke("two")
	if got := w.sh("getfacl -cnE two; stat -c %a two"); got != "user::rwx\ngroup::r-x\nother::---\n\n750\n" {
		t.Errorf("got %s", got)
	}
}

// What is above two granted directories stays open until the second one is revoked.
func TestSharedAncestor(t *testing.T) {
	w := newWorld(t)
	w.sh("mkdir -m 0700 home")
	before := w.snapshot("home")
	w.mustGrant(Options{Traverse: true}, "home/build/one", "home/build/two")
	w.revoke("home/build/one")
	if !w.inner(0, "touch home/build/two/x && rm home/build/two/x") {
		t.Error("revoking one grant has closed the other")
	}
	if _, err := os.Stat(w.path("home/build/one")); err == nil {
		t.Error("the directory that was made is still there")
	}
	w.sh("touch home/build/mine")
	w.revoke("home/build/two")
	if got := w.snapshot("home"); got != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, got)
	}
	if got := w.sh("find home | sort"); got != "home\nhome/build\nhome/build/mine\n" {
		t.Errorf("left: %s", got)
	}
}

func TestMadeDirectories(t *testing.T) {
	w := newWorld(t)
	w.sh("mkdir top; setfacl -d -m u:12345:rwx top")
	w.sh("umask 0077; mkdir closed")
	w.mustGrant(Options{Traverse: true}, "top/a/b", "closed/a/b")
	if got := w.sh("getfacl -cnd top/a top/a/b"); strings.Contains(got, "12345") {
		t.Errorf("an ACL of a directory above was inherited:\n%s", got)
	}
	if !w.inner(0, "touch top/a/b/x closed/a/b/x") {
		t.Error("what was made is closed")
	}
	w.sh("ln -s top/a/b link")
	if h := w.holds("link"); !h.Record || h.Path != w.path("top/a/b") {
		t.Errorf("through a symlink: %+v", h)
	}
}

// A directory that takes the name of a granted one is not the granted one; a granted one keeps its record when it is renamed.
func TestIdentity(t *testing.T) {
	w := newWorld(t)
	w.sh("mkdir dir")
	before := w.snapshot("dir")
	w.mustGrant(Options{}, "dir")
	w.sh("mv dir moved; mkdir -m 0700 dir")
	w.revoke("moved")
	if got := strings.ReplaceAll(w.snapshot("moved"), "moved", "dir"); got != before {
		t.Errorf("renamed, before:\n%s\nafter:\n%s", before, got)
	}
	w.mustGrant(Options{}, "dir")
	w.sh("mv dir away; mkdir -m 0750 dir; setfacl -m u:12345:r-x dir")
	other := w.snapshot("dir")
	if r := w.revoke("dir"); w.snapshot("dir") != other {
		t.Errorf("another directory was changed: %v", r)
	}
	w.mustGrant(Options{Traverse: true}, "gone/deep")
	w.sh("rm -r gone")
	w.revoke("gone/deep")
	if n := w.records(); n != 0 {
		t.Errorf("%d records are left", n)
	}
}

// A directory of inner root's own is granted to another inner id: by a half, for the caller may not.
func TestInnerRootsDirectory(t *testing.T) {
	w := newWorld(t)
	w.mustGrant(Options{}, "build")
	if !w.inner(0, "umask 022; mkdir build/his && setfacl -m u:33:r-x build/his") {
		t.Fatal("inner root cannot make a directory")
	}
	if os.Getuid() != 0 && w.sh("setfacl -m u:12345:rwx build/his 2>&1 || true") == "" {
		t.Fatal("the caller may do it himself: this test shows nothing")
	}
	before := w.snapshot("build/his")
	w.mustGrant(Options{AlsoIDs: []uint32{999}, Default: true}, "build/his")
	if !w.inner(999, "touch build/his/x") || !w.holds("build/his").Holds {
		t.Errorf("inner id 999 cannot use it:\n%s", w.snapshot("build/his"))
	}
	w.revoke("build/his")
	if after := w.snapshot("build/his"); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	w.inner(0, "rm -r build/his")
}

func TestConcurrent(t *testing.T) {
	w := newWorld(t)
	w.sh("mkdir -m 0700 home; mkdir -m 0751 home/dir")
	before := w.snapshot("home", "home/dir")
	var group sync.WaitGroup
	for i := range uint32(12) {
		group.Go(func() {
			if _, err := Grant(context.Background(), w.env, []string{w.path("home/dir"), w.path(fmt.Sprintf("home/made/%d", i))}, Options{AlsoIDs: []uint32{100 + i}, Traverse: true}); err != nil {
				t.Error(err)
			}
			if _, err := Revoke(context.Background(), w.env, []string{w.path(fmt.Sprintf("home/made/%d", i))}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n := strings.Count(w.sh("getfacl -cn home/dir"), ":rwx\n"); n != 12+1+2 { // and owner, and mask
		t.Errorf("%d entries: %s", n, w.sh("getfacl -n home/dir"))
	}
	w.revoke("home/dir")
	if after := w.snapshot("home", "home/dir"); after != before || w.records() != 0 || w.sh("ls home") != "dir\n" {
		t.Errorf("%d records, before:\n%s\nafter:\n%s%s", w.records(), before, after, w.sh("find home; cat $XDG_STATE_HOME/nsferry/grants/*.json"))
	}
}

// A process killed between record and change, or between change and record, leaves what the next one understands.
func TestKilledBetween(t *testing.T) {
	w := newWorld(t)
	w.sh("mkdir -m 0750 dir")
	before := w.snapshot("dir")
	w.mustGrant(Options{}, "dir")
	w.sh("setfacl -b dir; chmod 0750 dir") // as if the change had not come to pass
	if r := w.revoke("dir"); strings.Contains(r.String(), "changed since") || w.snapshot("dir") != before {
		t.Errorf("got %v", r)
	}
	w.mustGrant(Options{}, "dir")
	kept := w.sh("cat $XDG_STATE_HOME/nsferry/grants/*.json")
	w.revoke("dir")
	file := filepath.Join(os.Getenv("XDG_STATE_HOME"), "nsferry/grants/1-1-x.json")
	if err := os.WriteFile(file, []byte(kept), 0o600); err != nil { // as if the record had not gone
		t.Fatal(err)
	}
	if w.mustGrant(Options{}, "dir"); !w.holds("dir").Holds {
		t.Error("a record of what is no more stands in the way")
	}
	w.revoke("dir")
	if w.snapshot("dir") != before {
		t.Error("not what it was")
	}
}

// The record is docs/GRANTS.md's.
func TestRecordFormat(t *testing.T) {
	w := newWorld(t)
	w.sh("mkdir -m 0751 'a%b'")
	w.mustGrant(Options{AlsoIDs: []uint32{999}, Default: true}, "a%b")
	if mode := w.sh("stat -c %a $XDG_STATE_HOME/nsferry $XDG_STATE_HOME/nsferry/grants"); mode != "700\n700\n" {
		t.Errorf("modes of the state directories: %q", mode)
	}
	text := w.sh("cat $XDG_STATE_HOME/nsferry/grants/*.json")
	var got map[string]any
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	if got["nsferry-grant"] != 1.0 || got["path"] != w.dir+"/a%25b" {
		t.Errorf("got %s", text)
	}
	before := got["before"].(map[string]any)
	if before["mode"] != "0751" || before["access"] != nil {
		t.Errorf("before: %v", before)
	}
	use := got["uses"].([]any)[1].(map[string]any)
	if use["inside"] != 999.0 || use["uid"] != float64(w.base+999) || use["perm"] != 7.0 || use["default"] != true {
		t.Errorf("use: %v", use)
	}
	for _, bad := range []string{`{"nsferry-grant":2}`, `{"nsferry-grant":1,"before":{"mode":"999"}}`, `{"nsferry-grant":1,"path":"%4"}`,
		`{"nsferry-grant":1,"before":{"mode":"0755","access":"user::rwx"}}`, `{`} {
		file := filepath.Join(os.Getenv("XDG_STATE_HOME"), "nsferry/grants/bad.json")
		if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := w.grant(Options{}, "a%b"); err == nil || !strings.Contains(err.Error(), "bad.json") {
			t.Errorf("%s: got %v, want the record to be named", bad, err)
		}
	}
}

func FuzzPathQuoting(f *testing.F) {
	for _, s := range []string{"", "/a", "/\xff%25\n", "/\ufffd", "/\xef", "/\xef\xbfd", "/%", "/ü\x7f"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		q := quotePath(path)
		text, err := json.Marshal(q)
		if err != nil {
			t.Fatal(err)
		}
		var back string
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatal(err)
		}
		if got, err := unquotePath(back); err != nil || got != path {
			t.Errorf("%q became %q, %v", path, got, err)
		}
	})
}
