package zframe

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
)

// framesOf compresses raw in frames of n bytes and returns where they lie, as a reader tells.
func framesOf(t *testing.T, raw []byte, n int) (stored []byte, spans []Span) {
	t.Helper()
	e, err := NewEncoder(1)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(raw); at += n {
		stored = append(stored, "\x50\x2a\x4d\x18\x04\x00\x00\x00size"...) // as pzstd does
		stored = e.Encode(stored, raw[at:min(at+n, len(raw))])
	}
	r := NewParallelReader(bytes.NewReader(stored), Options{Workers: 2, Frame: func(s Span) { spans = append(spans, s) }})
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, raw) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	return stored, spans
}

// TestRandom reads at random places, several at a time, and never keeps more than it may.
func TestRandom(t *testing.T) {
	raw := make([]byte, 1<<20)
	rnd := rand.NewChaCha8([32]byte{1})
	_, _ = rnd.Read(raw) // it cannot fail
	stored, spans := framesOf(t, raw, 5000)
	x := NewRandom(bytes.NewReader(stored), spans, 50000)
	var group sync.WaitGroup
	for seed := range uint64(4) {
		group.Go(func() {
			r := rand.New(rand.NewPCG(seed, 0))
			for range 500 {
				off, n := r.IntN(len(raw)), r.IntN(20000)
				got := make([]byte, n)
				k, err := x.ReadAt(got, int64(off))
				want := raw[off:min(off+n, len(raw))]
				if !bytes.Equal(got[:k], want) || (err != nil) != (k < n) || err != nil && !errors.Is(err, io.EOF) {
					t.Errorf("%d bytes at %d: %d, %v", n, off, k, err)
				}
			}
		})
	}
	group.Wait()
	if x.held > x.budget || x.idle.Len() != len(x.frames) {
		t.Errorf("%d bytes in %d frames are held, of which %d are idle", x.held, len(x.frames), x.idle.Len())
	}
}

// TestRandomCost counts what is decoded, for orders good and bad.
func TestRandomCost(t *testing.T) {
	raw := make([]byte, 100000)
	_, spans := framesOf(t, raw, 1000)
	x := NewRandom(nil, spans, 10000)
	forth := func(yield func(off, length int64)) {
		for at := int64(0); at < 100000; at += 500 {
			yield(at, 500)
		}
	}
	if n := x.Cost(forth); n != 100000 {
		t.Errorf("in order: %d", n)
	}
	across := func(yield func(off, length int64)) {
		for at := range int64(200) {
			yield(at*37%200*500, 500)
		}
	}
	if n := x.Cost(across); n < 150000 {
		t.Errorf("across: %d", n)
	}
}

// TestRandomStored returns the frames that are there, and no others.
func TestRandomStored(t *testing.T) {
	raw := bytes.Repeat([]byte("0123456789"), 1000)
	stored, spans := framesOf(t, raw, 3000)
	x := NewRandom(bytes.NewReader(stored), spans, 1<<20)
	for _, c := range []struct {
		off int64
		raw []byte
		is  bool
	}{{0, raw[:3000], true}, {3000, raw[3000:6000], true}, {9000, raw[9000:], true}, {0, raw[:2999], false}, {1, raw[1:3001], false}, {3000, make([]byte, 3000), false}, {10000, nil, false}} {
		got, err := x.Stored([]byte("had"), c.off, c.raw)
		if err != nil || (got != nil) != c.is {
			t.Errorf("at %d: %d bytes, %v", c.off, len(got), err)
		}
		if c.is {
			s := spans[c.off/3000]
			if string(got) != "had"+string(stored[s.Offset:s.Offset+s.Stored]) {
				t.Errorf("at %d: another frame", c.off)
			}
		}
	}
	stored[len(stored)-1] ^= 1
	var bad *CorruptError
	if _, err := NewRandom(bytes.NewReader(stored), spans, 0).ReadAt(make([]byte, 10), 9000); !errors.As(err, &bad) {
		t.Errorf("a damaged frame: %v", err)
	}
}

// TestIsModerate tells pzstd's frames, and ours, from the one of zstd.
func TestIsModerate(t *testing.T) {
	small, _ := framesOf(t, make([]byte, 100000), 50000)
	e, err := NewEncoder(1)
	if err != nil {
		t.Fatal(err)
	}
	big := e.Encode(nil, make([]byte, wholeRaw+1))
	for name, c := range map[string]struct {
		b    []byte
		is   bool
		fail bool
	}{"small": {small, true, false}, "big": {big, false, false}, "cut": {small[:len(small)/3], false, true}, "empty": {nil, false, true}} {
		if is, err := IsModerate(bytes.NewReader(c.b)); is != c.is || (err != nil) != c.fail {
			t.Errorf("%s: %v, %v", name, is, err)
		}
	}
}
