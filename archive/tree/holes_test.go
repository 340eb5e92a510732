package tree

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"golang.org/x/sys/unix"
)

// TestSegmentsBesideShortHoles looks for holes of at least 64 KiB in files whose data lies in blocks of 4 KiB.
func TestSegmentsBesideShortHoles(t *testing.T) {
	const k = 1 << 10
	for _, c := range []struct {
		size int64
		data []Segment
		want []Segment
	}{
		{100 * k, []Segment{{0, 100 * k}}, nil},
		{100 * k, nil, []Segment{}},
		{64*k - 1, nil, nil},
		{100 * k, []Segment{{0, 4 * k}}, []Segment{{0, 4 * k}}},
		{100 * k, []Segment{{96 * k, 4 * k}}, []Segment{{96 * k, 4 * k}}},
		{132 * k, []Segment{{64 * k, 4 * k}}, []Segment{{64 * k, 4 * k}}},
		// Holes that are too short: in front, in the middle, at the end, and one behind the other.
		{100 * k, []Segment{{60 * k, 40 * k}}, nil},
		{100 * k, []Segment{{0, 8 * k}, {12 * k, 88 * k}}, nil},
		{100 * k, []Segment{{0, 40 * k}}, nil},
		{100*k + 1, []Segment{{0, 96 * k}}, nil},
		{100 * k, []Segment{{4 * k, 4 * k}, {12 * k, 4 * k}, {20 * k, 40 * k}, {64 * k, 4 * k}}, nil},
		// Short ones beside long ones.
		{200 * k, []Segment{{60 * k, 4 * k}, {128 * k, 8 * k}}, []Segment{{0, 64 * k}, {128 * k, 8 * k}}},
		{300 * k, []Segment{{0, 4 * k}, {8 * k, 4 * k}, {100 * k, 4 * k}, {140 * k, 4 * k}}, []Segment{{0, 12 * k}, {100 * k, 44 * k}}},
		{200 * k, []Segment{{0, 4 * k}, {100 * k, 50 * k}}, []Segment{{0, 4 * k}, {100 * k, 100 * k}}},
		{200*k + 7, []Segment{{0, 4 * k}, {100 * k, 4 * k}}, []Segment{{0, 4 * k}, {100 * k, 4 * k}}},
	} {
		t.Run(fmt.Sprint(c.size, c.data), func(t *testing.T) {
			dir, err := os.Open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			path := filepath.Join(dir.Name(), "f")
			f, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			for _, s := range c.data {
				if _, err := f.WriteAt(make([]byte, s.Length), s.Offset); err != nil {
					t.Fatal(err)
				}
			}
			if err := f.Truncate(c.size); err != nil {
				t.Fatal(err)
			}
			var st unix.Statx_t
			if err := unix.Statx(unix.AT_FDCWD, path, 0, statxMask, &st); err != nil {
				t.Fatal(err)
			}
			opened, err := OpenFile(NewRoot(dir), "f", &st)
			if err != nil {
				t.Fatal(err)
			}
			defer opened.Close()
			got, err := opened.Segments(64 * k)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}
