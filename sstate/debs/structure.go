package debs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/nsferry/nsferry/archive/tarfmt"
	"github.com/nsferry/nsferry/archive/zframe"
)

// errDamaged is the error of a file that is no whole deb.
var errDamaged = errors.New("damaged")

const (
	arMagic   = "!<arch>\n"
	arHeader  = 60
	maxMember = 64 // a deb has three, and a few that start with "_"
)

// member is one file of an ar archive.
type member struct {
	name         string
	offset, size int64
}

// checkStructure tells whether the size bytes of r are a whole deb (deb(5)): an ar archive with debian-binary, control.tar and
// data.tar in this order, whose sizes add up to the last byte. It reads the headers only.
func checkStructure(r io.ReaderAt, size int64) ([]member, error) {
	if size == 0 {
		return nil, fmt.Errorf("%w: empty", errDamaged)
	}
	var buf [arHeader]byte
	if n, err := r.ReadAt(buf[:len(arMagic)], 0); n < len(arMagic) {
		return nil, short(err)
	}
	if string(buf[:len(arMagic)]) != arMagic {
		return nil, fmt.Errorf("%w: no ar archive, so no deb", errDamaged)
	}
	var all []member
	for at := int64(len(arMagic)); at != size; {
		if at > size {
			return nil, fmt.Errorf("%w: ends within %s", errDamaged, all[len(all)-1].name)
		}
		if len(all) == maxMember {
			return nil, fmt.Errorf("%w: more than %d members", errDamaged, maxMember)
		}
		if n, err := r.ReadAt(buf[:], at); n < len(buf) {
			return nil, short(err)
		}
		m, err := parseMember(buf[:])
		if err != nil {
			return nil, err
		}
		m.offset = at + arHeader
		all = append(all, m)
		at = m.offset + m.size
		if m.size%2 != 0 && at != size { // a pad byte, which some writers leave out at the end
			at++
		}
	}
	return all, checkMembers(r, all)
}

func parseMember(h []byte) (member, error) {
	if h[58] != '`' || h[59] != '\n' {
		return member{}, fmt.Errorf("%w: no header where an ar member begins", errDamaged)
	}
	size, err := strconv.ParseUint(strings.TrimRight(string(h[48:58]), " "), 10, 63)
	if err != nil {
		return member{}, fmt.Errorf("%w: an ar header without a size", errDamaged)
	}
	return member{name: strings.TrimRight(strings.TrimRight(string(h[:16]), " "), "/"), size: int64(size)}, nil
}

// checkMembers holds the order of deb(5): debian-binary, any whose names begin with "_", control.tar, data.tar, and anything more.
func checkMembers(r io.ReaderAt, all []member) error {
	rest := all
	if len(rest) == 0 || rest[0].name != "debian-binary" || rest[0].size < 4 {
		return fmt.Errorf("%w: does not begin with debian-binary", errDamaged)
	}
	var version [2]byte
	if _, err := r.ReadAt(version[:], rest[0].offset); err != nil {
		return short(err)
	}
	if string(version[:]) != "2." {
		return fmt.Errorf("%w: its format is not 2", errDamaged)
	}
	for rest = rest[1:]; len(rest) > 0 && strings.HasPrefix(rest[0].name, "_"); {
		rest = rest[1:]
	}
	for _, want := range [...]string{"control.tar", "data.tar"} {
		if len(rest) == 0 || rest[0].name != want && !strings.HasPrefix(rest[0].name, want+".") {
			return fmt.Errorf("%w: has no %s where it belongs", errDamaged, want)
		}
		rest = rest[1:]
	}
	return nil
}

func short(err error) error {
	if err == nil || err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: truncated", errDamaged)
	}
	return err
}

// maxControl bounds what is read of a control member, unpacked: real ones have some KiB, md5sums included.
const maxControl = 64 << 20

// readControl returns the package that the deb in r says it is.
func readControl(r io.ReaderAt, size int64) (Package, error) {
	all, err := checkStructure(r, size)
	if err != nil {
		return Package{}, err
	}
	for _, m := range all {
		if strings.HasPrefix(m.name, "control.tar") {
			text, err := controlFile(io.NewSectionReader(r, m.offset, m.size))
			if err != nil {
				return Package{}, fmt.Errorf("%w: %s: %w", errDamaged, m.name, err)
			}
			f := fields(text, "Package", "Version", "Architecture")
			return Package{Name: f[0], Version: f[1], Arch: f[2]}, nil
		}
	}
	panic("debs: internal error: a checked deb has no control.tar")
}

// controlFile returns the file "control" of a tar archive.
func controlFile(r io.Reader) ([]byte, error) {
	raw, _, err := zframe.Decompress(r, zframe.Options{Workers: 1, MaxRaw: maxControl})
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	tr := tarfmt.NewReader(raw, tarfmt.Limits{})
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return nil, errors.New("has no file control")
		}
		if err != nil {
			return nil, err
		}
		if strings.TrimPrefix(h.Name, "./") == "control" {
			return io.ReadAll(io.LimitReader(tr, 1<<20))
		}
	}
}

// fields returns the values of fields of the first stanza of a control file, "" for what it lacks. Names are matched as written; what
// dpkg and apt write is always spelt so.
func fields(stanza []byte, names ...string) []string {
	values := make([]string, len(names))
	for line := range bytes.Lines(stanza) {
		if len(bytes.TrimSpace(line)) == 0 {
			break
		}
		key, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			continue
		}
		for i, name := range names {
			if string(key) == name {
				values[i] = string(bytes.TrimSpace(value))
			}
		}
	}
	return values
}
