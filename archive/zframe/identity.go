package zframe

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// IdentityHash computes the identity of a frame (FORMAT §2) from what is in it, without compressing it and without
// the content when its digest is known. For each item call Header, Part and Digest, in this order; in the last
// frame then End. The zero value is not usable: call NewIdentityHash. Not safe for concurrent use.
type IdentityHash struct {
	h hash.Hash
}

// NewIdentityHash returns the hash of an empty frame.
func NewIdentityHash() *IdentityHash { return &IdentityHash{sha256.New()} }

// Header adds the item's header bytes, pax blocks included; nil for a later part of a large entry.
func (i *IdentityHash) Header(b []byte) {
	var n [4]byte
	binary.LittleEndian.PutUint32(n[:], uint32(len(b)))
	i.h.Write(n[:])
	i.h.Write(b)
}

// Part adds which bytes of the entry's stored data lie in this frame.
func (i *IdentityHash) Part(offset, length int64) {
	var n [16]byte
	binary.LittleEndian.PutUint64(n[:8], uint64(offset))
	binary.LittleEndian.PutUint64(n[8:], uint64(length))
	i.h.Write(n[:])
}

// Digest adds the sha256 of the entry's whole content, zeros for entries without content.
func (i *IdentityHash) Digest(sum [32]byte) { i.h.Write(sum[:]) }

// End adds the end of the archive, for the last frame.
func (i *IdentityHash) End() { i.h.Write([]byte("end")) }

// Sum returns the identity and makes the hash ready for the next frame.
func (i *IdentityHash) Sum() (sum [32]byte) {
	i.h.Sum(sum[:0])
	i.h.Reset()
	return sum
}
