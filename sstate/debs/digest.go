package debs

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
)

// digest reads all of an open file.
func digest(f *os.File) (Sum, error) {
	h := sha256.New()
	buf := make([]byte, 256<<10)
	// The bare Reader keeps io.CopyBuffer from bypassing buf.
	n, err := io.CopyBuffer(h, struct{ io.Reader }{io.NewSectionReader(f, 0, 1<<62)}, buf)
	if err != nil {
		return Sum{}, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	s := Sum{Size: n}
	h.Sum(s.SHA256[:0])
	return s, nil
}

// claims checks a deb that no list knows: it must be whole, and be the package that its name says.
func claims(f *os.File, p Package, size int64) error {
	says, err := readControl(f, size)
	if err != nil {
		return err
	}
	if says != p && says.pool() != p {
		return fmt.Errorf("it is %s by its control file", says)
	}
	return nil
}
