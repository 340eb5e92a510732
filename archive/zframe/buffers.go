package zframe

import "sync"

// Buffers is a pool of frame buffers. The zero value is ready; it is safe for concurrent use.
type Buffers struct {
	pool sync.Pool
}

// Get returns an empty buffer with room for at least n bytes. The caller owns it until it calls Put.
func (b *Buffers) Get(n int) []byte {
	if p, ok := b.pool.Get().(*[]byte); ok && cap(*p) >= n {
		return (*p)[:0]
	}
	return make([]byte, 0, n)
}

// Put gives a buffer back. The caller must not use it, or a slice of it, afterwards.
func (b *Buffers) Put(buf []byte) {
	if cap(buf) > 0 {
		b.pool.Put(&buf)
	}
}
