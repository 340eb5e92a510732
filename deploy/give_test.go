package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/acl"
	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/idshift"
	"github.com/nsferry/nsferry/idshift/userns/usernstest"
)

// TestGive moves files with all that could be wrong with them, and wants the same inodes, the caller's alone.
func TestGive(t *testing.T) {
	for _, e := range usernstest.Models(t) {
		t.Run(e.Name, func(t *testing.T) {
			g := newGround(t, e, plant{Path: "d/img", Data: map[int64]string{0: "image", 9 << 20: "end"}, Mode: 0o6755, Owner: 33, Rights: true}, text("d/two", "2"))
			ino := inode(t, filepath.Join(g.root(), "d/img"))
			check(t, os.WriteFile(g.out("img"), []byte("old"), 0o600))
			s, err := g.deploy(t, []string{"d/img", "d/*o"}, g.out(), Options{Give: true, Sum: true, Replace: true})
			check(t, err)
			if s.Outputs[0].Method != "give" || g.outputs(t) != "img img.sha256 two two.sha256" {
				t.Errorf("%+v, %s", s, g.outputs(t))
			}
			var st unix.Stat_t
			check(t, unix.Lstat(g.out("img"), &st))
			if st.Ino != ino || int(st.Uid) != os.Getuid() || int(st.Gid) != os.Getgid() || st.Mode&0o7777 != 0o644 || st.Nlink != 1 || st.Mtim.Nano() != epoch.UnixNano() {
				t.Errorf("%+v", st)
			}
			for _, key := range []string{tree.XattrAccess, tree.XattrCapability} {
				if _, err := unix.Lgetxattr(g.out("img"), key, nil); !errors.Is(err, unix.ENODATA) {
					t.Errorf("%s: %v", key, err)
				}
			}
			if names, err := os.ReadDir(filepath.Join(g.root(), "d")); err != nil || len(names) != 0 {
				t.Errorf("left inside: %v %v", names, err)
			}
			tool(t, g.out(), "sha256sum", "--check", "img.sha256", "two.sha256")
		})
	}
}

// TestGiveIsUndone lets giving fail at every stage, and wants everything as it was.
func TestGiveIsUndone(t *testing.T) {
	wrong := int64(7)
	for _, e := range usernstest.Models(t) {
		for _, c := range []struct {
			name, want string
			sources    []string
			o          Options
			arrange    func(t *testing.T, g *ground)
			dest       string
		}{
			{name: "exists", want: "--force", arrange: func(t *testing.T, g *ground) { check(t, os.WriteFile(g.out("img"), nil, 0o600)) }},
			{name: "directory in the way", want: "directory", o: Options{Replace: true}, arrange: func(t *testing.T, g *ground) { check(t, os.Mkdir(g.out("img"), 0o700)) }},
			{name: "hard link", want: "2 names", arrange: func(t *testing.T, g *ground) { g.plant(t, plant{Path: "other", Hard: "img"}) }},
			{name: "size", want: "was expected", o: Options{Expect: Expectation{Size: &wrong}}},
			{name: "digest", want: "was expected", o: Options{Expect: Expectation{SHA256: strings.Repeat("0", 64)}}},
			{name: "second is a link", want: "2 names", sources: []string{"img", "a"}, arrange: func(t *testing.T, g *ground) {
				g.plant(t, text("a", "x"), plant{Path: "b", Hard: "a"})
			}},
			{name: "other filesystem", want: "cross-device", dest: "/proc/self/fdinfo"},
			{name: "symbolic link is a file", want: "not a symbolic link", o: Options{Symlink: "l"}, arrange: func(t *testing.T, g *ground) { check(t, os.WriteFile(g.out("l"), nil, 0o600)) }},
			{name: "writer", want: "another process has it open", arrange: func(t *testing.T, g *ground) { g.hold(t, swap{Hold: "img"}) }},
			{name: "locked", want: "resource temporarily unavailable", o: Options{Replace: true}, arrange: func(t *testing.T, g *ground) {
				check(t, os.WriteFile(g.out("img"), nil, 0o600))
				g.hold(t, swap{Lock: "img"})
			}},
		} {
			t.Run(e.Name+" "+c.name, func(t *testing.T) {
				g := newGround(t, e, plant{Path: "img", Data: map[int64]string{0: "image"}, Mode: 0o6751, Owner: 33, Rights: true})
				if c.arrange != nil {
					c.arrange(t, g)
				}
				if c.sources == nil {
					c.sources = []string{"img"}
				}
				if c.dest == "" {
					c.dest = g.out()
				}
				c.o.Give = true
				path := filepath.Join(g.root(), "img")
				before := state(t, path)
				_, err := g.deploy(t, c.sources, c.dest, c.o)
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %q", err, c.want)
				}
				if after := state(t, path); after != before {
					t.Errorf("before %s\nafter  %s", before, after)
				}
			})
		}
	}
}

// hold has a process inside keep a file until the end of the test.
func (g *ground) hold(t *testing.T, s swap) {
	t.Helper()
	root, err := os.Open(g.root())
	check(t, err)
	held, done := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(done)
		_, _ = swapHalf.Run(ctx, g.env.Env, s, func(json.RawMessage) { close(held) }, root) // cancelled
	}()
	t.Cleanup(func() { cancel(); <-done; root.Close() })
	<-held
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	check(t, unix.Lstat(path, &st))
	return st.Ino
}

// state is all that giving changes, as seen from outside.
func state(t *testing.T, path string) string {
	t.Helper()
	var st unix.Stat_t
	check(t, unix.Lstat(path, &st))
	text := fmt.Sprintf("ino %d, %o %d:%d, time %d, links %d", st.Ino, st.Mode, st.Uid, st.Gid, st.Mtim.Nano(), st.Nlink)
	for _, key := range []string{tree.XattrAccess, tree.XattrCapability} {
		value := make([]byte, 1000)
		n, err := unix.Lgetxattr(path, key, value)
		if err != nil {
			n = 0
		}
		text += fmt.Sprintf(", %s %x", key, value[:n])
	}
	return text
}

// rights gives a file an ACL and a capability.
func rights(f *os.File) error {
	a := acl.ACL{{Tag: acl.UserObj, Perm: 7}, {Tag: acl.User, Perm: 6, ID: 33}, {Tag: acl.GroupObj, Perm: 5}, {Tag: acl.Mask, Perm: 7}, {Tag: acl.Other, Perm: 1}}
	return errors.Join(acl.Apply(int(f.Fd()), acl.Access, a),
		unix.Fsetxattr(int(f.Fd()), tree.XattrCapability, idshift.Capability{Permitted: 1 << unix.CAP_NET_RAW, Effective: true}.Rev2(), 0))
}

// TestGiveMany gives more files than can be passed in at once.
func TestGiveMany(t *testing.T) {
	var all []plant
	for i := range maxGiven + 1 {
		all = append(all, text(fmt.Sprint("f", i), "x"))
	}
	g := newGround(t, usernstest.Models(t)[0], all...)
	if _, err := g.deploy(t, []string{"f*"}, g.out(), Options{Give: true, All: true}); err == nil || !strings.Contains(err.Error(), "at once") {
		t.Errorf("got %v", err)
	}
	if _, err := g.deploy(t, []string{"f1*"}, g.out(), Options{Give: true, All: true}); err != nil {
		t.Error(err)
	}
}
