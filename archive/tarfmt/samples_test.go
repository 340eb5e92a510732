package tarfmt

import (
	"bytes"
	"strings"
	"testing"
)

// item is an entry with its data segments.
type item struct {
	Header
	data []byte
}

// write puts items together as an archive.
func write(t testing.TB, items []item) []byte {
	t.Helper()
	var out []byte
	var err error
	for i := range items {
		it := &items[i]
		if out, err = it.Append(out); err != nil {
			t.Fatal(err)
		}
		at := len(out)
		out = append(it.AppendSparseMap(out), it.data...)
		if n := int64(len(out) - at); n != it.Stored() {
			t.Fatalf("%q: stored %d bytes, announced %d", it.Name, n, it.Stored())
		}
		out = append(out, make([]byte, Padding(it.Stored()))...)
	}
	return append(out, Trailer[:]...)
}

func file(name, data string) item {
	return item{Header{Name: name, Type: Reg, Mode: 0o644, Size: int64(len(data)), ModTime: Time{Sec: 1700000000}}, []byte(data)}
}

// with returns it after f has changed it.
func (it item) with(f func(*Header)) item {
	f(&it.Header)
	return it
}

func repeat(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

const longText = "0123456789/"

// oddities are entries that use every feature of the format. All of them can be extracted by root on ext4.
func oddities() []item {
	long := "./" + strings.Repeat(longText, 12)
	bytes200 := "./latin1-" + strings.Repeat("\xe9\xff", 90)
	utf200 := "./utf8-" + strings.Repeat("é", 90)
	dir := item{Header: Header{Name: "./", Type: Dir, Mode: 0o755, ModTime: Time{Sec: 1700000000}, Comment: "nsferry-archive-1"}}
	link := func(name, target string) item {
		return item{Header: Header{Name: name, Link: target, Type: Symlink, Mode: 0o777, ModTime: Time{Sec: 1600000000, Nsec: 5}}}
	}
	items := []item{
		dir,
		file("./plain", "hello"),
		file("./empty", ""),
		file("./block", string(repeat('b', 512))),
		file("./setuid", "x").with(func(h *Header) { h.Mode, h.UID, h.GID = 0o6755, 33, 65534 }),
		file("./ids", "x").with(func(h *Header) { h.UID, h.GID = 4294967294, 2097152 }),
		file("./ids-fit", "x").with(func(h *Header) { h.UID, h.GID = 2097151, 2097151 }),
		file("./ns", "x").with(func(h *Header) { h.ModTime = Time{1700000000, 123456789} }),
		file("./tenth", "x").with(func(h *Header) { h.ModTime = Time{1700000000, 100000000} }),
		file("./old", "x").with(func(h *Header) { h.ModTime = Time{-5, 0} }),
		file("./old-ns", "x").with(func(h *Header) { h.ModTime = Time{-2, 750000000} }),
		file("./future", "x").with(func(h *Header) { h.ModTime = Time{9000000000, 1} }),
		file("./new\nline", "x"),
		file("./bad\xff\xfeutf8", "x"),
		file("./ü", "x"),
		file(bytes200, "x"),
		file(utf200, "x").with(func(h *Header) { h.ModTime.Nsec = 7 }),
		file("./hundred-"+strings.Repeat("h", 90), "x"),
		file("./hundred-and-one-"+strings.Repeat("h", 83), "x"),
		file("./newline-"+strings.Repeat("\n=", 60), "x"),
		link("./sym", "../a/b"),
		link("./sym-long", strings.Repeat("t/", 150)),
		link("./sym-bytes", strings.Repeat("\xff/", 150)),
		link("./sym-both-"+strings.Repeat("\xff", 120), strings.Repeat("\xfe/", 60)),
		{Header: Header{Name: "./hard", Link: "./plain", Type: Link, Mode: 0o644, ModTime: Time{Sec: 1700000000}}},
		{Header: Header{Name: "./hard-bytes", Link: bytes200, Type: Link, Mode: 0o644, ModTime: Time{Sec: 1700000000}}},
		{Header: Header{Name: "./fifo", Type: Fifo, Mode: 0o600, ModTime: Time{Sec: 1}}},
		{Header: Header{Name: "./null", Type: Char, Mode: 0o666, DevMajor: 1, DevMinor: 3, ModTime: Time{Sec: 1}}},
		{Header: Header{Name: "./disk", Type: Block, Mode: 0o660, DevMajor: 4095, DevMinor: 1048575, ModTime: Time{Sec: 1}}},
	}
	for i, d := 0, "./"; i < 12; i++ {
		d += longText[:10] + "/"
		items = append(items, dir.with(func(h *Header) { h.Name, h.Comment, h.Mode = d, "", 0o2755 }))
	}
	items = append(items, file(long+"file", "deep"))
	return append(items, metadata()...)
}

// metadata are the oddities with xattrs, ACLs and holes.
func metadata() []item {
	sparse := func(name string, size int64, segs ...Segment) item {
		it := item{Header: Header{Name: name, Type: Reg, Mode: 0o644, Size: size, Sparse: append([]Segment{}, segs...), ModTime: Time{Sec: 1700000000}}}
		for i, s := range segs {
			it.data = append(it.data, repeat('A'+byte(i%26), int(s.Length))...)
		}
		return it
	}
	many := make([]Segment, 200)
	for i := range many {
		many[i] = Segment{int64(i) * 131072, 4096}
	}
	acl := "user::rw-,user:1000:r--,group::r--,mask::r--,other::---"
	return []item{
		file("./xattrs", "x").with(func(h *Header) {
			h.Xattrs = []Xattr{
				{"user.a%3Db", []byte("percent")}, {"user.a=b", []byte("equals=\n")}, {"user.binary", []byte("\x00\xff\n=%\x00")},
				{"user.empty", []byte{}}, {"user.large", repeat('v', 2000)},
			}
		}),
		file("./capable", "x").with(func(h *Header) {
			h.Xattrs = []Xattr{{"security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")}}
		}),
		file("./acl", "x").with(func(h *Header) { h.ACL, h.Mode = acl, 0o640 }),
		{Header: Header{Name: "./acldir/", Type: Dir, Mode: 0o750, ModTime: Time{Sec: 1700000000},
			ACL:        "user::rwx,group::r-x,group:7:rwx,mask::r-x,other::---",
			DefaultACL: "user::rwx,user:2147483647:r-x,group::r-x,mask::r-x,other::---"}},
		sparse("./holes", 1<<20, Segment{0, 4096}, Segment{65536, 1024}, Segment{1<<20 - 10, 10}),
		sparse("./holes-end", 1<<20, Segment{4096, 4096}),
		sparse("./holes-only", 1<<20),
		sparse("./holes-many", 200*131072, many...),
		sparse("./holes-"+strings.Repeat("n", 100), 300000, Segment{131072, 512}),
		sparse("./holes-"+strings.Repeat("\xff", 100), 300000, Segment{131072, 513}).with(func(h *Header) { h.ModTime.Nsec = 1 }),
	}
}
