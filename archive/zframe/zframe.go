// Package zframe keeps one promise: a framed archive is either whole and checked, or an error says so.
//
// An archive is a row of independent zstd frames, a table of contents and a seek table, the last two in
// skippable frames (docs/FORMAT.md §2–§5). The package knows frames and where they lie; what is in them is known to
// package tarfmt (the tar stream) and package toc (the lines of the table of contents).
//
// Writing: one [Encoder] a worker, [Ordered] to keep the frames in order, [AppendTOCFrame] and [AppendSeekTable] for the tail.
// Reading with a seekable file: [Open]. Reading a stream of any make: [Decompress].
//
// Buffers: every function that takes a dst appends to it and returns the result, which the caller owns; no function
// keeps a slice that it was given after it has returned.
package zframe

import (
	"errors"
	"fmt"
)

const (
	// MaxRaw is the largest raw size of a frame that a reader accepts, in bytes (FORMAT §2).
	MaxRaw = 64 << 20
	// MaxStored is the largest stored size of a frame: MaxRaw in raw blocks of 128 KiB, with their headers.
	MaxStored = MaxRaw + MaxRaw/blockMax*blockHeaderLen + frameHeaderMax + 4
	// MaxFrames bounds the seek table that a reader accepts; with frames of 1 MiB that is 2 TiB of tar stream.
	MaxFrames = 1 << 21
	// MaxWindow is the default bound of the window of a foreign zstd frame: what `zstd --long` (27) makes.
	MaxWindow = 128 << 20
)

// Frame is what the table of contents says about one frame.
type Frame struct {
	Identity [32]byte // of what is in it, see IdentityHash
	Raw      int64    // bytes before compression
	Stored   int64    // bytes after compression
	Sum      [32]byte // sha256 of the stored bytes
}

// Span is where one frame lies, as the seek table has it.
type Span struct {
	Offset int64 // of the frame's first stored byte in the file
	Stored int64 // bytes in the file
	Raw    int64 // bytes of tar stream; 0 for the table of contents
}

var (
	// ErrNotSeekable says that a file has no tail of ours and does not claim to have one: read it as a stream.
	ErrNotSeekable = errors.New("not a seekable nsferry archive")
	// ErrTruncated says that the input ends too early: within a frame, or before the tail that its mark promises.
	ErrTruncated = errors.New("archive is truncated")
	// ErrUnknownFormat says that the first bytes are those of no format that Decompress reads.
	ErrUnknownFormat = errors.New("neither a tar archive nor one compressed with zstd, gzip, xz or bzip2")
)

// CorruptError says that an input breaks its format, and where.
type CorruptError struct {
	Where string // "seek table", "frame 12", "table of contents line 7"
	Err   error  // what is wrong there
}

func (e *CorruptError) Error() string { return "corrupt archive: " + e.Where + ": " + e.Err.Error() }

func (e *CorruptError) Unwrap() error { return e.Err }

func corrupt(where, format string, args ...any) error {
	return &CorruptError{Where: where, Err: fmt.Errorf(format, args...)}
}

// LimitError says that an input asks for more than the caller's Options allow.
type LimitError struct {
	What  string // "window", "raw size", "ratio", "dictionary", "frame size"
	Limit int64  // the limit, in bytes; for a ratio, raw bytes for one stored byte
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("archive exceeds the limit for %s: %d", e.What, e.Limit)
}
