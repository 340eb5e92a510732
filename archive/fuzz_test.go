package archive

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/archive/tarfmt"
)

// slicesTar is a plain tar of one sparse file "f" that is all hole, with these pax records.
func slicesTar(records ...string) []byte {
	var pax bytes.Buffer
	for _, r := range records {
		n := len(r) + 2
		for len(fmt.Sprint(n))+len(r)+2 != n {
			n = len(fmt.Sprint(n)) + len(r) + 2
		}
		fmt.Fprintf(&pax, "%d %s\n", n, r)
	}
	var out bytes.Buffer
	block := func(flag byte, name string, data []byte) {
		b := make([]byte, 512)
		copy(b, name)
		copy(b[100:], "0000644\x000000000\x000000000\x00")
		copy(b[124:], fmt.Sprintf("%011o\x0000000000000\x00        %c", len(data), flag))
		copy(b[257:], "ustar\x0000")
		sum := 0
		for _, c := range b {
			sum += int(c)
		}
		copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
		out.Write(b)
		out.Write(data)
		out.Write(make([]byte, tarfmt.Padding(int64(len(data)))))
	}
	block('x', "pax", pax.Bytes())
	block('0', "f", append([]byte("0\n"), make([]byte, 510)...))
	out.Write(tarfmt.Trailer[:])
	return out.Bytes()
}

func addSeeds(f *testing.F) {
	for _, format := range []Format{Framed, Gzip, Plain} {
		f.Add(sample(f, format, rich))
	}
	f.Add(slicesTar("path=../evil", "size=512"))
	f.Add(slicesTar("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=1000"))
	f.Add(slicesTar("SCHILY.acl.access=user::rwx,user:5:rwx,group::r-x,mask::rwx,other::---", "SCHILY.xattr.user.x=y", "mtime=-1.5"))
}

// FuzzExtract: nothing panics, hangs or touches what is beside the tree.
func FuzzExtract(f *testing.F) {
	addSeeds(f)
	work := workplace(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<20 {
			return
		}
		_, _ = extract(t, t.TempDir(), bytes.NewReader(b))
		if c, err := os.ReadFile(work + "/canary"); err != nil || string(c) != "sings" {
			t.Fatalf("the canary: %q, %v", c, err)
		}
	})
}

// FuzzRead: what reads archives takes any bytes, and what verify accepts can be listed.
func FuzzRead(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		in := tempFile(t, t.TempDir(), b)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, verr := Verify(ctx, in, 1)
		var first string
		_, _ = in.Seek(0, io.SeekStart)
		lerr := List(ctx, in, 1, func(n listing.Node) error {
			if n.Type == listing.File && n.Size < 1<<20 {
				first = n.Name
			}
			return nil
		})
		if verr == nil && lerr != nil {
			t.Errorf("verified, but not listed: %v", lerr)
		}
		if first != "" {
			_, _ = in.Seek(0, io.SeekStart)
			_ = Cat(ctx, in, first, 1, io.Discard)
		}
		if ctx.Err() != nil {
			t.Error("took more than ten seconds")
		}
	})
}

// FuzzConvert: nothing panics or hangs, and what comes out is whole and its own conversion.
func FuzzConvert(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<20 {
			return
		}
		dir := t.TempDir()
		out, err := converted(t, dir, b)
		if err != nil {
			return
		}
		if _, err := Verify(t.Context(), tempFile(t, dir, out), 1); err != nil {
			t.Fatalf("what came out: %v", err)
		}
		if again, err := converted(t, dir, out); err != nil || !bytes.Equal(again, out) {
			t.Fatalf("converted again: %v", err)
		}
	})
}
