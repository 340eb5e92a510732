package archive_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/archive"
)

// grown is a tree that was saved, and then changed a little.
func grown(t testing.TB) *saver {
	t.Helper()
	s := newSaver(t)
	for i := range 60 {
		s.write(fmt.Sprintf("f%02d", i), filler(uint64(i), 100_000))
	}
	s.write("large", filler(100, 9<<20))
	check(t, os.Symlink("f01", s.path("link")))
	aged()
	s.save(ownOptions())
	s.write("f33", filler(33, 100_001))
	aged()
	return s
}

// again saves without keeping the results.
func (s saver) again(o archive.CreateOptions) archive.Reuse { return *s.save(o).Reuse }

func contentOf(t testing.TB, f *os.File) []byte {
	t.Helper()
	b, err := os.ReadFile(f.Name())
	check(t, err)
	return b
}

// TestWrongIndexChangesNothing gives the index of an earlier state, of another tree, of no tree, and damaged ones.
func TestWrongIndexChangesNothing(t *testing.T) {
	s := grown(t)
	if r := s.again(ownOptions()); r.Unread < 15 {
		t.Fatalf("the right index is of no use: %+v", r)
	}
	good := contentOf(t, s.index)
	give := func(what string, index *os.File) {
		other := *s
		other.index = index
		if _, err := other.read(); err == nil {
			t.Errorf("%s: the index is believed", what)
		}
		if r := other.again(ownOptions()); r.Unread != 0 || r.Copied == 0 {
			t.Errorf("%s: %+v", what, r)
		}
	}
	give("none", nil)
	give("empty", file(t, nil))
	give("of another tree", grown(t).index)
	random := rand.New(rand.NewPCG(1, 1))
	for range 3 {
		bad := bytes.Clone(good)
		bad[random.IntN(len(bad))] ^= 1 << random.IntN(8)
		give("a bit flipped", file(t, bad))
		give("cut", file(t, good[:random.IntN(len(good))]))
	}
	old := *s
	for i := range 3 {
		s.write(fmt.Sprintf("f%02d", i), filler(uint64(200+i), 100_000))
		s.save(ownOptions())
	}
	old.root = s.root
	if r := old.again(ownOptions()); r.Unread == 0 {
		t.Errorf("of an index of an earlier state nothing is used: %+v", r)
	}
}

// TestIndexIsCheckedByEveryField has indexes with a right sum in which one field of all records differs.
func TestIndexIsCheckedByEveryField(t *testing.T) {
	s := grown(t)
	good := contentOf(t, s.index)
	const head, record = 64, 72
	n := int(binary.LittleEndian.Uint64(good[48:]))
	for name, at := range map[string]int{"size": 0, "mtime": 8, "ctime": 16, "mtime ns": 24, "ctime ns": 28, "mode": 32} {
		bad := bytes.Clone(good)
		for i := range n {
			bad[head+8*n+record*i+at]++
		}
		other := *s
		other.index = file(t, resealed(bad))
		if _, err := other.read(); err != nil {
			t.Fatal(err)
		}
		if r := other.again(ownOptions()); r.Unread != 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// resealed gives an index a sum that fits.
func resealed(index []byte) []byte {
	body := index[:len(index)-sha256.Size]
	sum := sha256.Sum256(body)
	return append(body, sum[:]...)
}

// TestBaseOfNoUse gives bases that are damaged, foreign, or nothing at all.
func TestBaseOfNoUse(t *testing.T) {
	s := grown(t)
	good := contentOf(t, s.base)
	whole := s.again(ownOptions())
	f, _ := contents(t, good)
	explain := ownOptions()
	explain.Explain = true
	for i, span := range f.Frames() {
		bad := bytes.Clone(good)
		bad[span.Offset+span.Stored/2] ^= 4
		other := *s
		other.base = file(t, bad)
		if i%2 == 0 {
			other.index = nil // so that the sha256 decides, not the CRC
		}
		r := other.again(explain)
		if damaged := r.Why["damaged in the base"]; r.Copied+damaged != whole.Copied || damaged > 1 {
			t.Errorf("frame %d damaged: %+v, of a good base %+v", i, r, whole)
		}
	}
	fast := ownOptions()
	fast.Level = 1
	level1, _ := pack(t, s.root, fast)
	plain := ownOptions()
	plain.Format = archive.Plain
	tar, _ := pack(t, s.root, plain)
	flipped := bytes.Clone(good)
	flipped[f.End()+100] ^= 1
	for what, base := range map[string][]byte{
		"empty": {}, "cut": good[:len(good)-1], "cut in the middle": good[:len(good)/2], "plain tar": tar, "foreign": filler(9, 5000),
		"table of contents damaged": flipped, "klauspost/1": level1,
	} {
		other := *s
		other.base = file(t, base)
		if r := other.again(ownOptions()); r.Copied != 0 || r.Refused == "" || what == "klauspost/1" && !strings.Contains(r.Refused, what) {
			t.Errorf("%s: %+v", what, r)
		}
	}
	other := *s
	other.base = s.root
	if r := other.again(ownOptions()); r.Refused == "" {
		t.Errorf("a directory as base: %+v", r)
	}
}

// TestBaseIsOutput must not read what it overwrites.
func TestBaseIsOutput(t *testing.T) {
	s := grown(t)
	o := ownOptions()
	out, err := os.OpenFile(s.base.Name(), os.O_RDWR, 0)
	check(t, err)
	defer out.Close()
	before := contentOf(t, out)
	o.Base = s.base
	_, err = archive.Create(t.Context(), s.root, out, o)
	wantError(t, err, "the base is the output")
	if !bytes.Equal(before, contentOf(t, out)) {
		t.Error("the base was overwritten")
	}
	o.Format = archive.Gzip
	_, err = archive.Create(t.Context(), s.root, &bytes.Buffer{}, o)
	wantError(t, err, "base", "zst")
}

// TestExplain names the cause of each frame that is made.
func TestExplain(t *testing.T) {
	s := grown(t)
	o := ownOptions()
	o.Explain = true
	s.save(o)
	for _, c := range []struct {
		why    string
		change func()
	}{
		{"a new entry (\"f05-new\")", func() { s.write("f05-new", []byte("new")) }},
		{"changed content (\"f07\")", func() { s.write("f07", filler(7, 99_999)) }},
		{"changed content (\"large\")", func() { s.write("large", filler(8, 9<<20)) }},
		{"changed metadata (\"f09\")", func() { check(t, os.Chmod(s.path("f09"), 0o600)) }},
		{"a neighbour came or went", func() {
			settle(t, s.root)
			s.scratch = nil
			s.save(o)
			check(t, os.Remove(s.path("f05-new")))
			settle(t, s.root)
			aged() // or the save that follows records nothing
		}},
	} {
		c.change()
		s.scratch = nil
		r := s.save(o).Reuse
		total := int64(0)
		for _, n := range r.Why {
			total += n
		}
		if text := strings.Join(r.Lines(), "\n"); total != r.Built || !strings.Contains(text, c.why) {
			t.Errorf("want %q, got %+v:\n%s", c.why, r, text)
		}
	}
	if r := s.again(o); r.Built != 0 || r.BytesRead != 0 {
		t.Errorf("nothing changed: %+v", r)
	}
}
