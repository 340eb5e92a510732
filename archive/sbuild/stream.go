package sbuild

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"

	"github.com/nsferry/nsferry/archive/tarfmt"
	"github.com/nsferry/nsferry/archive/zframe"
)

// checker walks a tar stream as sbuild does, header block by header block, and knows of extension headers only what is needed to
// name the entries.
type checker struct {
	ctx     context.Context
	found   Error
	entries int64
	long    string // what extension headers say of the next entry's name
}

// maxExtension bounds the extension headers that are kept; larger ones do not occur.
const maxExtension = 8 << 20

// stream reads up to the end-of-archive blocks and demands that nothing but zeros follows.
func (c *checker) stream(r io.Reader) error {
	var b [tarfmt.BlockSize]byte
	for {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return truncated(err)
		}
		if b == ([tarfmt.BlockSize]byte{}) {
			return c.end(r)
		}
		size, err := c.header(&b)
		if err != nil {
			return err
		}
		var keep io.Writer = io.Discard
		var text bytes.Buffer
		if t := b[156]; (t == 'x' || t == 'L') && size <= maxExtension {
			keep = &text
		}
		if _, err := io.CopyN(keep, r, size); err != nil {
			return truncated(err)
		}
		if _, err := io.CopyN(io.Discard, r, tarfmt.Padding(size)); err != nil {
			return truncated(err)
		}
		c.extension(b[156], text.Bytes())
	}
}

func (c *checker) end(r io.Reader) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		if len(bytes.Trim(buf[:n], "\x00")) > 0 {
			c.broken("", "something follows the end of the tar archive")
			_, err := io.Copy(io.Discard, r)
			return err
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func truncated(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return zframe.ErrTruncated
	}
	return err
}

// header checks one header block and returns the size of what follows.
func (c *checker) header(b *[tarfmt.BlockSize]byte) (int64, error) {
	typ := b[156]
	name := c.name(b)
	if string(b[257:262]) != "ustar" {
		c.broken(name, "its header has no ustar magic")
	}
	size, ok := octal(b[124:136], 11, "\x00", " ")
	if !ok {
		c.broken(name, "its size is not written as 11 octal digits")
		var err error
		if size, err = strconv.ParseInt(string(bytes.Trim(b[124:136], " \x00")), 8, 64); err != nil {
			return 0, c.unreadable(name)
		}
	}
	if sum, ok := octal(b[148:156], 6, "\x00 "); !ok || sum != checksum(b) {
		c.broken(name, "its checksum is not right, or not written as six octal digits, NUL and space")
	}
	switch typ {
	case 'x', 'g', 'L', 'K':
		return size, nil
	case '3', '4':
		c.broken(name, "a device node: sbuild takes its header out and leaves the pax header before it, which then belongs to the next entry")
	case '1', '2', '5', '6':
		if size != 0 {
			c.broken(name, "a size without data")
			size = 0
		}
	}
	if name != "." && !(len(name) > 1 && name[:2] == "./") {
		c.broken(name, `the name does not begin with "./"`)
	}
	c.entries++
	return size, nil
}

// unreadable is why the walk ends at an entry.
func (c *checker) unreadable(name string) error {
	if err := c.result(); err != nil {
		return err
	}
	return &zframe.CorruptError{Where: "entry " + strconv.Quote(name), Err: errors.New("its size cannot be read")}
}

// name is that of the entry whose own header b is, or a guess.
func (c *checker) name(b *[tarfmt.BlockSize]byte) string {
	if c.long != "" {
		return c.long
	}
	name, _, _ := bytes.Cut(b[:100], []byte{0})
	if prefix, _, _ := bytes.Cut(b[345:500], []byte{0}); string(b[257:263]) == "ustar\x00" && len(prefix) > 0 {
		return string(prefix) + "/" + string(name)
	}
	return string(name)
}

// extension takes in the text of an extension header; an entry's own header ends what those before it have said.
func (c *checker) extension(typ byte, text []byte) {
	switch typ {
	case 'x':
		c.records(text)
	case 'L':
		name, _, _ := bytes.Cut(text, []byte{0})
		c.long = string(name)
	case 'K', 'g':
	default:
		c.long = ""
	}
}

// records looks for the pax records that matter.
func (c *checker) records(text []byte) {
	for len(text) > 0 {
		digits, _, _ := bytes.Cut(text, []byte{' '})
		n, err := strconv.Atoi(string(digits))
		if err != nil || n <= len(digits)+1 || n > len(text) {
			return // not our business
		}
		key, value, _ := bytes.Cut(text[len(digits)+1:n-1], []byte{'='})
		switch string(key) {
		case "path":
			c.long = string(value)
		case "size":
			c.broken(c.long, "a file of 8 GiB or more, whose size does not fit into its header")
		}
		text = text[n:]
	}
}

// octal parses a field of exactly n octal digits with one of the endings.
func octal(field []byte, n int, endings ...string) (int64, bool) {
	v, err := strconv.ParseUint(string(field[:n]), 8, 63)
	for _, e := range endings {
		if err == nil && string(field[n:]) == e {
			return int64(v), true
		}
	}
	return 0, false
}

// checksum is that of a header: all bytes, the field itself taken as spaces.
func checksum(b *[tarfmt.BlockSize]byte) (sum int64) {
	for i, v := range b {
		if i >= 148 && i < 156 {
			v = ' '
		}
		sum += int64(v)
	}
	return sum
}
