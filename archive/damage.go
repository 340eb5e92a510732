package archive

import (
	"context"
	"errors"

	"github.com/nsferry/nsferry/archive/tarfmt"
	"github.com/nsferry/nsferry/archive/zframe"
)

// streamError is what went wrong with reading entries, as opposed to writing them into a tree.
type streamError struct{ error }

func (e streamError) Unwrap() error { return e.error }

// Damaged tells whether err, of Extract or Verify, is the archive's fault: it cannot be read, is cut, or breaks its format. Any tree,
// however much room there is for it, would fail.
func Damaged(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	var stream streamError
	var corrupt *zframe.CorruptError
	var limit *zframe.LimitError
	if errors.As(err, &stream) || errors.As(err, &corrupt) || errors.As(err, &limit) {
		return true
	}
	for _, is := range []error{zframe.ErrTruncated, zframe.ErrUnknownFormat, tarfmt.ErrTruncated, ErrOutside} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}
