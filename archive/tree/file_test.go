package tree

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// sparseCases are files by their data (offset, length) and size, and the segments that are seen with holes from 64 KiB on.
var sparseCases = []struct {
	name string
	size int64
	data []Segment
	want []Segment
}{
	{"empty", 0, nil, nil},
	{"dense", 300 << 10, []Segment{{0, 300 << 10}}, nil},
	{"all hole", 1 << 20, nil, []Segment{}},
	{"short hole only", 200 << 10, []Segment{{0, 100 << 10}, {132 << 10, 68 << 10}}, nil},
	{"hole first", 1 << 20, []Segment{{512 << 10, 512 << 10}}, []Segment{{512 << 10, 512 << 10}}},
	{"hole last", 1 << 20, []Segment{{0, 4 << 10}}, []Segment{{0, 4 << 10}}},
	{"hole in the middle", 1 << 20, []Segment{{0, 64 << 10}, {960 << 10, 64 << 10}}, []Segment{{0, 64 << 10}, {960 << 10, 64 << 10}}},
	{"hole of just enough", 192 << 10, []Segment{{0, 64 << 10}, {128 << 10, 64 << 10}}, []Segment{{0, 64 << 10}, {128 << 10, 64 << 10}}},
	{"short holes are data", 1 << 20, []Segment{{0, 4 << 10}, {32 << 10, 4 << 10}, {512 << 10, 4 << 10}}, []Segment{{0, 36 << 10}, {512 << 10, 4 << 10}}},
	{"odd size behind a hole", 1<<20 + 77, []Segment{{1 << 20, 77}}, []Segment{{1 << 20, 77}}},
	{"odd size in a hole", 1<<20 + 77, []Segment{{0, 1}}, []Segment{{0, 4 << 10}}},
	{"one byte amid holes", 1 << 20, []Segment{{512<<10 + 5, 1}}, []Segment{{512 << 10, 4 << 10}}},
}

// TestSegments on whatever filesystem tests run on, and as root on all that a rootfs may be on: they keep holes in blocks of
// different sizes, and archives must not tell.
func TestSegments(t *testing.T) {
	t.Run("here", func(t *testing.T) { checkSegments(t, t.TempDir()) })
	for _, fs := range []string{"tmpfs", "ext4", "xfs", "btrfs"} {
		t.Run(fs, func(t *testing.T) {
			if fs != "tmpfs" {
				rootTier(t, "mkfs."+fs)
			}
			rootTier(t)
			checkSegments(t, mountNew(t, fs))
		})
	}
}

func checkSegments(t *testing.T, dir string) {
	for _, c := range sparseCases {
		t.Run(c.name, func(t *testing.T) {
			f, err := os.Create(filepath.Join(dir, c.name))
			must(t, err)
			defer f.Close()
			for _, s := range c.data {
				_, err := f.WriteAt([]byte(strings.Repeat("x", int(s.Length))), s.Offset)
				must(t, err)
			}
			must(t, f.Truncate(c.size))
			must(t, f.Sync()) // delayed allocation may show more
			got := segmentsOf(t, dir, c.name)
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
	t.Run("preallocated", func(t *testing.T) {
		f, err := os.Create(filepath.Join(dir, "p"))
		must(t, err)
		defer f.Close()
		if err := unix.Fallocate(int(f.Fd()), 0, 0, 1<<20); errors.Is(err, unix.EOPNOTSUPP) {
			t.Logf("no fallocate here")
			return
		}
		if got := segmentsOf(t, dir, "p"); len(got) > 0 && !(len(got) == 1 && got[0].Length == 1<<20) {
			t.Errorf("got %v, want a hole or dense", got)
		}
	})
}

func segmentsOf(t *testing.T, dir, name string) (segs []Segment) {
	t.Helper()
	root := openTestDir(t, dir)
	must(t, Walk(t.Context(), root, func(e *Entry) error {
		if e.Path != name {
			return nil
		}
		f, err := OpenFile(NewRoot(root), e.Path, &e.Stat)
		if err != nil {
			return err
		}
		defer f.Close()
		segs, err = f.Segments(64 << 10)
		return err
	}))
	return segs
}

// mountNew mounts a new filesystem for the test, with what is needed to take it away again.
func mountNew(t *testing.T, fs string) string {
	t.Helper()
	dir := t.TempDir()
	if fs == "tmpfs" {
		must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	} else {
		image := filepath.Join(t.TempDir(), "image")
		must(t, os.WriteFile(image, nil, 0o600))
		must(t, os.Truncate(image, 512<<20))
		for _, argv := range [][]string{{"mkfs." + fs, image}, {"mount", "-o", "loop", image, dir}} {
			if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", argv[0], err, out)
			}
		}
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) }) // mount(8)'s loop devices go with the mount
	return dir
}

// TestOpenFileChanged: a file is the one that Walk saw, and stays so, or it is an error.
func TestOpenFileChanged(t *testing.T) {
	for name, c := range map[string]struct {
		before, after func(path string) error
	}{
		"written before":  {before: func(p string) error { return os.WriteFile(p, []byte("longer than it was"), 0o600) }},
		"written after":   {after: func(p string) error { return os.WriteFile(p, []byte("other"), 0o600) }},
		"shorter after":   {after: func(p string) error { return os.Truncate(p, 1) }},
		"replaced before": {before: func(p string) error { return errors.Join(os.Remove(p), os.WriteFile(p, []byte("12345"), 0o600)) }},
		"mode after":      {after: func(p string) error { return os.Chmod(p, 0o400) }},
		"fifo before":     {before: func(p string) error { return errors.Join(os.Remove(p), unix.Mkfifo(p, 0o600)) }},
	} {
		t.Run(name, func(t *testing.T) {
			noLeak(t)
			bothRoots(t, func(t *testing.T) string { return build(t, "dir . @ 755\nfile f @ 644 \"12345\"") }, func(t *testing.T, r *Root) {
				path := filepath.Join(r.dir.Name(), "f")
				e := Entry{Dir: r.Fd(), Base: "f", Path: "f"}
				must(t, e.stat())
				if c.before != nil {
					must(t, c.before(path))
				}
				f, err := OpenFile(r, "f", &e.Stat)
				if err == nil {
					defer f.Close()
					must(t, f.Unchanged())
					must(t, c.after(path))
					if err = f.ReadFull(make([]byte, 5), 0); err == nil {
						err = f.Unchanged()
					}
				}
				if !errors.Is(err, ErrChanged) {
					t.Errorf("error %v, want ErrChanged", err)
				}
			})
		})
	}
	t.Run("symlink before", func(t *testing.T) {
		bothRoots(t, func(t *testing.T) string { return build(t, "dir . @ 755\nfile f @ 644 \"12345\"\nsymlink l @ f") }, func(t *testing.T, r *Root) {
			e := Entry{Dir: r.Fd(), Base: "f", Path: "f"}
			must(t, e.stat())
			if _, err := OpenFile(r, "l", &e.Stat); !errors.Is(err, unix.ELOOP) {
				t.Errorf("error %v, want ELOOP", err)
			}
		})
	})
}
