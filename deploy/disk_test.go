package deploy

import (
	"github.com/nsferry/nsferry/idshift/userns/usernstest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/tier"
)

// TestDiskImage makes a small disk image inside, as image builders do, and deploys it: filesystem and partition table are right, content and
// holes those of the source. .ci/image does it with a Debian tree of 1 GB, and boots it.
func TestDiskImage(t *testing.T) {
	tier.Program(t, "mke2fs", "sfdisk", "e2fsck", "debugfs")
	for _, e := range usernstest.Models(t) {
		t.Run(e.Name, func(t *testing.T) {
			g := newGround(t, e, text("tree/etc/os-release", "NAME=small\n"), plant{Path: "tree/home/x", Data: map[int64]string{0: strings.Repeat("x", 300000)}, Owner: 1000})
			g.inside(t, `
				truncate -s 64M disk.img
				printf 'label: gpt\nstart=2048, size=120000, name=root\n' | sfdisk --quiet disk.img
				mke2fs -q -t ext4 -d tree -E offset=1048576 disk.img 60000k 2>&1`)
			d := g.must(t, "disk.img", g.out("debian.wic"), Options{Sum: true, Map: true, Symlink: "latest.wic"})
			fs := g.out("latest.wic") + "?offset=1048576"
			tool(t, g.out(), "e2fsck", "-fn", fs)
			if said := tool(t, g.out(), "sfdisk", "--verify", g.out("debian.wic")); !strings.Contains(said, "No errors detected") {
				t.Error(said)
			}
			if said := tool(t, g.out(), "debugfs", "-R", "stat /home/x", fs); !strings.Contains(said, "Size: 300000") || !strings.Contains(said, "User:  1000") {
				t.Error(said)
			}
			tool(t, g.out(), "sha256sum", "--check", "debian.wic.sha256")
			if got, want := strings.Fields(g.inside(t, "sha256sum disk.img"))[0], d.SHA256; got != want {
				t.Errorf("digest %s of the source, %s of the output", got, want)
			}
			var from, to unix.Stat_t
			check(t, unix.Stat(filepath.Join(g.root(), "disk.img"), &from))
			check(t, unix.Stat(g.out("debian.wic"), &to))
			if to.Blocks > from.Blocks || to.Size != from.Size {
				t.Errorf("%d blocks became %d", from.Blocks, to.Blocks)
			}
		})
	}
}

// inside runs a script as inner root in the rootfs, on a shell's standard input, and returns its output.
func (g *ground) inside(t *testing.T, script string) string {
	t.Helper()
	root, err := os.Open(g.root())
	check(t, err)
	defer root.Close()
	out, err := os.CreateTemp(t.TempDir(), "")
	check(t, err)
	defer out.Close()
	in := filepath.Join(t.TempDir(), "script")
	check(t, os.WriteFile(in, []byte("set -e; PATH=$PATH:/usr/sbin:/sbin; cd /proc/self/fd/3\n"+script), 0o600))
	stdin, err := os.Open(in)
	check(t, err)
	defer stdin.Close()
	status, err := g.env.Exec(t.Context(), userns.Spec{Argv: []string{"/bin/sh"}, Stdin: stdin, Stdout: out, Stderr: out, Files: []userns.Passed{{FD: 3, File: root}}})
	said := read(t, out.Name())
	if err != nil || status != 0 {
		t.Fatalf("%d, %v: %s", status, err, said)
	}
	return said
}
