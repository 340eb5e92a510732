//go:build linux

package statindex

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "write the golden file anew")

// at returns the stat of a made-up inode of device 8:1.
func at(ino uint64, size uint64, sec int64, nsec uint32) *unix.Statx_t {
	return &unix.Statx_t{
		Dev_major: 8, Dev_minor: 1, Ino: ino, Size: size, Mode: unix.S_IFREG | 0o644,
		Mtime: unix.StatxTimestamp{Sec: sec - 5, Nsec: 7}, Ctime: unix.StatxTimestamp{Sec: sec, Nsec: nsec},
	}
}

func sampleWriter() *Writer {
	w := &Writer{head: header{place: place{dev: 8<<32 | 1, ino: 2, view: [8]byte{1, 2, 3, 4, 5, 6, 7, 8}}, begun: 1_700_000_000_500_000_000, origin: "sstate:rootfs"}}
	dir := at(2, 4096, 1_600_000_000, 5)
	dir.Mode = unix.S_IFDIR | 0o755
	w.Add(at(70, 3, 1_600_000_000, 999_999_999), Record{Digest | NoXattrs, sha256.Sum256([]byte("abc"))})
	w.Add(at(12, 1<<40, 1_700_000_000, 1), Record{NoHoles, [32]byte{}})
	w.Add(dir, Record{Flags: NoXattrs})
	w.Add(at(70, 3, 1_600_000_001, 0), Record{Digest | NoHoles, sha256.Sum256([]byte("abd"))})
	w.AddFrame(sha256.Sum256([]byte("frame")), 0xfeedbeef)
	return w
}

func bytesOf(tb testing.TB, w *Writer) []byte {
	tb.Helper()
	var out bytes.Buffer
	n, err := w.WriteTo(&out)
	if err != nil || n != int64(out.Len()) {
		tb.Fatalf("WriteTo: %d of %d bytes, %v", n, out.Len(), err)
	}
	return out.Bytes()
}

// TestGolden holds the bytes of docs/INDEX.md §2.
func TestGolden(t *testing.T) {
	const name = "../../testdata/vectors/small.index"
	got := bytesOf(t, sampleWriter())
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	x, err := decode(want)
	if err != nil {
		t.Fatal(err)
	}
	if x.Len() != 3 || x.head.origin != "sstate:rootfs" || x.head.begun != 1_700_000_000_500_000_000 {
		t.Errorf("%d records, %+v", x.Len(), x.head)
	}
	if crc, ok := x.Frame(sha256.Sum256([]byte("frame"))); !ok || crc != 0xfeedbeef {
		t.Errorf("frame: %#x, %v", crc, ok)
	}
	if _, ok := x.Frame(sha256.Sum256([]byte("other"))); ok {
		t.Error("a frame that is not recorded is known")
	}
	r, ok := x.Lookup(at(70, 3, 1_600_000_001, 0))
	if !ok || r != (Record{Digest | NoHoles, sha256.Sum256([]byte("abd"))}) {
		t.Errorf("of two records of one inode: %v, %v", r, ok)
	}
	if _, ok := x.Lookup(at(70, 3, 1_600_000_000, 999_999_999)); ok {
		t.Error("the earlier record of an inode is still there")
	}
	if r, ok := x.Lookup(at(12, 1<<40, 1_700_000_000, 1)); !ok || !r.Has(NoHoles) || r.Has(Digest) {
		t.Errorf("%v, %v", r, ok)
	}
}

// TestEveryFieldCounts changes each field of a stat that is on record.
func TestEveryFieldCounts(t *testing.T) {
	x, err := decode(bytesOf(t, sampleWriter()))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*unix.Statx_t){
		"inode": func(s *unix.Statx_t) { s.Ino = 71 }, "device major": func(s *unix.Statx_t) { s.Dev_major++ }, "device minor": func(s *unix.Statx_t) { s.Dev_minor++ },
		"size": func(s *unix.Statx_t) { s.Size++ }, "mode": func(s *unix.Statx_t) { s.Mode ^= 1 }, "type": func(s *unix.Statx_t) { s.Mode = unix.S_IFDIR | 0o644 },
		"mtime": func(s *unix.Statx_t) { s.Mtime.Sec-- }, "mtime ns": func(s *unix.Statx_t) { s.Mtime.Nsec++ },
		"ctime": func(s *unix.Statx_t) { s.Ctime.Sec++ }, "ctime ns": func(s *unix.Statx_t) { s.Ctime.Nsec++ },
	} {
		s := at(12, 1<<40, 1_700_000_000, 1)
		if _, ok := x.Lookup(s); !ok {
			t.Fatal("the inode is not found at all")
		}
		if change(s); s.Ino == 71 {
			s.Ino = 70
		}
		if _, ok := x.Lookup(s); ok {
			t.Errorf("%s: another inode is taken for the one on record", name)
		}
	}
	if _, ok := (*Index)(nil).Lookup(at(12, 0, 0, 0)); ok {
		t.Error("no index knows an inode")
	}
}

// TestDamage flips every bit and cuts at every byte.
func TestDamage(t *testing.T) {
	good := bytesOf(t, sampleWriter())
	for i := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			if _, err := decode(bad); err == nil {
				t.Fatalf("bit %d of byte %d flipped: accepted", bit, i)
			}
		}
		if _, err := decode(good[:i]); err == nil {
			t.Fatalf("the first %d bytes: accepted", i)
		}
	}
	if _, err := decode(append(bytes.Clone(good), 0)); err == nil {
		t.Error("a byte behind the end: accepted")
	}
}

// reseal gives b a sum that fits.
func reseal(b []byte) []byte {
	body := b[:len(b)-sha256.Size]
	sum := sha256.Sum256(body)
	return append(bytes.Clone(body), sum[:]...)
}

// TestNumbers has indexes whose sum is right and whose numbers are not.
func TestNumbers(t *testing.T) {
	good := bytesOf(t, sampleWriter())
	head := headLen + roundUp(len("sstate:rootfs"))
	for name, change := range map[string]func(b []byte){
		"version": func(b []byte) { b[8] = 2 }, "header length": func(b []byte) { b[12] += 8 }, "count": func(b []byte) { b[48]++ }, "huge count": func(b []byte) { b[55] = 0xff },
		"origin": func(b []byte) { b[56] += 8 }, "frames": func(b []byte) { b[60] = 2 }, "huge frames": func(b []byte) { b[63] = 0xff }, "order": func(b []byte) { copy(b[head:], b[head+8:head+16]) },
		"flags": func(b []byte) { b[head+3*8+36] |= 8 },
	} {
		bad := bytes.Clone(good)
		change(bad)
		if _, err := decode(reseal(bad)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := decode(reseal(good)); err != nil {
		t.Error(err)
	}
}

// TestRacilyClean holds which inodes are too young to be recorded.
func TestRacilyClean(t *testing.T) {
	for _, c := range []struct {
		name string
		sec  int64
		nsec uint32
		kept bool
	}{
		{"old", 1_600_000_000, 1, true}, {"21 ms before", 1_700_000_000, 479_000_000, true}, {"20 ms before", 1_700_000_000, 480_000_000, false},
		{"after", 1_700_000_001, 1, false}, {"whole second, 1.5 s before", 1_699_999_999, 0, false}, {"whole second, 2.5 s before", 1_699_999_998, 0, true},
		{"before the epoch", -1, 1, false}, {"beyond all clocks", 1 << 62, 1, false},
	} {
		w := &Writer{head: sampleWriter().head}
		w.Add(at(9, 1, c.sec, c.nsec), Record{Flags: NoXattrs})
		if got := len(w.order) == 1; got != c.kept || (w.Young() == 1) == c.kept {
			t.Errorf("%s: recorded %v", c.name, got)
		}
	}
}

// TestTree has a real tree, and an index that is of it or not.
func TestTree(t *testing.T) {
	base := "/dev/shm" // a filesystem that may have an index, wherever the tests run
	dir, err := os.MkdirTemp(base, "nsferry-statindex-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, d := range []string{"a", "b"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	name := filepath.Join(dir, "a", "file")
	if err := os.WriteFile(name, []byte("abc"), 0o644); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond) // until the file is old
	root := open(t, filepath.Join(dir, "a"))
	w, err := NewWriter(root, Options{Origin: "key"})
	if err != nil {
		t.Fatal(err)
	}
	young := filepath.Join(dir, "a", "young")
	if err := os.WriteFile(young, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{name, young} {
		w.Add(statx(t, n), Record{Digest, sha256.Sum256([]byte("abc"))})
	}
	index := filepath.Join(dir, "index")
	if err := os.WriteFile(index, bytesOf(t, w), 0o600); err != nil {
		t.Fatal(err)
	}
	x, err := Read(open(t, index), root)
	if err != nil || x.Len() != 1 || w.Young() != 1 {
		t.Fatalf("%d records, %d young, %v", x.Len(), w.Young(), err)
	}
	if origin, err := Origin(open(t, index)); origin != "key" || err != nil {
		t.Errorf("origin %q, %v", origin, err)
	}
	if _, ok := x.Lookup(statx(t, name)); !ok {
		t.Error("an unchanged file is not found")
	}
	if err := os.Chmod(name, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok := x.Lookup(statx(t, name)); ok {
		t.Error("a changed file is found")
	}
	for what, of := range map[string][2]*os.File{
		"there is no index": {nil, root}, "no index": {root, root}, "cut short": {open(t, young), root}, "of another tree": {open(t, index), open(t, filepath.Join(dir, "b"))},
	} {
		if x, err := Read(of[0], of[1]); x != nil || err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestForeignClock has a filesystem whose stamps may be another machine's, or nobody's.
func TestForeignClock(t *testing.T) {
	if _, err := NewWriter(open(t, "/proc/self"), Options{}); err == nil || !strings.Contains(err.Error(), "clock") {
		t.Errorf("an index of /proc: %v", err)
	}
}

func open(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func statx(t *testing.T, name string) *unix.Statx_t {
	t.Helper()
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, name, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &st); err != nil {
		t.Fatal(err)
	}
	return &st
}

// FuzzDecode reads whatever comes; what is accepted must be worth no panic.
func FuzzDecode(f *testing.F) {
	f.Add(bytesOf(f, sampleWriter()))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < sha256.Size {
			return
		}
		if x, err := decode(reseal(b)); err == nil {
			x.Lookup(at(70, 3, 1_600_000_001, 0))
		}
	})
}

func BenchmarkIndex(b *testing.B) {
	const n = 31_000
	w := &Writer{head: sampleWriter().head}
	for i := range uint64(n) {
		w.Add(at(i*7919%n, 1, 1_600_000_000, 1), Record{Flags: Digest})
	}
	file := bytesOf(b, w)
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			bytesOf(b, w)
		}
	})
	b.Run("load", func(b *testing.B) {
		for b.Loop() {
			if _, err := decode(file); err != nil {
				b.Fatal(err)
			}
		}
	})
	x, _ := decode(file)
	st := at(0, 1, 1_600_000_000, 1)
	b.Run("lookup", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			st.Ino = uint64(i) * 31 % n
			if _, ok := x.Lookup(st); !ok {
				b.Fatal(st.Ino)
			}
		}
	})
}
