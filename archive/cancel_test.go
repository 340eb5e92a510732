package archive

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/nsferry/nsferry/idshift"
)

// cancelling is an output whose context ends with its n-th write.
type cancelling struct {
	bytes.Buffer
	n      int
	cancel context.CancelFunc
}

func (c *cancelling) Write(p []byte) (int, error) {
	if c.n--; c.n == 0 {
		c.cancel()
	}
	return c.Buffer.Write(p)
}

// TestCancelledCreateIsNoSuccess cancels at every write: either all of the archive was written or there is an error.
func TestCancelledCreateIsNoSuccess(t *testing.T) {
	dir := t.TempDir()
	for i := range 16 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), bytes.Repeat([]byte{byte(i)}, 300<<10), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, format := range []Format{Plain, Gzip, Framed} {
		o := CreateOptions{Format: format, Workers: 2}
		o.IDs.Plain = idshift.Identity()
		o.Policy = o.Policy.WithDefaults(true)
		whole := &cancelling{cancel: func() {}}
		if _, err := Create(t.Context(), root, whole, o); err != nil {
			t.Fatal(err)
		}
		writes := -whole.n
		for n := 1; n <= writes; n++ {
			ctx, cancel := context.WithCancel(t.Context())
			out := &cancelling{n: n, cancel: cancel}
			if _, err := Create(ctx, root, out, o); err == nil && out.Len() != whole.Len() {
				t.Errorf("%s: cancelled at write %d of %d, no error, and %d bytes of %d", format, n, writes, out.Len(), whole.Len())
			}
			cancel()
		}
	}
}
