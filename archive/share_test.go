package archive_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/tier"
)

// mounted is a new filesystem for the test.
func mounted(t *testing.T, kind, options string) string {
	t.Helper()
	tier.Root(t, "to mount")
	dir := t.TempDir()
	source := kind
	if kind != "tmpfs" {
		tier.Program(t, "mkfs."+kind)
		source = filepath.Join(t.TempDir(), "image")
		check(t, os.WriteFile(source, nil, 0o600))
		check(t, os.Truncate(source, 512<<20))
		tool(t, nil, "mkfs."+kind, source)
	}
	out, err := exec.Command("mount", "-t", kind, "-o", options, source, dir).CombinedOutput()
	if err != nil {
		t.Fatalf("mount %s: %v: %s", kind, err, out)
	}
	t.Cleanup(func() { check(t, unix.Unmount(dir, 0)) })
	return dir
}

// created is a new file of that name, which is closed before the filesystem goes.
func created(t *testing.T, dir, name string) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, name))
	check(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// TestSharedFrames copies frames by sharing blocks, as far as they lie at one distance from a block's beginning in both files.
func TestSharedFrames(t *testing.T) {
	for _, kind := range []string{"xfs", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			disk := mounted(t, kind, "loop")
			s := grown(t)
			s.write("random", random(t, 3<<20)) // what compresses well fits into one block
			aged()
			s.scratch = nil
			s.save(ownOptions())
			save := func(name string, o archive.CreateOptions) (archive.Reuse, error) {
				out := created(t, disk, name)
				o.Base, o.Index = s.base, nil
				sum, err := archive.Create(t.Context(), s.root, out, o)
				if err == nil && !bytes.Equal(contentOf(t, out), s.scratch) {
					t.Errorf("%s: not what a save from scratch gives", name)
				}
				if sum.Reuse == nil {
					sum.Reuse = new(archive.Reuse)
				}
				return *sum.Reuse, err
			}
			if r, err := save("from another filesystem", ownOptions()); err != nil || r.Copied == 0 || r.Shared != 0 {
				t.Errorf("%+v, %v", r, err)
			}
			s.base = created(t, disk, "base")
			_, err := s.base.Write(s.scratch)
			check(t, err)
			if r, err := save("unchanged", ownOptions()); err != nil || r.Shared < 3<<20 || r.Built != 0 {
				t.Errorf("nothing changed: %+v, %v", r, err)
			}

			touching := func(f func()) archive.CreateOptions {
				o := ownOptions()
				once := false
				o.Progress = func(int64) {
					if !once {
						once = true
						f()
					}
				}
				return o
			}
			now := time.Now()
			if _, err := save("touched", touching(func() { check(t, os.Chtimes(s.base.Name(), now, now)) })); err != nil {
				t.Errorf("the base was only touched: %v", err)
			}
			_, err = save("overwritten", touching(func() {
				_, err := s.base.WriteAt([]byte("now it is something else"), 20)
				check(t, err)
			}))
			wantError(t, err, "changed while it was copied")

			// Behind the first frame, and so at another distance from a block's beginning.
			check(t, os.WriteFile(s.base.Name(), s.scratch, 0o644))
			s.write("f00", filler(77, 100_000))
			s.scratch, _ = pack(t, s.root, ownOptions())
			if r, err := save("shifted", ownOptions()); err != nil || r.Copied == 0 || r.Built == 0 {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}

// random returns n bytes that do not compress.
func random(t *testing.T, n int) []byte {
	t.Helper()
	f, err := os.Open("/dev/urandom")
	check(t, err)
	defer f.Close()
	b := make([]byte, n)
	_, err = f.Read(b)
	check(t, err)
	return b
}

// TestIncrementalFullDisk has no room for what is copied.
func TestIncrementalFullDisk(t *testing.T) {
	for kind, options := range map[string]string{"tmpfs": "size=1M", "xfs": "loop"} {
		t.Run(kind, func(t *testing.T) {
			disk := mounted(t, kind, options)
			s := grown(t)
			s.write("random", random(t, 3<<20))
			s.scratch = nil
			s.save(ownOptions())
			target := created(t, disk, "out")
			if kind != "tmpfs" {
				fill := created(t, disk, "fill")
				for n, err := 1<<20, error(nil); n > 4096; n /= 2 {
					for err = nil; err == nil; _, err = fill.Write(make([]byte, n)) {
					}
				}
			}
			o := ownOptions()
			o.Base = s.base
			if _, err := archive.Create(t.Context(), s.root, target, o); !errors.Is(err, unix.ENOSPC) {
				t.Errorf("a full disk: %v", err)
			}
		})
	}
}

// TestIncrementalCancelled ends a save at every write of frames that are copied, and leaves no descriptor open.
func TestIncrementalCancelled(t *testing.T) {
	s := grown(t)
	s.save(ownOptions())
	before := descriptors(t)
	for n := int64(0); ; n++ {
		ctx, cancel := context.WithCancel(t.Context())
		o := ownOptions()
		o.Base = s.base
		left := n
		o.Progress = func(int64) {
			if left--; left < 0 {
				cancel()
			}
		}
		var out bytes.Buffer
		_, err := archive.Create(ctx, s.root, &out, o)
		cancel()
		if err == nil && !bytes.Equal(out.Bytes(), s.scratch) {
			t.Errorf("cancelled at frame %d: no error, and not all is there", n)
		}
		if left >= 0 {
			break
		}
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	return len(names)
}
