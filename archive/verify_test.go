package archive_test

import (
	"bytes"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/zframe"
	"github.com/nsferry/nsferry/archive/zframe/toc"
)

// vector is the small golden archive.
func vector(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("../testdata/vectors/small.tar.zst")
	check(t, err)
	return b
}

// TestVerifyBits flips every bit of an archive.
func TestVerifyBits(t *testing.T) {
	whole := vector(t)
	if _, err := archive.Verify(t.Context(), file(t, whole), 1); err != nil {
		t.Fatal(err)
	}
	for part := range 4 {
		t.Run(fmt.Sprint(part), func(t *testing.T) {
			t.Parallel()
			b := bytes.Clone(whole)
			f := file(t, b)
			for i := part; i < len(b); i += 4 {
				for bit := range 8 {
					if _, err := f.WriteAt([]byte{b[i] ^ 1<<bit}, int64(i)); err != nil {
						t.Fatal(err)
					}
					if _, err := f.Seek(0, 0); err != nil {
						t.Fatal(err)
					}
					if _, err := archive.Verify(t.Context(), f, 1); err == nil {
						t.Errorf("bit %d of byte %d of %d may flip", bit, i, len(b))
					}
				}
				if _, err := f.WriteAt(b[i:i+1], int64(i)); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestVerifyTruncation cuts an archive at every byte, and appends one.
func TestVerifyTruncation(t *testing.T) {
	whole := vector(t)
	f := file(t, append(bytes.Clone(whole), 0))
	if _, err := archive.Verify(t.Context(), f, 1); err == nil {
		t.Error("a byte behind the end goes unseen")
	}
	for n := len(whole) - 1; n >= 0; n-- {
		check(t, f.Truncate(int64(n)))
		_, err := f.Seek(0, 0)
		check(t, err)
		if _, err := archive.Verify(t.Context(), f, 1); err == nil {
			t.Errorf("cut at %d of %d it is whole", n, len(whole))
		}
	}
}

// retold is the archive with another table of contents.
func retold(t testing.TB, archived []byte, lie func(*toc.Contents)) []byte {
	t.Helper()
	f, c := contents(t, archived)
	lie(&c)
	enc, err := zframe.NewEncoder(3)
	check(t, err)
	w := toc.NewWriter(enc)
	for i := range c.Entries {
		check(t, w.Add(&c.Entries[i]))
	}
	tail, err := w.Finish(c.Header, c.Frames)
	check(t, err)
	return append(bytes.Clone(archived[:f.End()]), tail...)
}

// TestVerifyLies tells something else than the archive in each field of the table of contents; verify names the entry.
func TestVerifyLies(t *testing.T) {
	whole := vector(t)
	if !bytes.Equal(retold(t, whole, func(*toc.Contents) {}), whole) {
		t.Fatal("the true table of contents gives another archive")
	}
	_, c := contents(t, whole)
	index := map[string]int{}
	for i, e := range c.Entries {
		index[e.Name] = i
	}
	type lie = func(*toc.Entry)
	covered := map[string]bool{}
	for _, l := range []struct {
		field, entry string
		do           lie
	}{
		{"Name", "file", func(e *toc.Entry) { e.Name = "filf" }},
		{"Type", "fifo", func(e *toc.Entry) { e.Type = toc.Dir }},
		{"Mode", "file", func(e *toc.Entry) { e.Mode ^= 0o4000 }},
		{"UID", "file", func(e *toc.Entry) { e.UID++ }},
		{"GID", "file", func(e *toc.Entry) { e.GID++ }},
		{"Size", "file", func(e *toc.Entry) { e.Size++ }},
		{"ModTime", "file", func(e *toc.Entry) { e.ModTime.Sec++ }},
		{"ModTime", "file", func(e *toc.Entry) { e.ModTime.Nsec++ }},
		{"Link", "symlink", func(e *toc.Entry) { e.Link += "x" }},
		{"Link", "hardlink", func(e *toc.Entry) { e.Link = "dir/acl" }},
		{"Digest", "file", func(e *toc.Entry) { e.Digest[31] ^= 1 }},
		{"DevMajor", "whiteout", func(e *toc.Entry) { e.DevMajor = 1 }},
		{"DevMinor", "whiteout", func(e *toc.Entry) { e.DevMinor = 3 }},
		{"Xattrs", "xattr", func(e *toc.Entry) { e.Xattrs[0].Value = []byte("other") }},
		{"Xattrs", "xattr", func(e *toc.Entry) { e.Xattrs[0].Key = "user.!" }},
		{"Xattrs", "xattr", func(e *toc.Entry) { e.Xattrs = e.Xattrs[1:] }},
		{"Xattrs", "file", func(e *toc.Entry) { e.Xattrs = []toc.Xattr{{Key: "user.new"}} }},
		{"ACL", "dir/acl", func(e *toc.Entry) { e.ACL = strings.Replace(e.ACL, "1000", "1001", 1) }},
		{"ACL", "dir/acl", func(e *toc.Entry) { e.ACL = "" }},
		{"DefaultACL", "dir", func(e *toc.Entry) { e.DefaultACL = "" }},
		{"Sparse", "sparse", func(e *toc.Entry) { e.Sparse = nil }},
		{"Sparse", "sparse", func(e *toc.Entry) { e.Sparse = []toc.Segment{{Offset: 512, Length: 512}} }},
		{"Sparse", "sparse", func(e *toc.Entry) { e.Sparse = append(e.Sparse, toc.Segment{Offset: e.Size}) }},
		{"Offset", "file", func(e *toc.Entry) { e.Offset -= 512 }},
		{"HeaderLen", "file", func(e *toc.Entry) { e.HeaderLen += 512 }},
	} {
		covered[l.field] = true
		t.Run(l.field+" of "+l.entry, func(t *testing.T) {
			var told string
			lied := retold(t, whole, func(c *toc.Contents) {
				e := &c.Entries[index[l.entry]]
				if e.Name != l.entry {
					t.Fatalf("the archive has no %s", l.entry)
				}
				l.do(e)
				told = e.Name
			})
			_, err := archive.Verify(t.Context(), file(t, lied), 2)
			if err == nil {
				t.Fatal("verify believes it")
			}
			// Some lies the reader of the table sees by itself, and then it names the line.
			line := fmt.Sprintf("line %d", index[l.entry]+2)
			if !strings.Contains(err.Error(), l.entry) && !strings.Contains(err.Error(), told) && !strings.Contains(err.Error(), line) &&
				!strings.Contains(err.Error(), fmt.Sprintf("line %d", index[l.entry]+3)) {
				t.Errorf("the message names neither the entry nor the line: %v", err)
			}
		})
	}
	for i := range reflect.TypeFor[toc.Entry]().NumField() {
		if name := reflect.TypeFor[toc.Entry]().Field(i).Name; !covered[name] && name != "Frame" {
			t.Errorf("nobody lies in %s", name)
		}
	}
	for name, do := range map[string]func(*toc.Contents){
		"an entry less":   func(c *toc.Contents) { c.Entries = c.Entries[:len(c.Entries)-1] },
		"no second entry": func(c *toc.Contents) { c.Entries = append(c.Entries[:1:1], c.Entries[2:]...) },
		"an entry more": func(c *toc.Contents) {
			e := c.Entries[len(c.Entries)-1]
			e.Name, e.Offset = "zzz", e.Offset+512
			c.Entries = append(c.Entries, e)
		},
		"identity": func(c *toc.Contents) { c.Frames[0].Identity[0] ^= 1 },
		"sum":      func(c *toc.Contents) { c.Frames[0].Sum[0] ^= 1 },
	} {
		if _, err := archive.Verify(t.Context(), file(t, retold(t, whole, do)), 2); err == nil {
			t.Errorf("%s: verify believes it", name)
		}
	}
}

// TestVerifyFrameLies needs several frames: an entry in another one, and frames that are swapped.
func TestVerifyFrameLies(t *testing.T) {
	packed, _ := pack(t, ownTree(t, 400, 20<<10), ownOptions())
	_, c := contents(t, packed)
	if len(c.Frames) < 3 {
		t.Fatalf("%d frames", len(c.Frames))
	}
	last := len(c.Entries) - 1
	for name, do := range map[string]func(*toc.Contents){
		"frame": func(c *toc.Contents) { c.Entries[last].Frame--; c.Entries[last].Offset += 4096 },
		"identities": func(c *toc.Contents) {
			c.Frames[0].Identity, c.Frames[1].Identity = c.Frames[1].Identity, c.Frames[0].Identity
		},
		"sums": func(c *toc.Contents) { c.Frames[1].Sum = c.Frames[2].Sum },
	} {
		if _, err := archive.Verify(t.Context(), file(t, retold(t, packed, do)), 2); err == nil {
			t.Errorf("%s: verify believes it", name)
		}
	}
}

// TestCatLies checks the digest of what it prints.
func TestCatLies(t *testing.T) {
	lied := retold(t, vector(t), func(c *toc.Contents) {
		for i := range c.Entries {
			c.Entries[i].Digest[0] ^= 1
		}
	})
	var out bytes.Buffer
	wantError(t, archive.Cat(t.Context(), file(t, lied), "file", 1, &out), "digest")
}
