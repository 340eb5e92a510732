package archive_test

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/zframe/toc"
)

// ownTree makes a tree of n files of about size bytes in directories of 50, all owned by whoever runs the tests.
func ownTree(t testing.TB, n, size int) *os.File {
	t.Helper()
	dir := emptyDir(t)
	random := rand.NewChaCha8([32]byte{1})
	numbers := rand.New(random)
	for i := range n {
		sub := filepath.Join(dir.Name(), fmt.Sprintf("d%04d", i/50))
		if i%50 == 0 {
			check(t, os.Mkdir(sub, 0o755))
		}
		b := make([]byte, numbers.IntN(2*size))
		_, _ = random.Read(b)
		check(t, os.WriteFile(filepath.Join(sub, fmt.Sprintf("f%04d", i)), b, 0o644))
	}
	settle(t, dir)
	return dir
}

// settle sets all times, so that archives differ in what a test changes only.
func settle(t testing.TB, dir *os.File) {
	t.Helper()
	then := time.Unix(1700000000, 0)
	check(t, filepath.Walk(dir.Name(), func(path string, _ os.FileInfo, err error) error {
		check(t, err)
		return os.Chtimes(path, then, then)
	}))
}

// ownOptions pack such a tree.
func ownOptions() archive.CreateOptions {
	o := options()
	o.Policy = archive.Policy{}.WithDefaults(false)
	return o
}

func identities(t testing.TB, archived []byte) map[[32]byte]bool {
	t.Helper()
	_, c := contents(t, archived)
	set := map[[32]byte]bool{}
	for _, f := range c.Frames {
		set[f.Identity] = true
	}
	return set
}

// TestInsertedFile inserts, changes, grows and removes single files: only frames near by get another identity (FORMAT §2).
func TestInsertedFile(t *testing.T) {
	const files, size = 1500, 16 << 10
	dir := ownTree(t, files, size)
	packed, _ := pack(t, dir, ownOptions())
	before := identities(t, packed)
	if len(before) < 8 {
		t.Fatalf("only %d frames", len(before))
	}
	for name, change := range map[string]func(sub string) error{
		"insert small": func(sub string) error { return os.WriteFile(filepath.Join(sub, "f-new"), []byte("new"), 0o644) },
		"insert large": func(sub string) error { return os.WriteFile(filepath.Join(sub, "f-new"), make([]byte, 9<<20), 0o644) },
		"change":       func(sub string) error { return os.WriteFile(firstIn(sub), []byte("other"), 0o644) },
		"remove":       func(sub string) error { return os.Remove(firstIn(sub)) },
		"mode":         func(sub string) error { return os.Chmod(firstIn(sub), 0o600) },
	} {
		worst, sum, rounds := 0, 0, 0
		for at := 3; at < files/50; at += 9 {
			copied := ownTree(t, files, size)
			check(t, change(filepath.Join(copied.Name(), fmt.Sprintf("d%04d", at))))
			settle(t, copied)
			packed, _ := pack(t, copied, ownOptions())
			changed := 0
			for id := range identities(t, packed) {
				if !before[id] {
					changed++
				}
			}
			large := 0
			if name == "insert large" {
				large = 2 // its own frames
			}
			worst, sum, rounds = max(worst, changed-large), sum+changed-large, rounds+1
		}
		t.Logf("%s: of %d frames at most %d others are new, on average %.1f", name, len(before), worst, float64(sum)/float64(rounds))
		if worst > 5 || sum > 3*rounds {
			t.Errorf("%s: of %d frames up to %d are new, %d in %d rounds", name, len(before), worst, sum, rounds)
		}
	}
}

func firstIn(dir string) string {
	names, _ := os.ReadDir(dir)
	return filepath.Join(dir, names[0].Name())
}

// TestFrameSizes holds FORMAT §2: what a frame may hold, and that the table of contents and the seek table describe the stream.
func TestFrameSizes(t *testing.T) {
	dir := ownTree(t, 300, 30<<10)
	for i, size := range []int{4<<20 - 1, 4 << 20, 4<<20 + 1, 9 << 20, 12 << 20} {
		check(t, os.WriteFile(filepath.Join(dir.Name(), "d0002", fmt.Sprintf("large%d", i)), make([]byte, size), 0o644))
	}
	settle(t, dir)
	packed, sum := pack(t, dir, ownOptions())
	f, c := contents(t, packed)
	if len(c.Frames) != sum.Frames || c.Header.Raw != sum.Raw || c.Header.Entries != sum.Entries {
		t.Errorf("summary %+v, header %+v", sum, c.Header)
	}
	starts := map[int]int{}
	for _, e := range c.Entries {
		starts[e.Frame]++
	}
	for i, frame := range c.Frames {
		if frame.Raw > 4<<20+64<<10 || frame.Raw < 1<<20 && i < len(c.Frames)-1 && !beforeLarge(c, i) {
			t.Errorf("frame %d has %d raw bytes", i, frame.Raw)
		}
		stored, err := f.ReadStored(i, nil)
		check(t, err)
		if sha256.Sum256(stored) != frame.Sum || int64(len(stored)) != frame.Stored {
			t.Errorf("frame %d is not what its record says", i)
		}
	}
}

// beforeLarge tells whether frame i ends where a large entry begins, or lies within one.
func beforeLarge(c toc.Contents, i int) bool {
	for _, e := range c.Entries {
		if e.Size > 4<<20 && (e.Frame == i+1 || e.Frame <= i && i <= e.Frame+int(e.Size>>22)) {
			return true
		}
	}
	return false
}
