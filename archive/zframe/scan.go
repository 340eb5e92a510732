package zframe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The numbers of RFC 8878 §3.1.1 that the scanner needs.
const (
	magicFrame     = 0xFD2FB528
	magicSkip      = 0x184D2A50 // the low four bits are free
	frameHeaderMax = 18
	blockHeaderLen = 3
	blockMax       = 128 << 10
	skipHeaderLen  = 8
)

// frameHeader is a frame's header, parsed.
type frameHeader struct {
	magic    uint32
	length   int    // bytes of the header, magic included
	skip     int64  // payload of a skippable frame, -1 for a zstd frame
	window   uint64 // bytes; for a single segment the content size
	content  int64  // raw size, -1 when it is not told
	checksum bool
	dict     uint32
}

// errShort says that a header goes on behind the bytes at hand.
var errShort = errors.New("header is cut")

// parseHeader parses the frame header that b starts with (RFC 8878 §3.1.1.1, §3.1.2).
func parseHeader(b []byte) (frameHeader, error) {
	h := frameHeader{skip: -1, content: -1}
	if len(b) < 5 {
		return h, errShort
	}
	h.magic = binary.LittleEndian.Uint32(b)
	if h.magic&^0xF == magicSkip {
		if len(b) < skipHeaderLen {
			return h, errShort
		}
		h.length, h.skip = skipHeaderLen, int64(binary.LittleEndian.Uint32(b[4:]))
		return h, nil
	}
	if h.magic != magicFrame {
		return h, fmt.Errorf("%#08x is not the magic number of a zstd frame", h.magic)
	}
	desc := b[4]
	if desc&8 != 0 { // bit 4 is free: decoders ignore it
		return h, errors.New("reserved bit set in frame header")
	}
	single := desc&0x20 != 0
	h.checksum = desc&4 != 0
	dictLen := []int{0, 1, 2, 4}[desc&3]
	contentLen := []int{0, 2, 4, 8}[desc>>6]
	if single && contentLen == 0 {
		contentLen = 1
	}
	at := 5
	if !single {
		at++
	}
	h.length = at + dictLen + contentLen
	if len(b) < h.length {
		return h, errShort
	}
	if !single {
		base := uint64(1) << (10 + b[5]>>3)
		h.window = base + base/8*uint64(b[5]&7)
	}
	h.dict = uint32(littleEndian(b[at : at+dictLen]))
	if contentLen > 0 {
		n := littleEndian(b[at+dictLen : h.length])
		if contentLen == 2 {
			n += 256
		}
		if n > 1<<62 {
			return h, errors.New("content size in frame header is absurd")
		}
		h.content = int64(n)
	}
	if single {
		h.window = uint64(h.content)
	}
	return h, nil
}

func littleEndian(b []byte) (n uint64) {
	for i, c := range b {
		n |= uint64(c) << (8 * i)
	}
	return n
}

// block is a block header, parsed (RFC 8878 §3.1.1.2).
type block struct {
	last   bool
	stored int   // bytes that follow the header
	bound  int64 // raw bytes at most
}

func (h *frameHeader) parseBlock(b []byte) (block, error) {
	word := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16
	size := int(word >> 3)
	out := block{last: word&1 != 0, stored: size, bound: int64(size)}
	limit := int64(min(h.window, blockMax))
	if limit < 1<<10 {
		limit = 1 << 10 // the smallest window there is
	}
	switch word >> 1 & 3 {
	case 0:
	case 1:
		out.stored = 1
	case 2:
		out.bound = limit
		if int64(size) > limit {
			return out, fmt.Errorf("block of %d bytes in a frame whose blocks have at most %d", size, limit)
		}
	default:
		return out, errors.New("block of a reserved type")
	}
	if out.bound > limit {
		return out, fmt.Errorf("block of %d bytes in a frame whose blocks have at most %d", out.bound, limit)
	}
	return out, nil
}

// measure returns the stored length of the zstd frame that b starts with, and an upper bound of its raw size.
func measure(b []byte) (length int, bound int64, err error) {
	h, err := parseHeader(b)
	if err != nil {
		return 0, 0, err
	}
	if h.skip >= 0 {
		return 0, 0, errors.New("a skippable frame where a zstd frame is due")
	}
	at := h.length
	for last := false; !last; {
		if len(b)-at < blockHeaderLen {
			return 0, 0, io.ErrUnexpectedEOF
		}
		blk, err := h.parseBlock(b[at:])
		if err != nil {
			return 0, 0, err
		}
		at += blockHeaderLen + blk.stored
		bound += blk.bound
		last = blk.last
	}
	if h.checksum {
		at += 4
	}
	if at > len(b) {
		return 0, 0, io.ErrUnexpectedEOF
	}
	if h.content >= 0 {
		bound = min(bound, h.content)
	}
	return at, bound, nil
}
