package ferry

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/nsferry/nsferry/archive/tarfmt"
)

// entry is a well-formed entry with what edit makes of it.
func entry(typ tarfmt.Type, name, link, data string, edit ...func(*tarfmt.Header)) []byte {
	h := &tarfmt.Header{Name: name, Link: link, Type: typ, Mode: 0o644, ModTime: tarfmt.Time{Sec: 1000000000}, Size: int64(len(data))}
	for _, f := range edit {
		f(h)
	}
	b, err := h.Append(nil)
	if err != nil {
		panic(err) // the table is wrong
	}
	return append(b, padded(data)...)
}

func dir(name string, edit ...func(*tarfmt.Header)) []byte {
	return entry(tarfmt.Dir, name, "", "", append([]func(*tarfmt.Header){mode(0o755)}, edit...)...)
}

func file(name, data string, edit ...func(*tarfmt.Header)) []byte {
	return entry(tarfmt.Reg, name, "", data, edit...)
}

func sym(name, to string) []byte { return entry(tarfmt.Symlink, name, to, "", mode(0o777)) }

func hard(name, to string) []byte { return entry(tarfmt.Link, name, to, "") }

func fifo(name string) []byte { return entry(tarfmt.Fifo, name, "", "") }

func device(typ tarfmt.Type, name string, major, minor uint32) []byte {
	return entry(typ, name, "", "", func(h *tarfmt.Header) { h.DevMajor, h.DevMinor = major, minor })
}

func mode(m uint32) func(*tarfmt.Header) { return func(h *tarfmt.Header) { h.Mode = m } }

func owner(uid, gid uint32) func(*tarfmt.Header) {
	return func(h *tarfmt.Header) { h.UID, h.GID = uid, gid }
}

func xattr(key, value string) func(*tarfmt.Header) {
	return func(h *tarfmt.Header) { h.Xattrs = append(h.Xattrs, tarfmt.Xattr{Key: key, Value: []byte(value)}) }
}

func padded(data string) []byte {
	return append([]byte(data), make([]byte, tarfmt.Padding(int64(len(data))))...)
}

// raw is a ustar block with any bytes in its fields, and a good checksum.
func raw(flag byte, name, link string, size int64, edit ...func(b []byte)) []byte {
	b := make([]byte, tarfmt.BlockSize)
	copy(b[:100], name)
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	copy(b[124:], fmt.Sprintf("%011o\x00%011o\x00", size, 1000000000))
	b[156] = flag
	copy(b[157:257], link)
	copy(b[257:], "ustar\x0000")
	for _, f := range edit {
		f(b)
	}
	copy(b[148:], "        ")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// at writes bytes into a raw block.
func at(off int, s string) func(b []byte) { return func(b []byte) { copy(b[off:], s) } }

// ext is an extension header with its data.
func ext(flag byte, data string) []byte {
	return append(raw(flag, "././@x", "", int64(len(data))), padded(data)...)
}

// pax is a pax header of KEY=VALUE records; it belongs in front of the entry that it is about.
func pax(records ...string) []byte { return ext('x', paxRecords(records...)) }

func paxRecords(records ...string) string {
	var b strings.Builder
	for _, r := range records {
		n := len(r) + 2
		for digits := 1; ; digits++ {
			if text := fmt.Sprint(n + digits); len(text) == digits {
				fmt.Fprintf(&b, "%s %s\n", text, r)
				break
			}
		}
	}
	return b.String()
}

// tarball puts entries together and ends the archive.
func tarball(parts ...[]byte) []byte {
	return append(slices.Concat(parts...), tarfmt.Trailer[:]...)
}

func zst(b []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	return w.EncodeAll(b, nil)
}

// frame is a zstd frame made by hand (RFC 8878): head as it is, then zeros in blocks of 128 KiB that take four bytes each.
// windowLog is that of its header.
func frame(windowLog int, head []byte, zeroBlocks int) []byte {
	b := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, byte(windowLog-10) << 3}
	block := func(last, typ, size int) {
		b = binary.LittleEndian.AppendUint32(b, uint32(size<<3|typ<<1|last))[:len(b)+3]
	}
	block(0, 0, len(head))
	b = append(b, head...)
	for range zeroBlocks {
		block(0, 1, 128<<10)
		b = append(b, 0)
	}
	block(1, 0, 0)
	return b
}

// many joins n pieces.
func many(n int, piece func(i int) []byte) []byte {
	var b bytes.Buffer
	for i := range n {
		b.Write(piece(i))
	}
	return b.Bytes()
}
