package archive_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/statindex"
)

// saver saves one tree again and again, each time on top of what the time before left behind.
type saver struct {
	testing.TB
	root        *os.File
	base, index *os.File // nil at first
	scratch     []byte   // what a save from scratch gives; nil: not known
}

// onTmpfs is a new directory on a filesystem that may have an index, wherever the tests run.
func onTmpfs(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "nsferry-archive-*")
	check(t, err)
	t.Cleanup(func() { check(t, os.RemoveAll(dir)) })
	return dir
}

func newSaver(t testing.TB) *saver {
	t.Helper()
	dir := filepath.Join(onTmpfs(t), "tree")
	check(t, os.Mkdir(dir, 0o755))
	return &saver{TB: t, root: opened(t, dir)}
}

func (s *saver) path(name string) string { return filepath.Join(s.root.Name(), name) }

func (s *saver) write(name string, content []byte) {
	s.Helper()
	check(s, os.WriteFile(s.path(name), content, 0o644))
	s.scratch = nil
}

// read returns the index, or the reason why it is not to be believed.
func (s *saver) read() (*statindex.Index, error) { return statindex.Read(s.index, s.root) }

// save packs the tree incrementally and from scratch, which must give the same bytes, and returns what the first of them saved.
func (s *saver) save(o archive.CreateOptions) archive.Summary {
	s.Helper()
	var err error
	if s.scratch == nil {
		s.scratch, _ = pack(s, s.root, o)
	}
	o.Base = s.base
	o.Index, _ = s.read()
	o.Record, err = statindex.NewWriter(s.root, statindex.Options{})
	check(s, err)
	out := file(s, nil)
	sum, err := archive.Create(s.Context(), s.root, out, o)
	check(s, err)
	got, err := os.ReadFile(out.Name())
	check(s, err)
	if !bytes.Equal(s.scratch, got) {
		s.Fatalf("a save on top of a base has %d bytes, one from scratch %d, and they differ; %+v", len(got), len(s.scratch), sum.Reuse)
	}
	s.base, s.index = out, file(s, nil)
	_, err = o.Record.WriteTo(s.index)
	check(s, err)
	return sum
}

// aged waits until nothing of the tree is too young for an index.
func aged() { time.Sleep(30 * time.Millisecond) }

// filler returns n bytes that depend on seed and compress well, for speed.
func filler(seed uint64, n int) []byte {
	b := make([]byte, 64)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return bytes.Repeat(b, n/64+1)[:n]
}

// mutator changes a tree at random, in every way that an archive can tell.
type mutator struct {
	*rand.Rand
	*saver
	count int
}

// names returns the paths of the tree's inodes of the type, but the root.
func (m *mutator) names(typ fs.FileMode) (names []string) {
	check(m, filepath.WalkDir(m.root.Name(), func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type() == typ && p != m.root.Name() {
			names = append(names, p)
		}
		return err
	}))
	return names
}

func (m *mutator) pick(typ fs.FileMode) string {
	names := m.names(typ)
	if len(names) == 0 {
		m.count++
		name := m.path(fmt.Sprintf("n%d", m.count))
		if typ == fs.ModeDir {
			check(m, os.Mkdir(name, 0o755))
		} else {
			check(m, os.WriteFile(name, nil, 0o644))
		}
		return name
	}
	return names[m.IntN(len(names))]
}

// fresh is a name that is not taken.
func (m *mutator) fresh() string {
	m.count++
	return filepath.Join(m.pick(fs.ModeDir), fmt.Sprintf("%c%d", 'a'+m.IntN(26), m.count))
}

func (m *mutator) bytes() []byte { return filler(m.Uint64(), m.IntN(30_000)) }

// step makes one change.
func (m *mutator) step() {
	steps := []func(){
		func() { check(m, os.WriteFile(m.fresh(), m.bytes(), 0o640)) },
		func() { check(m, os.WriteFile(m.pick(0), m.bytes(), 0)) },
		func() { check(m, os.Remove(m.pick(0))) },
		func() { check(m, os.Mkdir(m.fresh(), 0o711)) },
		func() { check(m, os.Chmod(m.pick(0), fs.FileMode(m.IntN(0o1000)|0o600))) },
		func() { check(m, os.Chtimes(m.pick(0), time.Time{}, time.Unix(m.Int64N(1<<31), m.Int64N(1e9)))) },
		func() { check(m, os.Rename(m.pick(0), m.fresh())) },
		func() { check(m, os.Link(m.pick(0), m.fresh())) },
		func() { check(m, os.Symlink(fmt.Sprint(m.Uint64()), m.fresh())) },
		m.secretly, m.hole, m.retype, m.attribute, m.moveDir,
	}
	steps[m.IntN(len(steps))]()
}

// secretly changes one byte of a file, so that its size and mtime stay.
func (m *mutator) secretly() {
	name := m.pick(0)
	st, err := os.Stat(name)
	check(m, err)
	if st.Size() == 0 {
		return
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	check(m, err)
	defer f.Close()
	var b [1]byte
	at := m.Int64N(st.Size())
	_, err = f.ReadAt(b[:], at)
	check(m, err)
	b[0]++
	_, err = f.WriteAt(b[:], at)
	check(m, err)
	check(m, os.Chtimes(name, st.ModTime(), st.ModTime()))
}

func (m *mutator) hole() {
	f, err := os.OpenFile(m.fresh(), os.O_RDWR|os.O_CREATE, 0o600)
	check(m, err)
	defer f.Close()
	_, err = f.WriteAt(m.bytes(), m.Int64N(400_000))
	check(m, err)
	check(m, f.Truncate(500_000+m.Int64N(5<<20)))
}

// retype puts a directory where a file was.
func (m *mutator) retype() {
	name := m.pick(0)
	check(m, os.Remove(name))
	check(m, os.Mkdir(name, 0o755))
	check(m, os.WriteFile(filepath.Join(name, "x"), m.bytes(), 0o600))
}

func (m *mutator) attribute() {
	err := unix.Setxattr(m.pick(0), fmt.Sprintf("user.%d", m.IntN(3)), m.bytes()[:0], 0)
	if !errors.Is(err, unix.EOPNOTSUPP) { // tmpfs before Linux 6.6
		check(m, err)
	}
}

func (m *mutator) moveDir() {
	from, to := m.pick(fs.ModeDir), m.fresh()
	if !strings.HasPrefix(to, from+"/") {
		check(m, os.Rename(from, to))
	}
}

// TestIncrementalIsFromScratch changes a tree fifty times. After each change a save on top of the one before must equal one that
// has nothing to stand on, whatever the number of workers, and whether or not the changes are too young for the index.
func TestIncrementalIsFromScratch(t *testing.T) {
	m := &mutator{Rand: rand.New(rand.NewPCG(4, 2)), saver: newSaver(t)}
	for range 60 {
		m.step()
	}
	for i := range 200 {
		check(t, os.WriteFile(m.fresh(), filler(uint64(i), m.IntN(40_000)), 0o644))
	}
	m.write("large", filler(1, 9<<20+77))
	aged()
	o := ownOptions()
	o.Level = 1
	m.save(o)
	var total archive.Reuse
	for step := range 50 {
		for range m.IntN(4) {
			m.step()
		}
		m.scratch = nil
		if m.IntN(2) == 0 {
			aged()
		}
		o.Workers = []int{1, 2, 7}[step%3]
		r := m.save(o).Reuse
		total.Copied, total.Built, total.Unread = total.Copied+r.Copied, total.Built+r.Built, total.Unread+r.Unread
	}
	t.Logf("%+v", total)
	if total.Copied < total.Built || total.Unread == 0 {
		t.Errorf("hardly anything was reused: %+v", total)
	}
}
