package ferry

import (
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/nsferry/nsferry/archive/tarfmt"
)

// attack is an archive and what must become of it. Outside of the target nothing ever changes.
type attack struct {
	name    string
	archive []byte
	// bad is in the message of the refusal: the entry's name, mostly. Empty: the archive is legal and gives the tree.
	bad  string
	tree string // without mtimes; "" for legal archives: only that it is taken is checked
	// when limits it to environments: "map" to those where not every id has a place, "any" takes refusal and tree.
	when string
}

var long250 = strings.Repeat("n", 250)

// nameAttacks lead out by the names of entries. outside is, in all of these, the path of the canary's directory, with a "/".
func nameAttacks(outside string) []attack {
	return []attack{
		{name: "name with ..", archive: tarball(dir("./"), file("../evil", "x")), bad: `"../evil"`},
		{name: "name with .. in the middle", archive: tarball(file("a/../../evil", "x")), bad: `"a/../../evil"`},
		{name: "name with .. behind ./", archive: tarball(file("./../evil", "x")), bad: `"./../evil"`},
		{name: "name with .. that would stay inside", archive: tarball(file("a/../b", "x")), bad: `"a/../b"`},
		{name: "absolute name with ..", archive: tarball(file("/../evil", "x")), bad: `"/../evil"`},
		{name: ".. as a directory", archive: tarball(dir("..")), bad: `".."`},
		{name: "a/.. as a directory", archive: tarball(dir("a/..")), bad: `"a/.."`},
		{name: ".. in the prefix field", archive: tarball(raw('0', "evil", "", 0, at(345, "../.."))), bad: `"../../evil"`},
		{name: ".. in a pax path", archive: tarball(pax("path=../evil"), raw('0', "ok", "", 0)), bad: `"../evil"`},
		{name: ".. in a GNU long name", archive: tarball(ext('L', "../evil\x00"), raw('0', "ok", "", 0)), bad: `"../evil"`},
		{name: ".. in GNU.sparse.name", archive: tarball(pax("GNU.sparse.name=../evil", "GNU.sparse.realsize=0", "GNU.sparse.numblocks=0"), raw('0', "ok", "", 0)), bad: `"../evil"`},
		{name: ".. in a global pax path", archive: tarball(ext('g', paxRecords("path=../evil")), raw('0', "ok", "", 0)), bad: `"../evil"`},
		{name: "NUL in a pax path", archive: tarball(pax("path=ok\x00/../evil"), raw('0', "ok", "", 0)), bad: `"ok"`},
		{name: "NUL in a pax link", archive: tarball(pax("linkpath=a\x00b"), raw('2', "ok", "x", 0)), bad: `"ok"`},
		{name: "NUL in a GNU long name", archive: tarball(raw('0', "first", "", 0), ext('L', "ok\x00evil"), raw('0', "ok", "", 0)), bad: `"first"`},
		{name: "no name", archive: tarball(raw('0', "first", "", 0), raw('0', "", "", 0)), bad: `"first"`},
		{name: ". as a file", archive: tarball(file(".", "x")), bad: `"."`},
		{name: ". as a symlink", archive: tarball(sym(".", outside)), bad: `"."`},
		{name: "./ as a symlink", archive: tarball(raw('2', "./", outside, 0), file("./evil", "x")), bad: `"./"`},
		{name: "/ as a symlink", archive: tarball(sym("/", outside)), bad: `"/"`},
		{name: ". as a fifo", archive: tarball(fifo(".")), bad: `"."`},
		{name: ". as a hard link", archive: tarball(file("f", "x"), hard(".", "f")), bad: `"."`},
		{name: "name of 256 bytes", archive: tarball(file(strings.Repeat("n", 256), "x")), bad: "nnn"},
		{name: "more levels than memory", archive: zst(tarball(file(strings.Repeat("d/", 3<<20)+"f", "x"))), bad: `"d/d/`},
		{name: "a link of 5000 bytes", archive: tarball(sym("l", strings.Repeat("x", 5000))), bad: `"l"`},
		{name: "a hidden entry in the data of a directory", archive: tarball(raw('5', "d", "", 512), raw('0', "../evil", "", 0)), bad: `"../evil"`},
	}
}

// linkAttacks lead out by links.
func linkAttacks(outside string) []attack {
	return []attack{
		{name: "through a symlink to ..", archive: tarball(sym("l", ".."), file("l/canary", "x")), tree: "dir . 0:0 755\nfile canary 0:0 644 \"x\"\nsymlink l 0:0 .."},
		{name: "through a symlink that climbs", archive: tarball(sym("l", "../../../canary-dir"), file("l/evil", "x")), bad: `"l/evil"`},
		{name: "through an absolute symlink", archive: tarball(sym("l", outside+"canary-dir"), file("l/evil", "x")), bad: `"l/evil"`},
		{name: "through two symlinks", archive: tarball(sym("a", ".."), sym("b", "a/.."), file("b/canary", "x")), tree: "dir . 0:0 755\nfile canary 0:0 644 \"x\"\nsymlink a 0:0 ..\nsymlink b 0:0 a/.."},
		{name: "through a symlink in a symlinked directory", archive: tarball(dir("d"), sym("l", "d"), sym("l/m", "../.."), file("d/m/canary", "x")), tree: "dir . 0:0 755\nfile canary 0:0 644 \"x\"\ndir d 0:0 755\nsymlink d/m 0:0 ../..\nsymlink l 0:0 d"},
		{name: "through /proc/self/root", archive: tarball(sym("l", "/proc/self/root"), file("l/evil", "x")), bad: `"l/evil"`},
		{name: "through /proc/self/cwd", archive: tarball(sym("l", "/proc/self/cwd/.."), file("l/evil", "x")), bad: `"l/evil"`},
		{name: "directory through a symlink", archive: tarball(sym("l", outside), dir("l/canary-dir", mode(0o777))), bad: `"l/canary-dir"`},
		{name: "chmod of a symlink's target", archive: tarball(sym("l", outside+"canary"), raw('0', "l", "", 0, at(100, "0006777"))), tree: "dir . 0:0 755\nfile l 0:0 6777 \"\""},
		{name: "file over a symlink", archive: tarball(sym("l", outside+"canary"), file("l", "evil")), tree: "dir . 0:0 755\nfile l 0:0 644 \"evil\""},
		{name: "large file over a symlink", archive: zst(tarball(sym("l", outside+"canary"), file("l", strings.Repeat("e", 2<<20)))), when: "legal"},
		{name: "fifo over a symlink", archive: tarball(sym("l", outside+"canary"), fifo("l")), tree: "dir . 0:0 755\nfifo l 0:0 644"},
		{name: "directory over a symlink", archive: tarball(sym("l", outside+"canary-dir"), dir("l", mode(0o777)), file("l/evil", "x")), tree: "dir . 0:0 755\ndir l 0:0 777\nfile l/evil 0:0 644 \"x\""},
		{name: "empty directory becomes a symlink and a parent", archive: tarball(dir("d"), sym("d", outside+"canary-dir"), file("d/evil", "x")), bad: `"d/evil"`},
		{name: "full directory becomes a symlink", archive: tarball(dir("d"), dir("d/e"), sym("d", outside+"canary-dir"), file("d/evil", "x")), bad: `"d"`},
		{name: "hard link out by name", archive: tarball(hard("h", "../canary")), bad: `"h"`},
		{name: "hard link out by absolute name", archive: tarball(hard("h", outside+"canary")), bad: `"h"`},
		{name: "hard link through a symlink", archive: tarball(sym("l", ".."), hard("h", "l/canary")), bad: `"h"`},
		{name: "hard link through an absolute symlink", archive: tarball(sym("l", outside), hard("h", "l/canary")), bad: `"h"`},
		{name: "hard link to a symlink, then a file over it", archive: tarball(sym("l", outside+"canary"), hard("h", "l"), file("h", "evil")), when: "legal"},
		{name: "hard link to a symlink with a mode of its own", archive: tarball(sym("l", outside+"canary"), raw('1', "h", "l", 0, at(100, "0000777"))), when: "legal"},
		{name: "hard link to a symlink, then a directory over it", archive: tarball(sym("l", outside+"canary-dir"), hard("h", "l"), dir("h"), file("h/evil", "x")), when: "legal"},
		{name: "hard link to itself", archive: tarball(file("f", "x"), hard("f", "f")), bad: `"f"`},
		{name: "hard link to itself in other words", archive: tarball(dir("d"), sym("l", "d"), file("d/f", "x"), hard("d/f", "./l//f")), bad: `"d/f"`},
		{name: "hard link to nothing", archive: tarball(hard("h", "gone")), bad: `"h"`},
		{name: "hard link before its target", archive: tarball(hard("h", "f"), file("f", "x")), bad: `"h"`},
		{name: "hard link to a directory", archive: tarball(dir("d"), hard("h", "d")), bad: `"h"`},
		{name: "hard link to the root", archive: tarball(dir("d"), hard("h", "/")), bad: `"h"`},
		{name: "hard link without a target", archive: tarball(raw('1', "h", "", 0)), bad: `"h"`},
		{name: "symlink without a target", archive: tarball(raw('2', "l", "", 0)), bad: `"l"`},
		{name: "symlinks in a circle", archive: tarball(sym("a", "b"), sym("b", "a"), file("a/x", "x")), bad: `"a/x"`},
		{name: "symlink to itself as parent", archive: tarball(sym("a", "a"), file("a/x", "x")), bad: `"a/x"`},
		{name: "forty-one symlinks", archive: tarball(sym("a", "."), file(strings.Repeat("a/", 41)+"x", "x")), tree: "dir . 0:0 755\nsymlink a 0:0 .\nfile x 0:0 644 \"x\"", when: "any"},
		{name: "file as parent", archive: tarball(file("f", "x"), file("f/g", "x")), bad: `"f/g"`},
		{name: "fifo as parent", archive: tarball(fifo("p"), file("p/g", "x")), bad: `"p/g"`},
		{name: "file over a fifo", archive: tarball(fifo("p"), file("p", "x")), tree: "dir . 0:0 755\nfile p 0:0 644 \"x\""},
		{name: "hard link to a fifo, file over it", archive: tarball(fifo("p"), hard("q", "p"), file("q", "x")), tree: "dir . 0:0 755\nfifo p 0:0 644\nfile q 0:0 644 \"x\""},
		{name: "file over a device", archive: tarball(device(tarfmt.Char, "d", 1, 3), file("d", "x")), tree: "dir . 0:0 755\nfile d 0:0 644 \"x\""},
		{name: "whiteout as parent", archive: tarball(device(tarfmt.Char, "d", 0, 0), file("d/x", "x")), bad: `"d/x"`},
	}
}

// fieldAttacks have fields that lie.
func fieldAttacks() []attack {
	file0 := raw('0', "f", "", 0)
	sparse1 := func(realSize, stored int64, smap string) []byte {
		return tarball(pax("GNU.sparse.major=1", "GNU.sparse.minor=0", fmt.Sprint("GNU.sparse.realsize=", realSize)), raw('0', "f", "", stored), padded(smap), make([]byte, 1024))
	}
	return []attack{
		{name: "uid 4294967295", archive: tarball(pax("uid=4294967295"), file0), bad: `"f"`},
		{name: "gid 4294967296", archive: tarball(pax("gid=4294967296"), file0), bad: `"f"`},
		{name: "uid of 30 digits", archive: tarball(pax("uid="+strings.Repeat("9", 30)), file0), bad: `"f"`},
		{name: "uid -1 in pax", archive: tarball(pax("uid=-1"), file0), bad: `"f"`},
		{name: "uid -1 in base 256", archive: tarball(raw('0', "f", "", 0, at(108, "\xff\xff\xff\xff\xff\xff\xff\xff"))), bad: `"f"`},
		{name: "uid 65536 of 65536", archive: tarball(file("f", "x", owner(65536, 0))), bad: "uid 65536", when: "map"},
		{name: "gid 70000 of 65536", archive: tarball(file("a", "x", owner(0, 70000)), file("b", "y", owner(70001, 0))), bad: "uid 70001", when: "map"},
		{name: "ACL with an id without a place", archive: tarball(file("f", "x", func(h *tarfmt.Header) { h.ACL = "user::rwx,user:70000:rwx,group::r-x,mask::rwx,other::---" })), bad: "uid 70000", when: "map"},
		{name: "pax size beats ustar size", archive: tarball(pax("size=3"), raw('0', "f", "", 512), padded("abc")), tree: "dir . 0:0 755\nfile f 0:0 644 \"abc\""},
		{name: "negative pax size", archive: tarball(pax("size=-1"), file0), bad: `"f"`},
		{name: "negative size in base 256", archive: tarball(raw('0', "f", "", 0, at(124, strings.Repeat("\xff", 12)))), bad: `"f"`},
		{name: "size beyond 2^62", archive: tarball(pax("size=9223372036854775807"), file0), bad: `"f"`},
		{name: "size 2^62 and no data", archive: tarball(pax("size=4611686018427387904"), file0), bad: `"f"`},
		{name: "hard link that skips 2^62 bytes", archive: tarball(file("f", "x"), pax("size=4611686018427387904"), raw('1', "h", "f", 0)), bad: "h"},
		{name: "pax header of 2^40 bytes", archive: tarball(file("first", ""), raw('x', "p", "", 0, at(124, "\x80\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00"))), bad: `"first"`},
		{name: "pax length beyond the header", archive: tarball(ext('x', "99 path=x\n"), file0), bad: `"f"`},
		{name: "pax length too short", archive: tarball(ext('x', "5 path=x\n"), file0), bad: `"f"`},
		{name: "pax length 0", archive: tarball(ext('x', "0 path=x\n"), file0), bad: `"f"`},
		{name: "pax record without end", archive: tarball(ext('x', "9 path=xy"), file0), bad: `"f"`},
		{name: "pax header for nothing", archive: tarball(file0, pax("path=x")), bad: `"f"`},
		{name: "pax header upon pax header", archive: tarball(many(3, func(int) []byte { return pax("path=a") }), file0), tree: "dir . 0:0 755\nfile a 0:0 644 \"\""},
		{name: "sparse map of 2^40 segments", archive: sparse1(100, 512, "1099511627776\n0\n1\n"), bad: `"f"`},
		{name: "sparse map that goes on", archive: sparse1(100, 512, strings.Repeat("1", 512)), bad: `"f"`},
		{name: "sparse segments that overlap", archive: sparse1(100, 512+20, "2\n0\n10\n5\n10\n"), bad: `"f"`},
		{name: "sparse segments in reverse", archive: sparse1(100, 512+20, "2\n50\n10\n5\n10\n"), bad: `"f"`},
		{name: "sparse segment beyond the end", archive: sparse1(100, 512+10, "1\n95\n10\n"), bad: `"f"`},
		{name: "sparse segment beyond 2^63", archive: sparse1(100, 512+10, "1\n9223372036854775800\n10\n"), bad: `"f"`},
		{name: "sparse map with more data than there are", archive: sparse1(1<<40, 512, "1\n0\n1099511627776\n"), bad: `"f"`},
		{name: "sparse map with a minus", archive: sparse1(100, 512, "1\n-1\n1\n"), bad: `"f"`},
		{name: "sparse map in 0.1 with an odd number", archive: tarball(pax("GNU.sparse.map=0,1,2", "GNU.sparse.size=10"), raw('0', "f", "", 1), padded("x")), bad: `"f"`},
		{name: "sparse map in 0.0 with two offsets", archive: tarball(pax("GNU.sparse.offset=0", "GNU.sparse.offset=1", "GNU.sparse.size=10"), file0), bad: `"f"`},
		{name: "sparse file of 2^62 bytes", archive: sparse1(1<<62, 512, "0\n"), bad: " f: ", when: "any"},
		{name: "xattr longer than 64 KiB", archive: tarball(file("f", "x", xattr("user.x", strings.Repeat("x", 65537)))), bad: " f: "},
		{name: "xattr name longer than 255", archive: tarball(file("f", "x", xattr("user."+long250+long250, "x"))), bad: " f: "},
		{name: "xattrs without a place in a list", archive: tarball(file("f", "x", func(h *tarfmt.Header) {
			for i := range 20000 {
				h.Xattrs = append(h.Xattrs, tarfmt.Xattr{Key: fmt.Sprintf("user.%06d", i), Value: []byte{}})
			}
		})), bad: " f: "},
		{name: "xattr trusted", archive: tarball(file("f", "x", xattr("trusted.overlay.opaque", "y"))), tree: "dir . 0:0 755\nfile f 0:0 644 \"x\""},
		{name: "xattr of no namespace", archive: tarball(file("f", "x", xattr("evil", "y"))), tree: "dir . 0:0 755\nfile f 0:0 644 \"x\""},
		{name: "xattr empty", archive: tarball(file("f", "x", xattr("user.e", ""))), tree: "dir . 0:0 755\nfile f 0:0 644 xattr:user.e=0x \"x\""},
		{name: "user attribute of a symlink", archive: tarball(pax("SCHILY.xattr.user.x=y"), raw('2', "l", "f", 0)), bad: " l: "},
		{name: "capability malformed", archive: tarball(file("f", "x", xattr("security.capability", "evil"))), bad: `"f"`},
		{name: "capability empty", archive: tarball(file("f", "x", xattr("security.capability", ""))), bad: `"f"`},
		{name: "capability of revision 9", archive: tarball(file("f", "x", xattr("security.capability", "\x00\x00\x00\x09"+strings.Repeat("\x00", 16)))), bad: `"f"`},
		{name: "ACL malformed", archive: tarball(file("f", "x", func(h *tarfmt.Header) { h.ACL = "user::rwx,evil" })), bad: `"f"`},
		{name: "ACL without an owner", archive: tarball(file("f", "x", func(h *tarfmt.Header) { h.ACL = "user:5:rwx,group::r-x,mask::rwx,other::---" })), bad: `"f"`},
		{name: "ACL with id -1", archive: tarball(file("f", "x", func(h *tarfmt.Header) {
			h.ACL = "user::rwx,user:4294967295:rwx,group::r-x,mask::rwx,other::---"
		})), bad: `"f"`},
		{name: "ACL as a broken attribute", archive: tarball(pax("SCHILY.xattr.system.posix_acl_access=evil"), file0), bad: `"f"`},
		{name: "default ACL of a file", archive: tarball(file("f", "x", func(h *tarfmt.Header) { h.DefaultACL = "user::rwx,group::r-x,other::---" })), bad: `"f"`},
		{name: "ACL of a symlink", archive: tarball(pax("SCHILY.acl.access=user::rwx,user:5:rwx,group::r-x,mask::rwx,other::---"), raw('2', "l", "f", 0)), tree: "dir . 0:0 755\nsymlink l 0:0 f"},
		{name: "continued on another volume", archive: tarball(file("f", "x"), raw('M', "g", "", 0)), bad: `"f"`},
		{name: "wrong checksum", archive: append(file("f", "x"), at7(raw('0', "g", "", 0))...), bad: `"f"`},
		{name: "single zero block", archive: tarball(file("f", "x"), make([]byte, 512), file("g", "x")), bad: `"f"`},
		{name: "no end", archive: file("f", "x"), bad: `"f"`},
		{name: "no entries", archive: tarball(), bad: "no entries"},
		{name: "nothing", archive: nil, bad: "empty"},
		{name: "no archive", archive: []byte(strings.Repeat("evil", 1000)), bad: "neither a tar"},
	}
}

func at7(b []byte) []byte { b[7] ^= 1; return b }

// bombs are small and would be large.
func bombs() []attack {
	xzBlock := []byte{2, 0, 0x21, 1, 40, 0, 0, 0} // a dictionary of 4 GiB
	xz := append([]byte("\xfd7zXZ\x00\x00\x01"), le32(crc32.ChecksumIEEE([]byte{0, 1}))...)
	xz = append(append(xz, xzBlock...), le32(crc32.ChecksumIEEE(xzBlock))...)
	skip := func(size int64) []byte { // data that go nowhere: only decoding costs
		return append(file("f", ""), append(pax(fmt.Sprint("size=", size)), raw('1', "h", "f", 0)...)...)
	}
	value := strings.Repeat("v", 60<<10)
	heavy := func(h *tarfmt.Header) {
		for i := range 100 {
			h.Xattrs = append(h.Xattrs, tarfmt.Xattr{Key: fmt.Sprintf("user.%03d", i), Value: []byte(value)})
		}
	}
	return []attack{
		{name: "zstd ratio", archive: frame(20, skip(1<<40), 60000), bad: "ratio"},
		{name: "zstd window of 2 GiB", archive: frame(31, skip(1<<30), 100), bad: "window"},
		{name: "zstd window of 256 MiB", archive: frame(28, skip(1<<30), 3000), bad: "window"},
		{name: "zstd window of 128 MiB", archive: frame(27, skip(1<<40), 4000), bad: "ratio"},
		{name: "xz dictionary of 4 GiB", archive: append(xz, make([]byte, 100)...), bad: "dictionary"},
		{name: "pax header of 9 MiB", archive: zst(tarball(file("first", ""), pax("comment="+strings.Repeat("c", 9<<20)), file("f", ""))), bad: `"first"`},
		{name: "pax headers without end", archive: zst(tarball(file("first", ""), many(20000, func(int) []byte { return pax("comment=c") }))), bad: `"first"`},
		{name: "long names without end", archive: zst(tarball(file("first", ""), many(20000, func(int) []byte { return ext('L', "name\x00") }))), bad: `"first"`},
		{name: "long links without end", archive: zst(tarball(file("first", ""), many(20000, func(int) []byte { return ext('K', "name\x00") }))), bad: `"first"`},
		{name: "global headers without end", archive: zst(tarball(many(20000, func(int) []byte { return ext('g', paxRecords("comment="+value[:1000])) }))), bad: "global"},
		{name: "old sparse map without end", archive: zst(append(raw('S', "f", "", 0, at(257, "ustar  \x00"), at(386, "00000000000\x0000000000000\x00"), at(482, "\x01"), at(483, "00000000100\x00")),
			many(60000, func(int) []byte {
				b := make([]byte, 512)
				b[504] = 1
				copy(b, "00000000000\x0000000000000\x00")
				return b
			})...)), bad: `"f"`},
		{name: "heavy directories, nested", archive: zst(tarball(many(60, func(i int) []byte { return dir(strings.Repeat("d/", i+1), heavy) }))), bad: "attributes", when: "any"},
		{name: "heavy files", archive: zst(tarball(many(60, func(i int) []byte { return file(fmt.Sprint(i), "x", heavy) }))), bad: "setxattr", when: "any"},
		{name: "long paths", archive: zst(tarball(many(200, func(i int) []byte { return file(strings.Repeat(long250+"/", 1000)+fmt.Sprint(i), "x") }))), when: "legal"},
		{name: "ids without a place", archive: zst(tarball(many(30000, func(i int) []byte { return file(fmt.Sprint(i), "", owner(uint32(100000+i), 0)) }))), bad: "10000 ids", when: "map"},
		{name: "names of attributes", archive: zst(tarball(many(2000, func(i int) []byte {
			return file(fmt.Sprint(i), "", func(h *tarfmt.Header) {
				for k := range 100 {
					h.Xattrs = append(h.Xattrs, tarfmt.Xattr{Key: fmt.Sprintf("zz.%08d.%03d", i, k), Value: []byte{}})
				}
			})
		}))), when: "legal"},
	}
}

func le32(n uint32) []byte { return []byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)} }

// legal are archives that must never be refused, however odd they look.
func legal(outside string) []attack {
	return []attack{
		{name: "absolute symlinks", archive: tarball(dir("./"), dir("./usr/"), sym("./bin", "/usr/bin"), sym("./x", "//usr/../usr")), tree: "dir . 0:0 755\nsymlink bin 0:0 /usr/bin\ndir usr 0:0 755\nsymlink x 0:0 //usr/../usr"},
		{name: "absolute hard links", archive: tarball(file("./f", "x"), hard("./h", "/f")), tree: "dir . 0:0 755\nfile f 0:0 644 \"x\"\nhardlink h f"},
		{name: "absolute names", archive: tarball(dir("/"), dir("/d"), file("//d//f", "x")), tree: "dir . 0:0 755\ndir d 0:0 755\nfile d/f 0:0 644 \"x\""},
		{name: "closed directories", archive: tarball(dir("d", mode(0o555)), dir("z", mode(0)), file("d/f", "x"), file("z/f", "y"), dir("z/d", mode(0))), tree: "dir . 0:0 755\ndir d 0:0 555\nfile d/f 0:0 644 \"x\"\ndir z 0:0 000\ndir z/d 0:0 000\nfile z/f 0:0 644 \"y\""},
		{name: "closed root", archive: tarball(dir("./", mode(0)), file("./f", "x")), tree: "dir . 0:0 000\nfile f 0:0 644 \"x\""},
		{name: "whiteout", archive: tarball(device(tarfmt.Char, "w", 0, 0)), tree: "dir . 0:0 755\nchar w 0:0 644 0:0"},
		{name: "below rootfs/", archive: tarball(dir("rootfs/", mode(0o711)), file("rootfs/f", "x"), hard("rootfs/h", "rootfs/f")), tree: "dir . 0:0 711\nfile f 0:0 644 \"x\"\nhardlink h f"},
		{name: "hard links to anything", archive: tarball(sym("l", "x"), hard("l2", "l"), fifo("p"), hard("p2", "p"), device(tarfmt.Char, "w", 0, 0), hard("w2", "w")),
			tree: "dir . 0:0 755\nsymlink l 0:0 x\nhardlink l2 l\nfifo p 0:0 644\nhardlink p2 p\nchar w 0:0 644 0:0\nhardlink w2 w"},
		{name: "GNU long names", archive: tarball(ext('L', long250+"\x00"), ext('K', "/"+long250+"\x00"), raw('2', "cut", "cut", 0)), tree: "dir . 0:0 755\nsymlink " + long250 + " 0:0 /" + long250},
		{name: "empty files", archive: tarball(file("e", ""), raw('\x00', "v7", "", 0)), tree: "dir . 0:0 755\nfile e 0:0 644 \"\"\nfile v7 0:0 644 \"\""},
		{name: "directories after their contents", archive: tarball(file("a/b/f", "x"), dir("a/b", mode(0o500)), dir("a", mode(0o711)), dir("./", mode(0o700))),
			tree: "dir . 0:0 700\ndir a 0:0 711\ndir a/b 0:0 500\nfile a/b/f 0:0 644 \"x\""},
		{name: "parents without an entry", archive: tarball(file("a/b/f", "x", owner(1, 2))), tree: "dir . 0:0 755\ndir a 0:0 755\ndir a/b 0:0 755\nfile a/b/f 1:2 644 \"x\""},
		{name: "odd names", archive: tarball(file("a\r\nb", ""), file("c\\..\\d", ""), file("...", ""), file("..a", ""), file("-rf", ""), file("\xff\xfe", ""), file(" ", "")),
			tree: "dir . 0:0 755\nfile \" \" 0:0 644 \"\"\nfile -rf 0:0 644 \"\"\nfile ... 0:0 644 \"\"\nfile ..a 0:0 644 \"\"\nfile \"a\\r\\nb\" 0:0 644 \"\"\nfile \"c\\\\..\\\\d\" 0:0 644 \"\"\nfile \"\\xff\\xfe\" 0:0 644 \"\""},
		{name: "setuid and sticky", archive: tarball(file("su", "x", mode(0o4755), owner(0, 5)), dir("tmp", mode(0o1777)), dir("sg", mode(0o2775), owner(1, 50)), file("sg/f", "x", owner(1, 2))),
			tree: "dir . 0:0 755\ndir sg 1:50 2775\nfile sg/f 1:2 644 \"x\"\nfile su 0:5 4755 \"x\"\ndir tmp 0:0 1777"},
		{name: "longer than PATH_MAX", archive: tarball(file(strings.Repeat(long250+"/", 30)+"f", "x")), when: "legal"},
		{name: "device nodes", archive: tarball(device(tarfmt.Char, "null", 1, 3), device(tarfmt.Block, "loop", 7, 0)), when: "legal"},
		{name: "volume label", archive: tarball(raw('V', "label", "", 0), file("f", "x")), tree: "dir . 0:0 755\nfile f 0:0 644 \"x\""},
		{name: "followed by zeros", archive: append(tarball(file("f", "x")), make([]byte, 10240)...), tree: "dir . 0:0 755\nfile f 0:0 644 \"x\""},
		{name: "duplicates", archive: tarball(many(49, func(i int) []byte {
			return append(kind(i/7, fmt.Sprintf("%d-%d", i/7, i%7), outside), kind(i%7, fmt.Sprintf("%d-%d", i/7, i%7), outside)...)
		})), tree: duplicates(outside)},
	}
}

// kind is an entry of one of seven sorts; the file that hard links lead to is made again each time, to no effect.
func kind(i int, name, outside string) []byte {
	switch i {
	case 0:
		return file(name, "x")
	case 1:
		return append(file("t"+name, "t"), hard(name, "t"+name)...)
	case 2:
		return sym(name, outside+"canary")
	case 3:
		return device(tarfmt.Char, name, 0, 0)
	case 4:
		return file(name, "y", mode(0o6755))
	case 5:
		return dir(name)
	}
	return fifo(name)
}

// duplicates is the tree that the matrix of kinds gives: of each name what its second entry says.
func duplicates(outside string) string {
	lines := []string{"dir . 0:0 755"}
	for a := range 7 {
		for b := range 7 {
			name := fmt.Sprintf("%d-%d", a, b)
			if a == 1 || b == 1 {
				lines = append(lines, "file t"+name+" 0:0 644 \"t\"")
			}
			lines = append(lines, []string{"file " + name + " 0:0 644 \"x\"", "", "symlink " + name + " 0:0 " + outside + "canary",
				"char " + name + " 0:0 644 0:0", "file " + name + " 0:0 6755 \"y\"", "dir " + name + " 0:0 755", "fifo " + name + " 0:0 644"}[b])
			if b == 1 { // the first name in order has the line
				lines[len(lines)-2] = "file " + name + " 0:0 644 \"t\""
				lines[len(lines)-1] = "hardlink t" + name + " " + name
			}
		}
	}
	return strings.Join(lines, "\n")
}
