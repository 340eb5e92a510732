//go:build linux

package handoff

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/tier"

	"golang.org/x/sys/unix"
)

// layout is a file: data at the given block numbers of 64 KiB, and a size.
type layout struct {
	name   string
	blocks []int64
	size   int64
}

const block = 64 << 10

var layouts = []layout{
	{"empty", nil, 0},
	{"one byte", []int64{0}, 1},
	{"dense", []int64{0, 1, 2}, 3 * block},
	{"odd size", []int64{0, 1}, 2*block - 17},
	{"only a hole", nil, 10 * block},
	{"hole first", []int64{5}, 6 * block},
	{"hole last", []int64{0}, 9*block + 5},
	{"holes", []int64{0, 3, 4, 8}, 12 * block},
	{"more than a chunk", seq(300), 300*block + 1},
	{"10 GiB", []int64{1, 163839}, 10 << 30},
}

func seq(n int64) (s []int64) {
	for i := range n {
		s = append(s, i)
	}
	return s
}

func (l layout) make(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(path, "src"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	for _, b := range l.blocks {
		data := bytes.Repeat([]byte{byte(b) | 1}, block)
		if _, err := f.WriteAt(data, b*block); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.Truncate(l.size), f.Sync()); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestTransferKeepsEverything(t *testing.T) {
	for _, top := range []Method{"", Reflink, Range, Copy} {
		for _, l := range layouts {
			t.Run(string(top)+" "+l.name, func(t *testing.T) {
				_, path := openDir(t)
				if os.Getenv("HANDOFF_FS") == "ramfs" && l.size > 1<<30 {
					return // no holes there: it would be 10 GiB of memory
				}
				src, dst := l.make(t, path), create(t, path)
				var last int64
				res, err := Transfer(context.Background(), dst, src, Ladder{Top: top, Progress: func(done, total int64) {
					if done < last || total != l.size {
						t.Errorf("progress %d of %d after %d", done, total, last)
					}
					last = done
				}})
				if err != nil {
					t.Fatal(err)
				}
				if res.Bytes != l.size || last != l.size {
					t.Errorf("%d bytes, progress %d, want %d", res.Bytes, last, l.size)
				}
				if top == Copy && l.size > 0 && res.Method != Copy {
					t.Errorf("by %s", res.Method)
				}
				compare(t, src, dst, res)
				t.Logf("%s: %+v", l.name, res)
			})
		}
	}
}

func create(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(path, "dst"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// compare wants equal sizes, equal segments, equal data in them, and the number of hole bytes that was reported.
func compare(t *testing.T, src, dst *os.File, res Result) {
	t.Helper()
	a, b := segmentsIn(t, src), segmentsIn(t, dst)
	if fmt.Sprint(a) != fmt.Sprint(b) {
		t.Fatalf("data at %v became data at %v", a, b)
	}
	holes := res.Bytes
	for _, s := range a {
		holes -= s[1] - s[0]
		x, err := io.ReadAll(io.NewSectionReader(src, s[0], s[1]-s[0]))
		if err != nil {
			t.Fatal(err)
		}
		y, err := io.ReadAll(io.NewSectionReader(dst, s[0], s[1]-s[0]))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(x, y) {
			t.Errorf("segment %v differs", s)
		}
	}
	if holes != res.Holes {
		t.Errorf("%d bytes of holes reported, %d found", res.Holes, holes)
	}
}

// segmentsIn is an own reading of the hole map, not the copier's.
func segmentsIn(t *testing.T, f *os.File) (s [][2]int64) {
	t.Helper()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	for end := int64(0); end < st.Size(); {
		start, err := f.Seek(end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if end, err = f.Seek(start, unix.SEEK_HOLE); err != nil {
			t.Fatal(err)
		}
		s = append(s, [2]int64{start, end})
	}
	return s
}

// TestTransferLadder forces each error at each rung: down, or out.
func TestTransferLadder(t *testing.T) {
	for _, c := range []struct {
		op    string
		err   error
		want  Method // "" when the error is to come out
		fewer bool   // without SEEK_DATA holes are lost
	}{
		{"FICLONE", unix.EINVAL, Range, false},
		{"FICLONE", unix.EXDEV, Range, false},
		{"FICLONE", unix.EOPNOTSUPP, Range, false},
		{"FICLONE", unix.ENOTTY, Range, false},
		{"FICLONE", unix.EIO, "", false},
		{"FICLONE", unix.ENOSPC, "", false},
		{"copy_file_range", unix.EINVAL, Copy, false},
		{"copy_file_range", unix.EXDEV, Copy, false},
		{"copy_file_range", unix.EOPNOTSUPP, Copy, false},
		{"copy_file_range", unix.ENOSYS, Copy, false},
		{"copy_file_range", unix.EIO, "", false},
		{"copy_file_range", unix.ENOSPC, "", false},
		{"SEEK_DATA", unix.EINVAL, Range, true},
		{"SEEK_DATA", unix.EIO, "", false},
		{"SEEK_HOLE", unix.EIO, "", false},
		{"ftruncate", unix.EIO, "", false},
		{"pwrite", unix.ENOSPC, "", false},
		{"pread", unix.EIO, "", false},
	} {
		t.Run(fmt.Sprint(c.op, " ", c.err), func(t *testing.T) {
			_, path := openDir(t)
			l := layouts[7]
			src, dst := l.make(t, path), create(t, path)
			errs := map[string]error{c.op: c.err}
			top := Range
			switch {
			case c.op == "FICLONE":
				top = Reflink
			case c.op == "pread" || c.op == "pwrite":
				top = Copy
			}
			res, err := Transfer(context.Background(), dst, src, Ladder{Top: top, kernel: faults(errs)})
			if c.want == "" {
				if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.op) {
					t.Errorf("got %+v, %v", res, err)
				}
				return
			}
			if err != nil || res.Method != c.want && res.Method != Copy {
				t.Fatalf("got %+v, %v", res, err)
			}
			if !c.fewer {
				compare(t, src, dst, res)
			} else if res.Holes != 0 {
				t.Errorf("%d bytes of holes out of nowhere", res.Holes)
			}
		})
	}
}

func TestTransferSourceChanges(t *testing.T) {
	for name, change := range map[string]func(f *os.File) error{
		"grows":     func(f *os.File) error { return f.Truncate(99 << 20) },
		"shrinks":   func(f *os.File) error { return f.Truncate(5) },
		"rewritten": func(f *os.File) error { _, err := f.WriteAt([]byte("x"), 0); return err },
		"chmod":     func(f *os.File) error { return f.Chmod(0o640) },
	} {
		for _, top := range []Method{Range, Copy} {
			t.Run(name+" "+string(top), func(t *testing.T) {
				_, path := openDir(t)
				src, dst := layouts[8].make(t, path), create(t, path)
				changed := false
				_, err := Transfer(context.Background(), dst, src, Ladder{Top: top, Progress: func(done, total int64) {
					if !changed {
						changed = true
						if err := change(src); err != nil {
							t.Error(err)
						}
					}
				}})
				if !errors.Is(err, ErrChanged) {
					t.Errorf("got %v", err)
				}
			})
		}
	}
}

func TestTransferCancelled(t *testing.T) {
	for _, top := range []Method{Reflink, Range, Copy} {
		t.Run(string(top), func(t *testing.T) {
			_, path := openDir(t)
			src, dst := layouts[8].make(t, path), create(t, path)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if top == Reflink {
				cancel()
			}
			_, err := Transfer(ctx, dst, src, Ladder{Top: top, Progress: func(int64, int64) { cancel() }})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestTransferRefuses(t *testing.T) {
	dir, path := openDir(t)
	src, dst := layouts[1].make(t, path), create(t, path)
	if _, err := Transfer(context.Background(), src, src, Ladder{}); err == nil {
		t.Error("onto itself")
	}
	if _, err := Transfer(context.Background(), dst, dir, Ladder{}); err == nil {
		t.Error("a directory as source")
	}
	if _, err := Transfer(context.Background(), dir, src, Ladder{}); err == nil {
		t.Error("a directory as target")
	}
	if _, err := Transfer(context.Background(), dst, src, Ladder{Top: "by mail"}); err == nil {
		t.Error("an unknown way")
	}
	if _, err := dst.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	if _, err := Transfer(context.Background(), dst, src, Ladder{}); err == nil {
		t.Error("a target that is not empty")
	}
}

// TestTransferAcross copies between two filesystems, where no reflink can be.
func TestTransferAcross(t *testing.T) {
	other, err := os.MkdirTemp("/dev/shm", "handoff")
	tier.Have(t, err == nil, "/dev/shm")
	defer os.RemoveAll(other)
	_, path := openDir(t)
	if os.Getenv("HANDOFF_FS") == "ramfs" {
		return // has no holes to compare
	}
	src, dst := layouts[7].make(t, other), create(t, path)
	res, err := Transfer(context.Background(), dst, src, Ladder{})
	if err != nil || res.Method == Reflink && !sameDevice(t, src, dst) {
		t.Fatalf("%+v, %v", res, err)
	}
	compare(t, src, dst, res)
}

func sameDevice(t *testing.T, a, b *os.File) bool {
	t.Helper()
	x, errX := kernel{}.fstat(a)
	y, errY := kernel{}.fstat(b)
	if err := errors.Join(errX, errY); err != nil {
		t.Fatal(err)
	}
	return x.Dev == y.Dev
}

// fullTransfer copies 2 MiB into a directory that has room for one.
func fullTransfer(t *testing.T, dir *os.File) {
	src, err := os.CreateTemp(t.TempDir(), "src")
	if err != nil {
		t.Error(err)
		return
	}
	defer src.Close()
	if _, err := src.Write(bytes.Repeat([]byte("x"), 2<<20)); err != nil {
		t.Error(err)
		return
	}
	for _, top := range []Method{"", Copy} {
		p, err := NewPending(dir, "out", Options{})
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := Transfer(context.Background(), p.File(), src, Ladder{Top: top}); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("top %q: got %v", top, err)
		}
		if err := p.Abort(); err != nil {
			t.Error(err)
		}
	}
}

// TestTransferSee puts together what is shown, and wants the file: of a copy, of a scan, and nothing of a reflink.
func TestTransferSee(t *testing.T) {
	for _, l := range layouts {
		if l.size > 1<<30 {
			continue
		}
		t.Run(l.name, func(t *testing.T) {
			_, path := openDir(t)
			src, dst := l.make(t, path), create(t, path)
			want, err := os.ReadFile(src.Name())
			if err != nil {
				t.Fatal(err)
			}
			for _, top := range []Method{"", Range, Copy, "scan"} {
				got, last := make([]byte, l.size), int64(0)
				see := func(off int64, data []byte) error {
					if off < last {
						t.Errorf("%s: %d after %d", top, off, last)
					}
					last = off + int64(copy(got[off:], data))
					return nil
				}
				var res Result
				if top == "scan" {
					res, err = Scan(context.Background(), src, see, nil)
				} else {
					res, err = Transfer(context.Background(), dst, src, Ladder{Top: top, See: see})
					err = errors.Join(err, dst.Truncate(0))
				}
				if err != nil {
					t.Fatal(err)
				}
				if res.Method == Range || (res.Method == Reflink) == (last > 0) && len(l.blocks) > 0 {
					t.Errorf("%s: by %s, shown %d bytes", top, res.Method, last)
				}
				if res.Method != Reflink && !bytes.Equal(got, want) {
					t.Errorf("%s: what was shown is not the file", top)
				}
				if res.Bytes != l.size {
					t.Errorf("%s: %+v", top, res)
				}
			}
		})
	}
}

// TestTransferSeeFails lets the onlooker fail.
func TestTransferSeeFails(t *testing.T) {
	_, path := openDir(t)
	src, dst := layouts[8].make(t, path), create(t, path)
	see := func(int64, []byte) error { return unix.EDOM }
	if _, err := Transfer(context.Background(), dst, src, Ladder{Top: Copy, See: see}); !errors.Is(err, unix.EDOM) {
		t.Error(err)
	}
	if _, err := Scan(context.Background(), src, see, nil); !errors.Is(err, unix.EDOM) {
		t.Error(err)
	}
}
