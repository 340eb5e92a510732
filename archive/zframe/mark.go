package zframe

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/klauspost/compress/zstd"
)

// Mark is the comment in the first entry's pax header by which an archive says that it must have a tail (FORMAT §6).
const Mark = "nsferry-archive-1"

const (
	tarBlock   = 512
	markMaxPax = 1 << 20 // no root directory has more extended attributes than that
)

// markState tells what the first raw bytes of a tar stream say about the mark.
type markState uint8

const (
	markUnknown markState = iota // more bytes are needed
	markAbsent
	markPresent
)

// findMark looks for the mark in raw, the first bytes of a tar stream.
func findMark(raw []byte) markState {
	if len(raw) < tarBlock {
		return markUnknown
	}
	head := raw[:tarBlock]
	if head[156] != 'x' || string(head[257:262]) != "ustar" {
		return markAbsent
	}
	size, err := strconv.ParseInt(string(bytes.TrimRight(head[124:136], " \x00")), 8, 64)
	if err != nil || size < 0 || size > markMaxPax {
		return markAbsent
	}
	end := tarBlock + int(size)
	if len(raw) < end {
		return markUnknown
	}
	for rest := raw[tarBlock:end]; len(rest) > 0; {
		space := bytes.IndexByte(rest, ' ')
		if space < 0 {
			return markAbsent
		}
		n, err := strconv.Atoi(string(rest[:space]))
		if err != nil || n <= space+1 || n > len(rest) {
			return markAbsent
		}
		if string(rest[space+1:n]) == "comment="+Mark+"\n" {
			return markPresent
		}
		rest = rest[n:]
	}
	return markAbsent
}

// hasMark decodes the beginning of a zstd stream and looks for the mark. Input that ends before the question is
// settled is ErrTruncated, input that is no zstd stream has no mark, a damaged one is a *CorruptError.
func hasMark(r io.Reader) (bool, error) {
	var magic [4]byte
	n, err := io.ReadFull(r, magic[:])
	switch {
	case n < len(magic) && (err == io.EOF || err == io.ErrUnexpectedEOF):
		return false, ErrTruncated
	case err != nil:
		return false, err
	case sniff(magic[:]) != KindZstd:
		return false, nil
	}
	z, err := zstd.NewReader(io.MultiReader(bytes.NewReader(magic[:]), r), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(MaxWindow))
	if err != nil {
		return false, fmt.Errorf("zstd decoder: %w", err)
	}
	defer z.Close()
	var raw []byte
	for state := markUnknown; state == markUnknown; state = findMark(raw) {
		had := len(raw)
		raw = append(raw, make([]byte, max(tarBlock, had))...)
		n, err := io.ReadFull(z, raw[had:])
		raw = raw[:had+n]
		switch {
		case err == nil || n > 0 && findMark(raw) != markUnknown:
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return false, ErrTruncated
		default:
			return false, &CorruptError{"first frame", err}
		}
	}
	return findMark(raw) == markPresent, nil
}
