package archive_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/acl"
	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/archive/treetest"
	"github.com/nsferry/nsferry/tier"
)

// TestListings wants one listing from the table of contents, the streams of all formats and the tree itself: the oracle's.
func TestListings(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	for name, nodes := range map[string][]listing.Node{"oddities": treetest.Oddities(), "random": treetest.Random(11, 300)} {
		t.Run(name, func(t *testing.T) {
			dir := build(t, nodes)
			want, _ := storable(dump(t, dir))
			for _, format := range []archive.Format{archive.Framed, archive.Gzip, archive.Plain} {
				o := options()
				o.Format = format
				packed, _ := pack(t, dir, o)
				got := listed(t, packed)
				sameTree(t, want, got)
				for i := range want {
					if want[i].Name != got[i].Name || want[i].Target != got[i].Target {
						t.Fatalf("%s: entry %d is %q, want %q", format, i, got[i].Name, want[i].Name)
					}
				}
			}
			var tree []listing.Node
			check(t, archive.ListTree(t.Context(), dir, options().ScanOptions, 2, func(n listing.Node) error {
				tree = append(tree, n)
				return nil
			}))
			live := dump(t, dir)
			sockets := map[string]listing.Node{}
			for _, n := range live {
				if n.Type == listing.Sock {
					sockets[n.Name] = n
				}
			}
			kept, _ := without(tree, listing.Sock)
			sameTree(t, want, kept)
			for _, n := range tree {
				if s, ok := sockets[n.Name]; ok && s.Line() != n.Line() {
					t.Errorf("-%s\n+%s", s.Line(), n.Line())
				}
			}
			if len(tree) != len(live) {
				t.Errorf("%d lines, the tree has %d", len(tree), len(live))
			}
		})
	}
}

// TestStreamedListing reads our own archive from a pipe, where its table of contents is out of reach.
func TestStreamedListing(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	packed, _ := pack(t, build(t, treetest.Random(12, 200)), options())
	r, w, err := os.Pipe()
	check(t, err)
	defer r.Close()
	go func() {
		_, _ = w.Write(packed)
		w.Close()
	}()
	var got []listing.Node
	check(t, archive.List(t.Context(), r, 2, func(n listing.Node) error {
		got = append(got, n)
		return nil
	}))
	if a, b := listing.Text(listed(t, packed)), listing.Text(got); a != b {
		t.Error("the stream is listed in another way than the table of contents")
	}
}

const catTree = `dir . 0:0 755 mtime=1
dir a 0:0 755 mtime=1
symlink a/up 0:0 ../b/file mtime=1
symlink a/abs 0:0 /b/file mtime=1
symlink a/escape 0:0 ../../../../b/file mtime=1
symlink a/dangling 0:0 nowhere mtime=1
symlink a/loop 0:0 loop mtime=1
symlink a/dir 0:0 ../b mtime=1
symlink a/link 0:0 dir/hard mtime=1
dir b 0:0 755 mtime=1
file b/file 0:0 644 mtime=1 "content"
hardlink b/hard b/file
file b/empty 0:0 644 mtime=1 ""
fifo b/fifo 0:0 644 mtime=1
file "b/\xff\n" 0:0 644 mtime=1 "odd name"
file b/medium 0:0 644 mtime=1 size=5242880 fill=3
file b/large 0:0 644 mtime=1 size=13000001 fill=4
file b/sparse 0:0 644 mtime=1 size=20000000 fill=5 sparse=65536+65536,9961472+6553600
file b/hole 0:0 644 mtime=1 size=3000000 sparse=
file z 0:0 644 mtime=1 "last"
`

func TestCat(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	dir := buildText(t, catTree)
	at := func(name string) string { return filepath.Join(dir.Name(), name) }
	for _, format := range []archive.Format{archive.Framed, archive.Gzip, archive.Plain} {
		o := options()
		o.Format = format
		packed, _ := pack(t, dir, o)
		in := file(t, packed)
		for path, same := range map[string]string{
			"b/file": "b/file", "./b/file": "b/file", "/b//file": "b/file", "b/hard": "b/file", "a/up": "b/file", "a/abs": "b/file",
			"a/escape": "b/file", "a/dir/file": "b/file", "a/link": "b/file", "a/../b/file": "b/file", "../../b/file": "b/file",
			"b/empty": "b/empty", "b/\xff\n": "b/\xff\n", "b/medium": "b/medium", "b/large": "b/large", "b/sparse": "b/sparse",
			"b/hole": "b/hole", "z": "z",
		} {
			want, err := os.ReadFile(at(same))
			check(t, err)
			var got bytes.Buffer
			_, err = in.Seek(0, 0)
			check(t, err)
			if err := archive.Cat(t.Context(), in, path, 2, &got); err != nil || !bytes.Equal(got.Bytes(), want) {
				t.Errorf("%s: %q: %d bytes, want %d: %v", format, path, got.Len(), len(want), err)
			}
		}
		for path, word := range map[string]string{
			"": "not a regular file", ".": "not a regular file", "b": "not a regular file", "a/dir": "not a regular file",
			"b/fifo": "not a regular file", "nothing": "not in the archive", "a/dangling": "not in the archive", "a/loop": "symlinks",
			"b/file/x": "", "b/file/..": "",
		} {
			var got bytes.Buffer
			_, err := in.Seek(0, 0)
			check(t, err)
			if err := archive.Cat(t.Context(), in, path, 2, &got); err == nil || !strings.Contains(err.Error(), word) || got.Len() > 0 {
				t.Errorf("%s: %q: %d bytes, %v", format, path, got.Len(), err)
			}
		}
	}
}

func compared(t *testing.T, a, b string) string {
	t.Helper()
	x, err := listing.Parse(a)
	check(t, err)
	y, err := listing.Parse(b)
	check(t, err)
	out := ""
	check(t, archive.Compare(x, y, func(d archive.Difference) error {
		out += d.String() + "\n"
		return nil
	}))
	return out
}

// TestListedKernelACLs: GNU tar with --xattrs and --acls stores an ACL as text and once more as the kernel's value, bsdtar and others store one of
// both. It is one ACL, and no attribute.
func TestListedKernelACLs(t *testing.T) {
	value, err := acl.Parse("user::rwx,user:5:r-x,group::r-x,mask::r-x,other::r-x", nil)
	check(t, err)
	text := map[string]string{"SCHILY.acl.access": value.Text(), "SCHILY.acl.default": value.Text()}
	kernel := map[string]string{
		"SCHILY.xattr." + tree.XattrAccess: string(value.Encode()), "SCHILY.xattr." + tree.XattrDefault: string(value.Encode()),
	}
	both := maps.Clone(text)
	maps.Copy(both, kernel)
	var lists [][]listing.Node
	for _, records := range []map[string]string{text, both, kernel} {
		var archived bytes.Buffer
		w := tar.NewWriter(&archived)
		check(t, w.WriteHeader(&tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755, PAXRecords: records}))
		check(t, w.Close())
		nodes := listed(t, archived.Bytes())
		lists = append(lists, nodes)
		if n := nodes[0]; n.ACL != value.Short() || n.Default != value.Short() || len(n.Xattrs) > 0 {
			t.Errorf("%d records: listed as %q, %q, attributes %v", len(records), n.ACL, n.Default, n.Xattrs)
		}
	}
	for _, other := range lists[1:] {
		check(t, archive.Compare(lists[0], other, func(d archive.Difference) error { return fmt.Errorf("differ: %v", d) }))
	}
}

func TestCompare(t *testing.T) {
	base := "dir . 0:0 755 mtime=1\n"
	for _, c := range []struct{ name, a, b, want string }{
		{"equal", `file f 0:0 644 mtime=1 size=1`, `file f 0:0 644 mtime=1 size=1`, ""},
		{"order", "file b 0:0 644\nfile a 0:0 644", "file a 0:0 644\nfile b 0:0 644", ""},
		{"only", "file a 0:0 644\nfile b 0:0 644", "file b 0:0 644\nfile c 0:0 644", "- a\n+ c\n"},
		{"type", "file a 0:0 644", "fifo a 0:0 644", "! a: type file → fifo\n"},
		{"owner", "file a 1:0 644", "file a 2:3 644", "! a: uid 1 → 2; gid 0 → 3\n"},
		{"mode", "file a 0:0 4755", "file a 0:0 755", "! a: mode 4755 → 755\n"},
		{"mtime", "file a 0:0 644 mtime=1.5", "file a 0:0 644 mtime=1.25", "! a: mtime 1.5 → 1.25\n"},
		{"target", "symlink a 0:0 x", "symlink a 0:0 y", "! a: target x → y\n"},
		{"device", "char a 0:0 600 1:2", "char a 0:0 600 1:3", "! a: device [1 2] → [1 3]\n"},
		{"acl", "file a 0:0 640 acl=u::rw-,u:5:r--,g::r--,m::r--,o::---", "file a 0:0 640", "! a: acl u::rw-,u:5:r--,g::r--,m::r--,o::--- → none\n"},
		{"default", "dir a 0:0 755", "dir a 0:0 755 default=u::rwx,g::r-x,o::---", "! a: default acl none → u::rwx,g::r-x,o::---\n"},
		{"cap", "file a 0:0 755 cap=cap_chown=ep", "file a 0:0 755", "! a: capability 0100000201000000000000000000000000000000 → none\n"},
		{"size", "file a 0:0 644 size=1", "file a 0:0 644 size=2", "! a: size 1 → 2\n"},
		{"holes", "file a 0:0 644 size=131072 sparse=", "file a 0:0 644 size=131072", "! a: holes\n"},
		{"short holes", "file a 0:0 644 size=131072 sparse=4096+126976", "file a 0:0 644 size=131072", ""},
		{"odd name", `file "a\nb" 0:0 644`, "", "- \"a\\nb\"\n"},
		{"link order", "file a 0:0 644 size=7\nhardlink b a", "hardlink a b\nfile b 0:0 644 size=7", ""},
		{"link broken", "file a 0:0 644 size=7\nhardlink b a", "file a 0:0 644 size=7\nfile b 0:0 644 size=7", "! b: type hardlink → file\n"},
		{"link other", "file a 0:0 644\nfile b 0:0 644\nhardlink c a", "file a 0:0 644\nfile b 0:0 644\nhardlink c b", "! c: target a → b\n"},
		{"replaced", "file a 0:0 644\nfile a 0:0 600", "file a 0:0 600", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := compared(t, base+c.a, base+c.b); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	sum := func(c string) string { return strings.Repeat(c, 64) }
	if got := compared(t, "file a 0:0 644 size=9 sha256="+sum("a"), "file a 0:0 644 size=9 sha256="+sum("b")); got != "! a: content\n" {
		t.Errorf("content: %q", got)
	}
	stop := fmt.Errorf("stop")
	if err := archive.Compare([]listing.Node{{Name: "a"}}, nil, func(archive.Difference) error { return stop }); err != stop {
		t.Errorf("the error of report: %v", err)
	}
}
