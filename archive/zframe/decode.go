package zframe

import (
	"errors"
	"fmt"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// decodeSlack is the room behind a frame's last byte that lets the decoder use its fast copies to the end.
const decodeSlack = 64

// Decoder decodes single frames. It is not safe for concurrent use: have one for each worker.
type Decoder struct {
	zstd *zstd.Decoder
}

// NewDecoder returns a decoder for frames of up to MaxRaw bytes.
func NewDecoder() (*Decoder, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(false), zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxWindow(MaxWindow))
	if err != nil {
		return nil, fmt.Errorf("zstd decoder: %w", err)
	}
	return &Decoder{z}, nil
}

// Decode appends the raw bytes of the one frame in stored to dst and returns the result. atMost is the largest raw
// size that is believed: no more than it, and a little slack, is ever allocated. A frame that is damaged, followed by
// something or larger than atMost is an error; the caller knows where the frame lies and wraps it.
func (d *Decoder) Decode(dst, stored []byte, atMost int64) ([]byte, error) {
	length, bound, err := measure(stored)
	switch {
	case err != nil:
		return dst, err
	case length != len(stored):
		return dst, fmt.Errorf("%d bytes behind the end of the frame", len(stored)-length)
	}
	room := min(atMost, bound)
	had := len(dst)
	out, err := d.zstd.DecodeAll(stored, slices.Grow(dst, int(room)+decodeSlack))
	switch {
	case errors.Is(err, zstd.ErrDecoderSizeExceeded), err == nil && int64(len(out)-had) > atMost:
		return dst, &LimitError{"frame size", atMost}
	case err != nil:
		return dst, err
	}
	return out, nil
}

// Close frees the decoder's memory. The decoder must not be used afterwards.
func (d *Decoder) Close() { d.zstd.Close() }
