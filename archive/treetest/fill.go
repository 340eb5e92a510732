//go:build linux

package treetest

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/archive/listing"
)

// segmentsOf returns where the node's file has data.
func segmentsOf(n listing.Node) []listing.Segment {
	switch {
	case n.Sparse != nil:
		return n.Sparse
	case n.Size == 0:
		return nil
	}
	return []listing.Segment{{Offset: 0, Length: n.Size}}
}

// contentAt puts the content of the node's file at off into buf, which its line tells by text or seed.
func contentAt(n listing.Node, buf []byte, off int64) {
	if n.Fill == nil {
		copy(buf, n.Content[off:])
		return
	}
	// The stream is that of splitmix64 (Steele, Lea, Flood 2014) by block number, so that it has random access.
	var word [8]byte
	for i := range buf {
		at := uint64(off) + uint64(i)
		if i == 0 || at%8 == 0 {
			z := *n.Fill + (at/8+1)*0x9e3779b97f4a7c15
			z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
			z = (z ^ z>>27) * 0x94d049bb133111eb
			binary.LittleEndian.PutUint64(word[:], z^z>>31)
		}
		buf[i] = word[at%8]
	}
}

// told tells whether the line gives the content of its file: by text, by seed, or by there being none.
func told(n listing.Node) bool {
	return n.Content != nil || n.Fill != nil || len(segmentsOf(n)) == 0
}

// digest returns the sha256 of the whole content in hex; "" where the line does not tell the content.
func digest(n listing.Node) string {
	if n.SHA256 != "" || !told(n) {
		return n.SHA256
	}
	h := sha256.New()
	buf := make([]byte, 1<<16)
	zeros := make([]byte, 1<<16)
	pos := int64(0)
	hole := func(to int64) {
		for pos < to {
			k := min(to-pos, int64(len(zeros)))
			h.Write(zeros[:k])
			pos += k
		}
	}
	for _, s := range segmentsOf(n) {
		hole(s.Offset)
		for pos < s.Offset+s.Length {
			part := buf[:min(int64(len(buf)), s.Offset+s.Length-pos)]
			contentAt(n, part, pos)
			h.Write(part)
			pos += int64(len(part))
		}
	}
	hole(n.Size)
	return hex.EncodeToString(h.Sum(nil))
}

// isAny tells whether err is one of the error numbers.
func isAny(err error, numbers ...unix.Errno) bool {
	for _, n := range numbers {
		if errors.Is(err, n) {
			return true
		}
	}
	return false
}
