package zframe

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"

	"github.com/ulikunitz/xz"
)

// newXzReader returns a reader of an xz file whose dictionaries have at most maxDict bytes.
func newXzReader(br *bufio.Reader, maxDict int64) (io.Reader, error) {
	return xz.NewReader(&xzGuard{br: br, maxDict: maxDict})
}

// xzGuard passes an xz file on and stops before a block whose dictionary is larger than maxDict: the decoder allocates
// what the header of any block asks for, up to 4 GiB. It walks the structure (The .xz File Format 1.0.4, §2–§4; LZMA2's
// chunks as in the format's reference code) and leaves every other check to the decoder.
type xzGuard struct {
	br      *bufio.Reader
	maxDict int64
	state   xzState
	left    int64 // bytes that may be passed on
	check   int64 // size of a block's check
	size    int64 // of the block or index so far, for its padding
	vlis    uint64
	err     error // sticky
}

type xzState uint8

const (
	xzStream xzState = iota // a stream header, or padding, is due
	xzBlock                 // a block header or the index
	xzChunk                 // an LZMA2 chunk, or the end of the block
	xzCheck                 // a block's padding and check
	xzIndex                 // the numbers of an index
)

const xzHeaderLen = 12 // of a stream's header, and of its footer

// xzCheckSize is the size of each type of check (§2.1.1.2).
var xzCheckSize = [16]int64{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}

var errXz = errors.New("xz structure is broken")

func (g *xzGuard) Read(p []byte) (int, error) {
	for g.left == 0 && g.err == nil {
		g.err = g.advance()
	}
	if g.left == 0 {
		return 0, g.err
	}
	n, err := g.br.Read(p[:min(int64(len(p)), g.left)])
	g.left -= int64(n)
	return n, err
}

// pass lets n more bytes through, which count for the padding.
func (g *xzGuard) pass(n int64, then xzState) error {
	g.left, g.state = n, then
	g.size += n
	return nil
}

// peek returns the next n bytes; that there are fewer is the end of a cut file.
func (g *xzGuard) peek(n int) ([]byte, error) {
	b, err := g.br.Peek(n)
	if err == io.EOF && len(b) > 0 {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}

func (g *xzGuard) advance() error {
	switch g.state {
	case xzStream:
		b, err := g.peek(4)
		if err != nil {
			return err
		}
		if binary.LittleEndian.Uint32(b) == 0 {
			return g.pass(4, xzStream)
		}
		if b, err = g.peek(xzHeaderLen); err != nil {
			return err
		}
		g.check = xzCheckSize[b[7]&15]
		return g.pass(xzHeaderLen, xzBlock)
	case xzBlock:
		return g.block()
	case xzChunk:
		return g.chunk()
	case xzCheck:
		return g.pass((4-g.size%4)%4+g.check, xzBlock)
	}
	return g.index()
}

// block looks at a block header (§3.1) or the first byte of an index (§4).
func (g *xzGuard) block() error {
	b, err := g.peek(1)
	if err != nil {
		return unexpected(err)
	}
	g.size = 0
	if b[0] == 0 {
		g.vlis = 1
		b, err := g.br.Peek(10)
		count, n := binary.Uvarint(b[min(1, len(b)):])
		if n <= 0 || count > 1<<40 {
			return unexpected(errors.Join(err, errXz))
		}
		g.vlis = 2 * count
		return g.pass(int64(1+n), xzIndex)
	}
	n := (int(b[0]) + 1) * 4
	if b, err = g.peek(n); err != nil {
		return unexpected(err)
	}
	dict, err := xzDict(b)
	if err != nil {
		return err
	}
	if dict > g.maxDict {
		return &LimitError{"dictionary", g.maxDict}
	}
	return g.pass(int64(n), xzChunk)
}

// xzDict returns the dictionary size that a block header asks for.
func xzDict(b []byte) (int64, error) {
	rest := b[2:]
	skip := 0
	for _, bit := range []byte{0x40, 0x80} { // compressed, uncompressed size
		if b[1]&bit != 0 {
			skip++
		}
	}
	for ; skip > 0; skip-- {
		_, n := binary.Uvarint(rest)
		if n <= 0 {
			return 0, errXz
		}
		rest = rest[n:]
	}
	// The decoder knows LZMA2 alone, as the one filter: id 0x21, one byte of properties.
	if b[1]&3 != 0 || len(rest) < 3 || rest[0] != 0x21 || rest[1] != 1 || rest[2] > 40 {
		return 0, errors.New("xz filters other than LZMA2 are not supported")
	}
	if rest[2] == 40 {
		return 1<<32 - 1, nil
	}
	return int64(2|rest[2]&1) << (rest[2]/2 + 11), nil
}

// chunk looks at the control byte of an LZMA2 chunk.
func (g *xzGuard) chunk() error {
	b, err := g.peek(1)
	if err != nil {
		return unexpected(err)
	}
	control := b[0]
	switch {
	case control == 0:
		return g.pass(1, xzCheck)
	case control <= 2:
		if b, err = g.peek(3); err != nil {
			return unexpected(err)
		}
		return g.pass(3+1+int64(binary.BigEndian.Uint16(b[1:])), xzChunk)
	case control < 0x80:
		return errXz
	}
	if b, err = g.peek(5); err != nil {
		return unexpected(err)
	}
	n := 5 + 1 + int64(binary.BigEndian.Uint16(b[3:]))
	if control >= 0xC0 {
		n++ // new properties
	}
	return g.pass(n, xzChunk)
}

// index passes one number of the index, or what follows the last: padding, CRC32 and the stream's footer.
func (g *xzGuard) index() error {
	if g.vlis == 0 {
		return g.pass((4-g.size%4)%4+4+xzHeaderLen, xzStream)
	}
	b, err := g.br.Peek(9)
	for i, c := range b {
		if c < 0x80 {
			g.vlis--
			return g.pass(int64(i+1), xzIndex)
		}
	}
	return unexpected(errors.Join(err, errXz))
}

// unexpected turns the end of the file where there must be none into io.ErrUnexpectedEOF.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
