package zframe

import (
	"io"

	"github.com/ulikunitz/xz"
)

// newXzReader returns a reader of an xz file.
func newXzReader(r io.Reader, maxDict int64) (io.Reader, error) {
	return xz.NewReader(r)
}
