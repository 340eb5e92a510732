package debs

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"os"
)

// bufSize is what a worker reads at once: it stays in a core's own cache until it is hashed and written.
const bufSize = 256 << 10

// digest reads all of an open file, by way of buf.
func digest(f *os.File, buf []byte) (Sum, error) {
	h := sha256.New()
	// The bare Reader keeps io.CopyBuffer from bypassing buf.
	n, err := io.CopyBuffer(h, struct{ io.Reader }{io.NewSectionReader(f, 0, 1<<62)}, buf)
	if err != nil {
		return Sum{}, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	s := Sum{Size: n}
	h.Sum(s.SHA256[:0])
	return s, nil
}

// summer is the digest of a file of some size whose data it is shown, holes left out.
type summer struct {
	hash     hash.Hash
	at, size int64
}

func newSummer(size int64) *summer { return &summer{hash: sha256.New(), size: size} }

// see takes the next data.
func (s *summer) see(off int64, data []byte) error {
	if end := off + int64(len(data)); end > s.size {
		return resized(end, s.size)
	}
	s.hole(off)
	s.hash.Write(data)
	s.at += int64(len(data))
	return nil
}

// hole takes the zeros up to off.
func (s *summer) hole(off int64) {
	var zeros [4096]byte
	for s.at < off {
		n, _ := s.hash.Write(zeros[:min(off-s.at, int64(len(zeros)))])
		s.at += int64(n)
	}
}

// sum ends with the hole that there may be at the end.
func (s *summer) sum() Sum {
	s.hole(s.size)
	sum := Sum{Size: s.size}
	s.hash.Sum(sum.SHA256[:0])
	return sum
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
