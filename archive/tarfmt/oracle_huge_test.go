package tarfmt

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/tier"
)

// TestHugeSizes has the tools list files beyond the 8 GiB that eleven octal digits hold, dense and sparse.
func TestHugeSizes(t *testing.T) {
	tier.Program(t, "tar", "bsdtar", "python3", "awk", "bash")
	const limit = 1<<33 - 1
	easy := []Header{
		{Name: "./fits", Type: Reg, Size: limit},
		{Name: "./more", Type: Reg, Size: limit + 1},
		{Name: "./24G", Type: Reg, Size: 3 << 33},
		{Name: "./holes", Type: Reg, Size: 1 << 40, Sparse: []Segment{{4096, 512}}},
		{Name: "./hole", Type: Reg, Size: 1 << 42, Sparse: []Segment{}},
		{Name: "./most", Type: Reg, Size: 1 << 40, Sparse: []Segment{{0, limit + 1 - 2*BlockSize}}},
	}
	hard := append(easy, Header{Name: "./data+holes", Type: Reg, Size: 1 << 40, Sparse: []Segment{{4096, 3 << 32}}})
	list := func(name, size int) string {
		return fmt.Sprintf(` -tvf "$0" | awk '{print $%d, $%d}'`, name, size)
	}
	for _, tool := range []struct {
		name, script string
		headers      []Header
	}{
		{"tar", "tar --numeric-owner" + list(6, 3), hard},
		{"bsdtar", "bsdtar" + list(9, 5), hard},
		// tarfile (3.11) computes a wrong end for a sparse file with a size record, GNU tar's own archives included.
		{"python", `python3 -W error -c 'import sys, tarfile
with tarfile.open(sys.argv[1]) as t:
    for m in t: print(m.name, m.size)' "$0"`, easy},
	} {
		t.Run(tool.name, func(t *testing.T) {
			name, want := hugeArchive(t, tool.headers)
			if got := string(run(t, nil, nil, "bash", "-c", "set -o pipefail; "+tool.script, name)); got != want {
				t.Errorf("it lists\n%s", got)
			}
			if got := listSeeking(t, name); got != want {
				t.Errorf("we list\n%s", got)
			}
		})
	}
}

// hugeArchive writes an archive whose data are holes, and what a listing of it has to show.
func hugeArchive(t *testing.T, headers []Header) (name, list string) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "huge.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	off := int64(0)
	var want strings.Builder
	for _, h := range headers {
		b, err := h.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(h.AppendSparseMap(b), off); err != nil {
			t.Fatal(err)
		}
		off += int64(len(b)) + h.Stored() + Padding(h.Stored())
		fmt.Fprintf(&want, "%s %d\n", h.Name, h.Size)
	}
	if err := f.Truncate(off + int64(len(Trailer))); err != nil {
		t.Fatal(err)
	}
	return f.Name(), want.String()
}

// listSeeking lists the archive with a Reader.
func listSeeking(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := NewReader(f, Limits{})
	var got strings.Builder
	for h, err := r.Next(); err != io.EOF; h, err = r.Next() {
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&got, "%s %d\n", h.Name, h.Size)
	}
	return got.String()
}
