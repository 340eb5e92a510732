// Package sbuild holds one invariant: a tarball that passes Check is one that sbuild takes for an unshare chroot, those of Debian
// 12 (0.85) and 13 (0.89) alike, and that holds what sbuild leaves of it.
//
// The first tells compression by the name and unpacks with GNU tar, from names that begin with "./dev/" on; the second by
// the first 512 bytes, and it reads the tar stream itself, block by block, to leave device nodes out: the headers in front of
// such an entry stay and then belong to the next one, and what it takes for a size or a checksum has one form only.
package sbuild

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/nsferry/nsferry/archive/tarfmt"
	"github.com/nsferry/nsferry/archive/zframe"
)

// Error lists the rules that a tarball breaks.
type Error struct {
	Broken []string // the first ones
	Total  int
}

func (e *Error) Error() string {
	more := ""
	if n := e.Total - len(e.Broken); n > 0 {
		more = fmt.Sprintf("; and %d more", n)
	}
	return "sbuild would not take it: " + strings.Join(e.Broken, "; ") + more
}

// Tarball says what Check has seen.
type Tarball struct {
	Kind    string `json:"kind"` // zstd, gzip, xz, bzip2 or tar
	Entries int64  `json:"entries"`
}

// leastSize is what sbuild reads to tell the format.
const leastSize = 512

// suffixes are those by which sbuild of Debian 12 tells the formats that we read (Sbuild/Utility.pm); any other is plain tar.
var suffixes = map[string]zframe.Kind{
	"gz": zframe.KindGzip, "tgz": zframe.KindGzip, "taz": zframe.KindGzip,
	"bz2": zframe.KindBzip2, "tbz": zframe.KindBzip2, "tbz2": zframe.KindBzip2, "tz2": zframe.KindBzip2,
	"xz": zframe.KindXz, "txz": zframe.KindXz, "zst": zframe.KindZstd,
}

// Check reads all of the tarball in, which has size bytes and is, or will be, called name. What breaks a rule is an *Error,
// another error that it cannot be read. in stays the caller's.
func Check(ctx context.Context, in io.ReaderAt, size int64, name string, workers int) (Tarball, error) {
	c := &checker{ctx: ctx}
	kind, err := c.outside(in, size, name)
	if err != nil {
		return Tarball{}, err
	}
	if kind == zframe.KindUnknown {
		return Tarball{}, c.result()
	}
	stream, _, err := zframe.Decompress(io.NewSectionReader(in, 0, size), zframe.Options{Workers: workers})
	if err != nil {
		return Tarball{}, err
	}
	defer stream.Close()
	if err := c.stream(stream); err != nil {
		return Tarball{}, err
	}
	return Tarball{kind.String(), c.entries}, c.result()
}

// CheckOutside checks what can be known without reading all: size, first bytes, name. Who has asked CheckHeader about every entry
// that he has written needs no more.
func CheckOutside(in io.ReaderAt, size int64, name string) error {
	c := &checker{}
	if _, err := c.outside(in, size, name); err != nil {
		return err
	}
	return c.result()
}

// CheckHeader checks the headers of one entry, extension headers and their texts included.
func CheckHeader(blocks []byte) error {
	c := &checker{ctx: context.Background()}
	for len(blocks) >= tarfmt.BlockSize {
		b := [tarfmt.BlockSize]byte(blocks)
		size, err := c.header(&b)
		if err != nil {
			return err
		}
		if blocks = blocks[tarfmt.BlockSize:]; len(blocks) == 0 {
			break // the entry's own header; its data are elsewhere
		}
		if end := size + tarfmt.Padding(size); size > int64(len(blocks)) || end > int64(len(blocks)) {
			return errors.New("sbuild: internal error: headers that end within a text")
		}
		c.extension(b[156], blocks[:size])
		blocks = blocks[size+tarfmt.Padding(size):]
	}
	return c.result()
}

// outside checks size, first bytes and name.
func (c *checker) outside(in io.ReaderAt, size int64, name string) (zframe.Kind, error) {
	kind, err := zframe.Sniff(in)
	if err != nil {
		return kind, err
	}
	var head [4]byte
	if n, err := in.ReadAt(head[:], 0); n < len(head) && err != io.EOF {
		return kind, err
	}
	if size < leastSize {
		c.broken("", "%d bytes, and sbuild reads at least %d", size, leastSize)
	}
	if head[0]&0xf0 == 0x50 && string(head[1:]) == "\x2a\x4d\x18" {
		c.broken("", "the first zstd frame is a skippable one (pzstd makes such), by which sbuild does not know the format")
	}
	want := suffixes[strings.TrimPrefix(path.Ext(name), ".")]
	if want == zframe.KindUnknown {
		want = zframe.KindTar
	}
	if want != kind {
		c.broken("", "it is %s, and sbuild takes it for %s by its name", kind, want)
	}
	return kind, nil
}

// maxBroken is how many rules, each with an entry, a message names.
const maxBroken = 5

// broken notes that an entry, "" for all of the tarball, breaks a rule.
func (c *checker) broken(entry, format string, args ...any) {
	if c.found.Total++; len(c.found.Broken) == maxBroken {
		return
	}
	what := fmt.Sprintf(format, args...)
	if entry != "" {
		what = fmt.Sprintf("%.200q: %s", entry, what)
	}
	c.found.Broken = append(c.found.Broken, what)
}

func (c *checker) result() error {
	if c.found.Total == 0 {
		return nil
	}
	return &c.found
}
