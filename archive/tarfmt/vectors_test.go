package tarfmt

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the listings in testdata/vectors")

// TestVectors reads archives that were made once by the tool their name tells (testdata/vectors/README) and compares with
// the listing beside them.
func TestVectors(t *testing.T) {
	names, err := filepath.Glob("testdata/vectors/*.tar")
	if err != nil || len(names) < 10 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			archive, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got := listing(mustRead(t, archive))
			golden := strings.TrimSuffix(name, ".tar") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestOwnVector writes what it reads, to the last byte: other versions of this package depend on it.
func TestOwnVector(t *testing.T) {
	archive, err := os.ReadFile("testdata/vectors/own.tar")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(write(t, mustRead(t, archive)), archive) {
		t.Error("the format has changed")
	}
}

// listing shows all that was read, one line an entry.
func listing(items []item) string {
	var b strings.Builder
	for _, it := range items {
		fmt.Fprintf(&b, "%c %04o %d:%d %d %d.%09d %q", it.Type, it.Mode, it.UID, it.GID, it.Size, it.ModTime.Sec, it.ModTime.Nsec, it.Name)
		if it.Link != "" {
			fmt.Fprintf(&b, " -> %q", it.Link)
		}
		if it.Type == Char || it.Type == Block {
			fmt.Fprintf(&b, " dev=%d,%d", it.DevMajor, it.DevMinor)
		}
		for _, x := range it.Xattrs {
			fmt.Fprintf(&b, " %q=%q", x.Key, x.Value)
		}
		if it.ACL+it.DefaultACL+it.Comment != "" {
			fmt.Fprintf(&b, " acl=%q default=%q comment=%q", it.ACL, it.DefaultACL, it.Comment)
		}
		if it.Sparse != nil {
			fmt.Fprintf(&b, " sparse=%v", it.Sparse)
		}
		if it.Type == Reg {
			fmt.Fprintf(&b, " sha256=%.16s", digest(it.content()))
		}
		b.WriteByte('\n')
	}
	return b.String()
}
