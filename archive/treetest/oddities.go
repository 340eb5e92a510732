//go:build linux

package treetest

import (
	"fmt"
	"strings"

	"github.com/nsferry/nsferry/archive/listing"
)

// oddities is what rootfs trees hold and copies lose. It needs root, be it inner root with ids 0 to 65534, and a
// filesystem with xattrs and ACLs.
const oddities = `
dir      .                 0:0         755 mtime=1700000000.123456789
# Names whose order differs between strings and path components, and names that break parsers.
dir      a                 0:0         755 mtime=1700000001
file     a/b               0:0         644 mtime=1700000002.5 "in a"
file     a-b               0:0         644 mtime=1700000003.000000001 "before a/ as a string"
file     a.b               0:0         644 mtime=1700000004.999999999 "likewise"
file     "with space"      0:0         644 mtime=1 "x"
file     "new\nline"       0:0         644 mtime=0 "x"
file     "\xff\xfe latin \xe9" 0:0     644 mtime=-1 "not UTF-8"
file     ünïcødé           0:0         644 mtime=-0.5 "half a second before 1970"
file     "tab\tquote\"back\\slash" 0:0 644 mtime=9000000000 "beyond 33 bits of seconds"
file     "\x01\x7f%41=+"   0:0         644 mtime=4294967296.25 "control, percent, equals"
file     -rf               0:0         644 mtime=2147483648 "looks like an option"
file     "*"               0:0         644 mtime=1700000005 "looks like a pattern"
file     #hash             0:0         644 mtime=1700000005 "looks like a comment"
# Ids and modes.
file     id-65534          65534:65534 600 mtime=1700000006 "nobody"
file     id-mixed          1:65533     640 mtime=1700000006 "x"
file     setuid            0:0         4755 mtime=1700000006 "x"
file     setgid            33:42       2755 mtime=1700000006 "x"
file     all-bits          7:8         7777 mtime=1700000006 "x"
file     no-bits           9:10        000 mtime=1700000006 "x"
dir      dir-0555          0:0         555 mtime=1700000007
file     dir-0555/inside   5:5         444 mtime=1700000007 "in a read-only directory"
dir      dir-0000          3:3         000 mtime=1700000007
file     dir-0000/inside   3:3         600 mtime=1700000007 "behind a closed door"
dir      dir-sticky        0:0         1777 mtime=1700000007
dir      dir-setgid        0:50        2775 mtime=1700000007
dir      dir-setgid/sub    0:0         755 mtime=1700000007
# ACLs.
file     acl-named         33:33       640 mtime=1700000008 acl=u::rw-,u:1000:r--,g::r--,m::r--,o::--- "hello"
file     acl-cut           0:0         610 mtime=1700000008 acl=u::rw-,u:1000:rwx,u:65534:r--,g::rwx,g:7:r-x,m::--x,o::--- "mask cuts"
file     acl-mask-only     0:0         644 mtime=1700000008 acl=u::rw-,g::rwx,m::r--,o::r-- "nobody is named"
dir      acl-dir           0:50        2770 mtime=1700000008 acl=u::rwx,u:0:r-x,g::r-x,m::rwx,o::--- default=u::rwx,u:1:rwx,g::rwx,g:50:rwx,m::rwx,o::r-x
file     acl-dir/inherits-nothing 0:0  600 mtime=1700000008 "x"
dir      acl-dir/sub       0:0         700 mtime=1700000008
dir      acl-default-only  0:0         755 mtime=1700000008 default=u::rwx,g::r-x,o::---
# Extended attributes and capabilities.
file     xattr             0:0         644 mtime=1700000009 xattr:"user.a=b"=0x633d64 xattr:user.bin=0x00ff0a3d25 xattr:user.empty=0x xattr:user.pct%3D="50%" xattr:"user.sp ace\n"="v" "x"
dir      xattr-dir         0:0         755 mtime=1700000009 xattr:user.on-dir="=x="
file     cap-ep            0:0         755 mtime=1700000010 cap=cap_net_raw=ep "ping"
file     cap-many          0:0         755 mtime=1700000010 cap=cap_net_bind_service,cap_net_admin=eip;cap_sys_nice=ep;cap_bpf=ei "x"
file     cap-inherit       0:0         755 mtime=1700000010 cap=cap_chown=i "x"
file     cap-acl-xattr     4:4         750 mtime=1700000010 acl=u::rwx,u:9:r-x,g::r-x,m::r-x,o::--- cap=cap_setuid=ep xattr:user.k="v" "all at once"
# Links and special files.
symlink  link              0:0         nowhere mtime=1700000011.5
symlink  link-abs          1:2         /etc/passwd mtime=1700000011
symlink  link-up           0:0         ../../../../etc mtime=1700000011
symlink  link-odd          0:0         "\xff new\nline " mtime=1700000011
symlink  link-self         0:0         link-self mtime=1700000011
hardlink link-twice        link
file     many              6:6         644 mtime=1700000012 "three names"
hardlink many-2            many
hardlink a/many-3          many
fifo     fifo              0:5         620 mtime=1700000013
hardlink fifo-2            fifo
fifo     fifo-acl          0:5         620 mtime=1700000013 acl=u::rw-,u:1:r--,g::r--,m::-w-,o::---
sock     sock              5:0         755 mtime=1700000013
char     whiteout          0:0         000 0:0 mtime=1700000013
# Sparse files. Holes are at multiples of 64 KiB, which every filesystem here can keep.
file     sparse-middle     0:0         644 mtime=1700000014 size=1048576 fill=1 sparse=0+65536,983040+65536
file     sparse-end        0:0         644 mtime=1700000014 size=1000001 fill=2 sparse=0+65536
file     sparse-start      0:0         644 mtime=1700000014 size=200000 fill=3 sparse=131072+68928
file     sparse-all        0:0         644 mtime=1700000014 size=12345678 sparse=
file     sparse-large      0:0         644 mtime=1700000014 size=268435456 fill=4 sparse=134217728+65536
`

// Oddities returns the tree of everything that is easily lost: odd names, order, times and modes, ACLs, xattrs,
// capabilities, links, special files, holes, long names and targets, and sizes about the borders of blocks and frames.
func Oddities() []listing.Node {
	nodes, err := listing.Parse(oddities)
	if err != nil {
		panic("treetest: internal error: " + err.Error())
	}
	time := listing.Time{Sec: 1700000020, Nsec: 1}
	add := func(n listing.Node) {
		n.MTime = &time
		nodes = append(nodes, n)
	}
	file := func(name string, size int64) {
		seed := uint64(size)
		add(listing.Node{Type: listing.File, Name: name, Mode: 0o644, Size: size, Fill: &seed})
	}
	long := strings.Repeat("n", 255)
	add(listing.Node{Type: listing.Dir, Name: long, Mode: 0o755})
	file(long+"/"+strings.Repeat("ö", 127)+"x", 1)
	for _, length := range []int{99, 100, 101, 300} {
		target := strings.Repeat("t", length)
		add(listing.Node{Type: listing.Symlink, Name: fmt.Sprintf("link-%d", length), Target: target})
		file(strings.Repeat("f", min(length, 250)), int64(length))
	}
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	add(listing.Node{Type: listing.File, Name: "xattr-256", Mode: 0o600, Content: []byte{},
		Xattrs: []listing.Xattr{{Key: "user.all", Value: all}, {Key: "user." + strings.Repeat("k", 250), Value: []byte("v")}}})
	deep := "deep"
	for range 40 {
		add(listing.Node{Type: listing.Dir, Name: deep, Mode: 0o711})
		deep += "/" + strings.Repeat("d", 10)
	}
	for _, around := range []int64{512, 1 << 20, 4 << 20} {
		for _, off := range []int64{-1, 0, 1} {
			file(fmt.Sprintf("size-%d", around+off), around+off)
		}
	}
	file("size-0", 0)
	return nodes
}
