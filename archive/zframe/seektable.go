package zframe

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// The tail: two skippable frames (RFC 8878 §3.1.2). The seek table is that of zstd's contrib/seekable_format,
// without checksums.
const (
	magicTOC      = 0x184D2A5D
	magicSeek     = 0x184D2A5E
	magicFooter   = 0x8F92EAB1
	seekFooterLen = 9
	seekEntryLen  = 8
)

// AppendTOCFrame appends the skippable frame of the table of contents to dst: the sha256 of stream and stream, a zstd stream of lines.
func AppendTOCFrame(dst, stream []byte) ([]byte, error) {
	n := int64(len(stream)) + sha256.Size
	if n > 1<<32-1 {
		return dst, fmt.Errorf("table of contents of %d bytes is larger than a skippable frame", n)
	}
	dst = binary.LittleEndian.AppendUint32(dst, magicTOC)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(n))
	sum := sha256.Sum256(stream)
	return append(append(dst, sum[:]...), stream...), nil
}

// AppendSeekTable appends the seek table frame to dst. spans are the frames of the file in order, the table of contents (raw size 0) last.
func AppendSeekTable(dst []byte, spans []Span) ([]byte, error) {
	if len(spans) > MaxFrames {
		return dst, fmt.Errorf("%d frames are more than a seek table may hold (%d)", len(spans), MaxFrames)
	}
	dst = binary.LittleEndian.AppendUint32(dst, magicSeek)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(spans)*seekEntryLen+seekFooterLen))
	for i, s := range spans {
		if s.Stored < 0 || s.Stored > 1<<32-1 || s.Raw < 0 || s.Raw > 1<<32-1 {
			return dst, fmt.Errorf("frame %d (%d bytes stored, %d raw) does not fit a seek table", i, s.Stored, s.Raw)
		}
		dst = binary.LittleEndian.AppendUint32(dst, uint32(s.Stored))
		dst = binary.LittleEndian.AppendUint32(dst, uint32(s.Raw))
	}
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(spans)))
	dst = append(dst, 0)
	return binary.LittleEndian.AppendUint32(dst, magicFooter), nil
}

// parseFooter checks the last bytes of a file and returns the number of frames in the seek table. found tells
// whether a seek table ends here at all; err whether it is one of ours.
func parseFooter(b []byte) (frames int64, found bool, err error) {
	if len(b) != seekFooterLen || binary.LittleEndian.Uint32(b[5:]) != magicFooter {
		return 0, false, corrupt("seek table", "is missing")
	}
	frames = int64(binary.LittleEndian.Uint32(b))
	switch {
	case b[4] != 0:
		return 0, true, corrupt("seek table", "descriptor is %#02x, want 0", b[4])
	case frames < 2 || frames > MaxFrames+1:
		return 0, true, corrupt("seek table", "%d frames", frames)
	}
	return frames, true, nil
}

// seekTableLen returns the size of the seek table's frame, header included.
func seekTableLen(frames int64) int64 { return skipHeaderLen + frames*seekEntryLen + seekFooterLen }

// ParseSeekTable parses a whole seek table frame of an archive, header included. The offsets count from 0; the last
// span is the table of contents. Errors are *CorruptError.
func ParseSeekTable(b []byte) ([]Span, error) {
	if len(b) < skipHeaderLen+seekFooterLen {
		return nil, corrupt("seek table", "of %d bytes", len(b))
	}
	frames, _, err := parseFooter(b[len(b)-seekFooterLen:])
	if err != nil {
		return nil, err
	}
	switch {
	case int64(len(b)) != seekTableLen(frames):
		return nil, corrupt("seek table", "of %d bytes for %d frames", len(b), frames)
	case binary.LittleEndian.Uint32(b) != magicSeek:
		return nil, corrupt("seek table", "does not begin where its size says")
	case int64(binary.LittleEndian.Uint32(b[4:])) != int64(len(b))-skipHeaderLen:
		return nil, corrupt("seek table", "sizes in header and footer differ")
	}
	spans := make([]Span, frames)
	var at int64
	for i := range spans {
		e := b[skipHeaderLen+i*seekEntryLen:]
		s := Span{at, int64(binary.LittleEndian.Uint32(e)), int64(binary.LittleEndian.Uint32(e[4:]))}
		last := i == len(spans)-1
		switch {
		case !last && (s.Raw == 0 || s.Raw > MaxRaw || s.Stored > MaxStored):
			return nil, corrupt("seek table", "frame %d has %d bytes stored, %d raw", i, s.Stored, s.Raw)
		case last && s.Raw != 0:
			return nil, corrupt("seek table", "last frame is not a table of contents")
		}
		spans[i] = s
		at += s.Stored
	}
	return spans, nil
}
