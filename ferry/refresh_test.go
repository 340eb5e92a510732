package ferry

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/archive/treetest"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/idshift/userns/usernstest"
	"github.com/nsferry/nsferry/tier"

	"golang.org/x/sys/unix"
)

// shellHalf runs a script in a tree, as its root.
var shellHalf = userns.Half[string, string]{Name: "test-shell", Func: func(_ context.Context, in *userns.Inner, script string) (string, error) {
	cmd := exec.Command("/bin/sh", "-ec", script)
	cmd.Dir = fmt.Sprintf("/proc/self/fd/%d", in.Files[0].Fd())
	cmd.Env = append(os.Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", script, err, out)
	}
	return string(out), err
}}

// shell runs a script in the tree dir. $B is what system calls take for the inside id 0.
func shell(t testing.TB, e *userns.Env, dir, script string) {
	t.Helper()
	f, rest, err := userns.OpenTree(dir)
	check(t, err)
	defer f.Close()
	if rest != "" {
		t.Fatalf("%s is closed", dir)
	}
	var first, group uint32
	if e.Arithmetic() {
		first, _ = e.Plain.UID.ToOutside(0)
		group, _ = e.Plain.GID.ToOutside(0)
	}
	if first > 0 { // what the script has made is not the inner root's yet
		script += "\nfind . -uid 0 -exec chown -h $B {} +; find . -gid 0 -exec chgrp -h $G {} +"
	}
	_, err = shellHalf.Run(t.Context(), e, fmt.Sprintf("B=%d G=%d\n%s", first, group, script), nil, f)
	check(t, err)
}

// mutations are what happens to trees between two restores.
var mutations = []struct{ name, script string }{
	{"nothing", "true"},
	{"content of the same size and time", "touch -r a/b ref; printf 'IN a' >a/b; touch -r ref a/b; rm ref"},
	{"content", "echo more >>many"},
	{"file becomes directory", "rm many; mkdir many; echo x >many/x; ln -s x many/y"},
	{"directory becomes file", "rm -r a acl-dir; echo x >a; echo y >acl-dir"},
	{"directory becomes a link out", "rm -r a; ln -s /etc a; rm -r deep; ln -s / deep"},
	{"file becomes a link out", "rm setuid cap-ep; ln -s /etc/passwd setuid; ln -s ../../outside cap-ep"},
	{"types shift", "rm fifo link; mknod link p; ln -s x fifo; rm -r dir-sticky; mknod dir-sticky c 0 0; rm whiteout; mkdir whiteout"},
	{"links broken", "cp -p many copy; mv copy many; rm fifo-2; mknod fifo-2 p"},
	{"links joined", "ln -f many xattr; ln -f id-65534 a.b; ln -P -f link link-abs"},
	{"links moved", "mv many-2 many-9; rm many; ln -f many-9 many; ln many-9 a/many-2; rm a/many-3"},
	{"links swapped", "mv many keep; ln -f id-mixed many; ln -f id-mixed many-2; mv keep extra"},
	{"modes", "chmod 777 setuid all-bits dir-sticky dir-setgid; chmod 7777 a-b a; chmod 0 ."},
	{"owners", "chown -h $((B+3)):$((G+4)) a-b setuid cap-ep cap-acl-xattr link dir-setgid acl-named fifo ."},
	{"ACLs", "setfacl -b acl-named acl-dir; setfacl -m u:$((B+7)):rwx,g:$((G+8)):r a-b setuid; setfacl -m d:u:$((B+7)):rwx a dir-setgid .; setfacl -k acl-default-only; chmod g=r acl-cut"},
	{"capabilities", "setcap -r cap-ep; setcap cap_chown=ep a-b; setcap cap_net_raw=ei cap-many; touch cap-inherit; chown $B:$G cap-acl-xattr"},
	{"xattrs", "setfattr -x user.bin xattr; setfattr -n user.empty -v full xattr; setfattr -n user.new -v x a-b; setfattr -n user.d -v x a; setfattr -x user.on-dir xattr-dir"},
	{"times", "touch a-b a/b a . ; touch -h link link-abs; touch -d @1 acl-dir/sub setuid"},
	{"deletions", "rm -r a deep acl-dir dir-0000 many* link* fifo* sparse-*"},
	{"renames", "mv a A; mv deep a; mv setuid setgid2; mv cap-ep setuid; mv sparse-middle sparse-x"},
	{"holes", "cp --sparse=never sparse-end x; touch -r sparse-end x; mv x sparse-end; truncate -s 0 sparse-all; truncate -s 12345678 sparse-all; head -c 1048576 /dev/zero >sparse-middle; fallocate -p -o 65536 -l 131072 size-4194304 || true"},
	{"additions", "mkdir -p new/deep/er; touch new/deep/er/x 'new/new\nline' \"$(printf 'new/\\377\\376')\"; mknod new/p p; mknod new/w c 0 0; chmod 0 new; mkdir zzz; chmod 7777 zzz"},
	{"odd names", "rm -- -rf '*' '#hash' \"$(printf 'new\\nline')\" \"$(printf '\\377\\376 latin \\351')\"; echo x >\"$(printf 'tab\\tquote\"back\\\\slash')\""},
	{"everything gone", "find . -mindepth 1 -delete; touch .hidden; mkdir a"},
	{"everything touched", "find . -exec touch -h {} +; chmod -R u+rwx ."},
	{"everything another's", "find . -exec chown -h $((B+9)):$((G+9)) {} +"},
}

// refreshTree refreshes dir from an archive.
func refreshTree(t testing.TB, e *userns.Env, archived []byte, dir string, o RefreshOptions) (Refreshed, error) {
	t.Helper()
	in := filepath.Join(t.TempDir(), "in")
	check(t, os.WriteFile(in, archived, 0o600))
	f, err := os.Open(in)
	check(t, err)
	defer f.Close()
	o.Workers = 2
	return Refresh(t.Context(), e, f, dir, o)
}

// mild is the tree of oddities without what takes long.
func mild() []listing.Node {
	return slices.DeleteFunc(noSockets(treetest.Oddities()), func(n listing.Node) bool { return n.Size > 100<<20 })
}

// TestRefreshMutated changes a tree in every way, in every mode, model and range, and wants a refresh to give what a fresh copy is:
// by the oracle's listing and by the archive made of it.
func TestRefreshMutated(t *testing.T) {
	tier.Program(t, "setfacl", "setcap", "setfattr")
	all := usernstest.Ranges(t)
	original := filepath.Join(place(t, all[0].Env), "tree")
	usernstest.Build(t, all[0].Env, original, mild())
	want := packed(t, all[0], original, 2)
	for k, e := range all {
		t.Run(e.Name, func(t *testing.T) {
			at := place(t, e.Env)
			fresh, dir := filepath.Join(at, "fresh"), filepath.Join(at, "tree")
			unpacked(t, e, want, fresh)
			unpacked(t, e, want, dir)
			before := usernstest.Dump(t, e.Env, fresh)
			for i, m := range mutations {
				if k > 0 && i%len(all) != k && !tier.Soaking(true, false) {
					continue
				}
				shell(t, e.Env, dir, m.script)
				r, err := refreshTree(t, e.Env, want, dir, RefreshOptions{})
				if err != nil {
					t.Fatalf("%s: %v", m.name, err)
				}
				if r.Changed() != (i > 0) || r.Fresh {
					t.Errorf("%s: %+v", m.name, r)
				}
				if d := treetest.Diff(before, usernstest.Dump(t, e.Env, dir)); d != "" {
					t.Fatalf("%s: - wanted, + got:\n%s", m.name, d)
				}
				if !bytes.Equal(packed(t, e, dir, 2), want) {
					t.Fatalf("%s: the archive of the tree is another one", m.name)
				}
			}
		})
	}
}

// TestRefreshRefuses has trees that are not, or not all, of the map, and one that somebody works on.
func TestRefreshRefuses(t *testing.T) {
	all := usernstest.Ranges(t)
	e := all[len(all)-1]
	at := place(t, e.Env)
	original := filepath.Join(at, "tree")
	usernstest.Build(t, e.Env, original, noSockets(treetest.Random(3, 30)))
	want := packed(t, e, original, 2)
	before := usernstest.Dump(t, e.Env, original)
	mine := filepath.Join(at, "mine")
	check(t, os.Mkdir(mine, 0o755))
	check(t, os.WriteFile(filepath.Join(mine, "letter"), nil, 0o644))
	_, err := refreshTree(t, e.Env, want, mine, RefreshOptions{})
	if err == nil || !strings.Contains(err.Error(), "do not belong to this map") && !strings.Contains(err.Error(), "is it the right one") {
		t.Errorf("a tree of the caller's: %v", err)
	}
	f, err := os.Open(original)
	check(t, err)
	defer f.Close()
	check(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	if _, err := refreshTree(t, e.Env, want, original, RefreshOptions{}); err == nil || !strings.Contains(err.Error(), "another process works on the tree") {
		t.Errorf("a locked tree: %v", err)
	}
	check(t, unix.Flock(int(f.Fd()), unix.LOCK_UN))
	if d := treetest.Diff(before, usernstest.Dump(t, e.Env, original)); d != "" {
		t.Error(d)
	}
	if names, err := os.ReadDir(at); err != nil || len(names) != 2 {
		t.Errorf("%v, %v", names, err)
	}
}

// TestRefreshFullDisk runs out of space in the middle: the name is gone, not half a tree, and the next run goes on with what is there.
func TestRefreshFullDisk(t *testing.T) {
	tier.Root(t, "mounts")
	all := usernstest.Ranges(t)
	e := all[1]
	at := place(t, e.Env)
	check(t, unix.Mount("none", at, "tmpfs", 0, "size=8m,mode=777"))
	t.Cleanup(func() { check(t, unix.Unmount(at, 0)) })
	source := filepath.Join(place(t, all[0].Env), "tree")
	nodes, err := listing.Parse("dir . 0:0 755 mtime=1\ndir a 0:0 755 mtime=1\nfile a/x 0:0 644 mtime=1 size=6000000 fill=1\n")
	check(t, err)
	usernstest.Build(t, all[0].Env, source, nodes)
	small := packed(t, all[0], source, 2)
	more, err := listing.Parse("dir . 0:0 755 mtime=1\ndir a 0:0 755 mtime=1\nfile a/x 0:0 644 mtime=1 size=6000000 fill=1\nfile a/y 0:0 644 mtime=1 size=6000000 fill=2\n")
	check(t, err)
	source += "2"
	usernstest.Build(t, all[0].Env, source, more)
	large := packed(t, all[0], source, 2)
	dir := filepath.Join(at, "tree")
	unpacked(t, e, small, dir)
	_, err = refreshTree(t, e.Env, large, dir, RefreshOptions{})
	if err == nil || !strings.Contains(err.Error(), "no space left") || !strings.Contains(err.Error(), "waits as .tree.partial-") {
		t.Errorf("%v", err)
	}
	if _, err := os.Lstat(dir); err == nil {
		t.Error("an incomplete tree has the name")
	}
	check(t, unix.Mount("none", at, "tmpfs", unix.MS_REMOUNT, "size=80m"))
	r, err := refreshTree(t, e.Env, large, dir, RefreshOptions{})
	check(t, err)
	if !r.Resumed || r.Made != 1 {
		t.Errorf("%+v", r)
	}
	if !bytes.Equal(packed(t, e, dir, 2), large) {
		t.Error("the archive of the tree is another one")
	}
}
