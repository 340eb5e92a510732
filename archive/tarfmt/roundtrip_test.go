package tarfmt

import (
	"bytes"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// readAll reads a whole archive.
func readAll(r io.Reader, l Limits) ([]item, error) { return readItems(NewReader(r, l)) }

func readItems(tr *Reader) ([]item, error) {
	var items []item
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return items, nil
		}
		if err != nil {
			return items, err
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			return items, err
		}
		items = append(items, item{*h, data})
	}
}

func mustRead(t testing.TB, archive []byte) []item {
	t.Helper()
	items, err := readAll(bytes.NewReader(archive), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return items
}

// diff compares entries; no data and empty data are the same.
func diff(want, got []item) string {
	strip := cmp.Transformer("item", func(it item) any {
		return struct {
			Header Header
			Data   string
		}{it.Header, string(it.data)}
	})
	return cmp.Diff(want, got, strip)
}

func TestRoundTripOddities(t *testing.T) {
	want := oddities()
	archive := write(t, want)
	for name, r := range map[string]io.Reader{
		"whole":    bytes.NewReader(archive),
		"one byte": iotest.OneByteReader(bytes.NewReader(archive)),
		"halves":   iotest.HalfReader(bytes.NewReader(archive)),
		"data+EOF": iotest.DataErrReader(bytes.NewReader(archive)),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readAll(r, Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if d := diff(want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestRoundTripRandom(t *testing.T) {
	for seed := range uint64(300) {
		want := randomItems(rand.New(rand.NewPCG(seed, 1)))
		archive := write(t, want)
		if d := diff(want, mustRead(t, archive)); d != "" {
			t.Fatalf("seed %d: %s", seed, d)
		}
		if again := write(t, mustRead(t, archive)); !bytes.Equal(archive, again) {
			t.Fatalf("seed %d: what was read is written differently", seed)
		}
	}
}

func randomText(r *rand.Rand, n int) string {
	b := make([]byte, 1+r.IntN(n))
	for i := range b {
		b[i] = []byte("ab/%=\n \xff\xc3\xa9.\x01")[r.IntN(12)]
	}
	return strings.TrimRight(string(b), "/") + "x"
}

func randomItems(r *rand.Rand) []item {
	var items []item
	for range 1 + r.IntN(5) {
		h := Header{Name: randomText(r, 150), Mode: r.Uint32N(0o10000), UID: r.Uint32() >> r.IntN(32), GID: r.Uint32N(1 << 22),
			ModTime: Time{r.Int64() >> r.IntN(63), r.Uint32N(1e9)}, Type: Type("0123456"[r.IntN(7)])}
		h.UID = min(h.UID, 4294967294)
		var data []byte
		switch h.Type {
		case Link:
			h.Link = randomText(r, 150)
			h.UID, h.GID, h.ModTime = h.UID&maxOctal7, h.GID&maxOctal7, Time{Sec: h.ModTime.Sec & maxOctal}
			items = append(items, item{Header: h})
			continue
		case Symlink:
			h.Link = randomText(r, 150)
		case Char, Block:
			h.DevMajor, h.DevMinor = r.Uint32N(4096), r.Uint32N(1<<20)
		case Reg:
			data = repeat('d', r.IntN(2000))
			h.Size = int64(len(data))
			if r.IntN(2) == 0 {
				h.Sparse, h.Size = randomSegments(r, h.Size)
			}
		}
		h.Xattrs = randomXattrs(r)
		if r.IntN(3) == 0 {
			h.ACL, h.DefaultACL, h.Comment = randomText(r, 9), randomText(r, 200), randomText(r, 9)
		}
		items = append(items, item{h, data})
	}
	return items
}

// randomSegments cuts n bytes of data into segments, with holes before some of them.
func randomSegments(r *rand.Rand, n int64) (segs []Segment, size int64) {
	segs = []Segment{}
	for at := int64(0); n > 0; {
		at += r.Int64N(1 << r.IntN(50))
		k := min(n, BlockSize*(1+r.Int64N(3)))
		segs = append(segs, Segment{at, k})
		at, n = at+k, n-k
		size = at
	}
	return segs, size + r.Int64N(2)*r.Int64N(1<<40)
}

func randomXattrs(r *rand.Rand) []Xattr {
	var xs []Xattr
	for range r.IntN(4) {
		xs = append(xs, Xattr{"user." + randomText(r, 10), []byte(randomText(r, 300))})
	}
	slices.SortFunc(xs, func(a, b Xattr) int { return strings.Compare(a.Key, b.Key) })
	return slices.CompactFunc(xs, func(a, b Xattr) bool { return a.Key == b.Key })
}
