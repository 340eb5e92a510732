package tree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// script drives a Builder as an archive does; the first error stops it.
type script struct {
	b   *Builder
	err error
}

func meta(mode uint32) Meta {
	return Meta{Mode: mode, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), ModTime: unix.Timespec{Sec: 1000000000, Nsec: 5}}
}

func (s *script) do(err error) {
	if s.err == nil {
		s.err = err
	}
}

func (s *script) dir(path string, mode uint32) {
	s.do(s.b.Dir(context.Background(), path, meta(mode)))
}

func (s *script) file(path, content string) {
	s.do(s.b.File(context.Background(), path, meta(0o644), int64(len(content)), nil, strings.NewReader(content)))
}

func (s *script) sym(path, target string) {
	s.do(s.b.Symlink(context.Background(), path, target, meta(0o777)))
}

func (s *script) fifo(path string) {
	s.do(s.b.Node(context.Background(), path, unix.S_IFIFO, 0, 0, meta(0o600)))
}

func (s *script) link(path, target string) { s.do(s.b.Link(context.Background(), path, target)) }

// large is a file that is written in several pieces, by several workers.
func large(c string) string { return strings.Repeat(c, 3*batchSize+7) }

// scenarios are archives and the trees that come of them; "" for one that is refused. All inodes that the archive names
// have one time, directories included: whatever is made in them later must not show.
var scenarios = []struct {
	name string
	run  func(*script)
	want string // without times of "." and of implied directories
	err  error
}{
	{"in order", func(s *script) {
		s.dir(".", 0o755)
		s.dir("d", 0o2755)
		s.file("d/f", "x")
		s.sym("d/l", "../nowhere")
		s.fifo("d/p")
		s.link("d/h", "d/f")
	}, "dir . @ 755\ndir d @ 2755 T\nfile d/f @ 644 T \"x\"\nhardlink d/h d/f\nsymlink d/l @ ../nowhere T\nfifo d/p @ 600 T", nil},
	{"parents come later", func(s *script) {
		s.file("a/b/f", "x")
		s.dir("a/b", 0o711)
		s.dir("a", 0o700)
	}, "dir . @ 755\ndir a @ 700 T\ndir a/b @ 711 T\nfile a/b/f @ 644 T \"x\"", nil},
	{"parents are implied", func(s *script) { s.file("a/b/f", "x") },
		"dir . @ 755\ndir a @ 755\ndir a/b @ 755\nfile a/b/f @ 644 T \"x\"", nil},
	{"directory entered again keeps its time", func(s *script) {
		s.dir("a", 0o555)
		s.dir("b", 0o755)
		s.file("a/f", "x")
		s.file("b/f", "y")
		s.file("a/g", "z")
		s.sym("b/l", "q")
	}, "dir . @ 755\ndir a @ 555 T\nfile a/f @ 644 T \"x\"\nfile a/g @ 644 T \"z\"\ndir b @ 755 T\nfile b/f @ 644 T \"y\"\nsymlink b/l @ q T", nil},
	{"directory twice: the last counts", func(s *script) {
		s.dir("a", 0o700)
		s.file("a/f", "x")
		s.dir("a", 0o750)
	}, "dir . @ 755\ndir a @ 750 T\nfile a/f @ 644 T \"x\"", nil},
	{"file over file", func(s *script) { s.file("f", "old"); s.file("f", "new") }, "dir . @ 755\nfile f @ 644 T \"new\"", nil},
	{"large file over large file", func(s *script) { s.file("f", large("a")); s.file("f", large("b")); s.file("f", "c") },
		"dir . @ 755\nfile f @ 644 T \"c\"", nil},
	{"file over one of its two names", func(s *script) { s.file("f", "old"); s.link("g", "f"); s.file("f", "new") },
		"dir . @ 755\nfile f @ 644 T \"new\"\nfile g @ 644 T \"old\"", nil},
	{"file over fifo", func(s *script) { s.fifo("p"); s.file("p", "x") }, "dir . @ 755\nfile p @ 644 T \"x\"", nil},
	{"large file over fifo", func(s *script) { s.fifo("p"); s.file("p", large("x")); s.file("p", "y") }, "dir . @ 755\nfile p @ 644 T \"y\"", nil},
	{"file over symlink writes not through it", func(s *script) { s.file("f", "kept"); s.sym("l", "f"); s.file("l", "x") },
		"dir . @ 755\nfile f @ 644 T \"kept\"\nfile l @ 644 T \"x\"", nil},
	{"directory over symlink to a directory", func(s *script) { s.dir("a", 0o755); s.sym("l", "a"); s.dir("l", 0o700); s.file("l/f", "x") },
		"dir . @ 755\ndir a @ 755 T\ndir l @ 700 T\nfile l/f @ 644 T \"x\"", nil},
	{"directory over file", func(s *script) { s.file("d", "x"); s.dir("d", 0o700); s.file("d/f", "y") },
		"dir . @ 755\ndir d @ 700 T\nfile d/f @ 644 T \"y\"", nil},
	{"file over empty directory", func(s *script) { s.dir("d", 0o755); s.file("d", "x") }, "dir . @ 755\nfile d @ 644 T \"x\"", nil},
	{"symlink over empty directory", func(s *script) { s.dir("d", 0o755); s.sym("d", "x") }, "dir . @ 755\nsymlink d @ x T", nil},
	{"file over directory that is not empty", func(s *script) { s.dir("d", 0o755); s.fifo("d/p"); s.file("d", "x") }, "", unix.ENOTEMPTY},
	{"symlink over directory that is not empty", func(s *script) { s.dir("d", 0o755); s.fifo("d/p"); s.sym("d", "/") }, "", unix.ENOTEMPTY},
	{"through relative symlink", func(s *script) { s.dir("a", 0o755); s.sym("l", "a"); s.file("l/f", "x"); s.file("a/g", "y") },
		"dir . @ 755\ndir a @ 755 T\nfile a/f @ 644 T \"x\"\nfile a/g @ 644 T \"y\"\nsymlink l @ a T", nil},
	{"through absolute symlink, implied below it", func(s *script) { s.dir("a", 0o755); s.sym("l", "/a"); s.file("l/b/f", "x") },
		"dir . @ 755\ndir a @ 755 T\ndir a/b @ 755\nfile a/b/f @ 644 T \"x\"\nsymlink l @ /a T", nil},
	{"through symlink with too many ..", func(s *script) { s.dir("a", 0o755); s.sym("a/l", "../../../../a"); s.file("a/l/f", "x") },
		"dir . @ 755\ndir a @ 755 T\nfile a/f @ 644 T \"x\"\nsymlink a/l @ ../../../../a T", nil},
	{"one directory by two ways", func(s *script) {
		s.dir("a", 0o755)
		s.sym("l", "a")
		s.file("a/f", "1")
		s.file("l/f", "2")
		s.file("a/f", "3")
	}, "dir . @ 755\ndir a @ 755 T\nfile a/f @ 644 T \"3\"\nsymlink l @ a T", nil},
	{"symlink to its own directory", func(s *script) { s.dir("a", 0o755); s.sym("a/l", "."); s.file("a/l/l/l/f", "x") },
		"dir . @ 755\ndir a @ 755 T\nfile a/f @ 644 T \"x\"\nsymlink a/l @ . T", nil},
	{"through dangling symlink", func(s *script) { s.sym("l", "nowhere"); s.file("l/f", "x") }, "", unix.ENOENT},
	{"through symlink to itself", func(s *script) { s.sym("l", "l"); s.file("l/f", "x") }, "", unix.ELOOP},
	{"through a file", func(s *script) { s.file("f", "x"); s.file("f/g", "y") }, "", unix.ENOTDIR},
	{"through a fifo", func(s *script) { s.fifo("p"); s.file("p/g", "y") }, "", unix.ENOTDIR},
	{"links of every kind", func(s *script) {
		s.file("f", "x")
		s.sym("l", "f")
		s.fifo("p")
		s.link("f2", "/f")
		s.link("l2", "l")
		s.link("p2", "./p")
	}, "dir . @ 755\nfile f @ 644 T \"x\"\nhardlink f2 f\nsymlink l @ f T\nhardlink l2 l\nfifo p @ 600 T\nhardlink p2 p", nil},
	{"link to a file under way", func(s *script) { s.file("f", large("a")); s.link("g", "f"); s.file("f", "b"); s.file("g", "c") },
		"dir . @ 755\nfile f @ 644 T \"b\"\nfile g @ 644 T \"c\"", nil},
	{"link over something", func(s *script) { s.file("f", "x"); s.file("g", "y"); s.fifo("p"); s.link("g", "f"); s.link("p", "f") },
		"dir . @ 755\nfile f @ 644 T \"x\"\nhardlink g f\nhardlink p f", nil},
	{"link again", func(s *script) { s.file("f", "x"); s.link("g", "f"); s.link("g", "f"); s.link("f", "g") },
		"dir . @ 755\nfile f @ 644 T \"x\"\nhardlink g f", nil},
	{"link through symlinked directory", func(s *script) { s.dir("a", 0o755); s.sym("l", "/a"); s.file("a/f", "x"); s.link("g", "l/f") },
		"dir . @ 755\ndir a @ 755 T\nfile a/f @ 644 T \"x\"\nhardlink g a/f\nsymlink l @ /a T", nil},
	{"link to itself", func(s *script) { s.file("f", "x"); s.link("f", "f") }, "", ErrLinkToSelf},
	{"link to itself in other words", func(s *script) { s.dir("a", 0o755); s.sym("l", "a"); s.file("a/f", "x"); s.link("a/f", "/l/./f") }, "", ErrLinkToSelf},
	{"link to nothing", func(s *script) { s.link("g", "nowhere") }, "", unix.ENOENT},
	{"link to a directory", func(s *script) { s.dir("d", 0o755); s.link("g", "d") }, "", unix.EPERM},
	{"link to the root", func(s *script) { s.link("g", ".") }, "", unix.EPERM},
	{"link to the parent of the root", func(s *script) { s.link("g", "..") }, "", unix.EPERM},
	{"name of 255 bytes", func(s *script) { s.file(strings.Repeat("n", 255)+"/"+strings.Repeat("m", 255), "x") },
		"dir . @ 755\ndir " + strings.Repeat("n", 255) + " @ 755\nfile " + strings.Repeat("n", 255) + "/" + strings.Repeat("m", 255) + " @ 644 T \"x\"", nil},
	{"name of 256 bytes", func(s *script) { s.file(strings.Repeat("n", 256), "x") }, "", unix.ENAMETOOLONG},
	{"the root's metadata come last", func(s *script) { s.file("f", "x"); s.dir(".", 0o711) }, "dir . @ 711 T\nfile f @ 644 T \"x\"", nil},
}

func TestBuilder(t *testing.T) {
	noLeak(t)
	for _, workers := range []int{1, 2, 7} {
		bothRoots(t, func(t *testing.T) string { return t.TempDir() }, func(t *testing.T, _ *Root) {
			for _, c := range scenarios {
				t.Run(fmt.Sprintf("%d/%s", workers, c.name), func(t *testing.T) {
					dir := openTestDir(t, t.TempDir())
					root := NewRoot(dir)
					if strings.Contains(t.Name(), "/walk/") {
						root = newWalkingRoot(dir)
					}
					err := runScript(t, root, workers, c.run)
					if !errors.Is(err, c.err) {
						t.Fatalf("error %v, want %v", err, c.err)
					}
					if c.err == nil {
						wantTree(t, dir.Name(), strings.ReplaceAll(c.want, " T", " mtime=1000000000.000000005"))
					}
				})
			}
		})
	}
}

func runScript(t testing.TB, root *Root, workers int, run func(*script)) error {
	t.Helper()
	own := meta(0o755)
	b, err := newBuilder(root, BuildOptions{Workers: workers, Implied: &own})
	must(t, err)
	s := &script{b: b}
	run(s)
	return errors.Join(s.err, b.Close())
}

// TestBuilderImplied: without metadata for them, directories are never made up.
func TestBuilderImplied(t *testing.T) {
	dir := openTestDir(t, t.TempDir())
	b, err := NewBuilder(dir, BuildOptions{})
	must(t, err)
	s := &script{b: b}
	s.file("a/f", "x")
	if err := errors.Join(s.err, b.Close()); !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "a") {
		t.Errorf("error %v, want ENOENT for a", err)
	}
}

// TestBuilderDeep: 10,000 levels, a file in each, with few descriptors; then files on the way back.
func TestBuilderDeep(t *testing.T) {
	const levels = 10000
	dir := openTestDir(t, t.TempDir())
	t.Cleanup(func() { removeDeep(t, dir.Name()) })
	limitFiles(t, 200)
	noLeak(t)
	err := runScript(t, NewRoot(dir), 2, func(s *script) {
		path := ""
		for i := range levels {
			path += "d"
			s.dir(path, 0o755)
			path += "/"
			s.file(path+"f", strconv.Itoa(i))
		}
		for n := len(path); n > 0; n -= 1000 {
			s.file(path[:n]+"g", "back")
		}
	})
	must(t, err)
	n := 0
	must(t, Walk(t.Context(), dir, func(e *Entry) error {
		n++
		if e.Path != "." && e.Stat.Mtime.Sec != 1000000000 {
			t.Fatalf("%d bytes deep: mtime %v", len(e.Path), e.Stat.Mtime)
		}
		return nil
	}))
	if want := 1 + 2*levels + 20; n != want {
		t.Errorf("%d inodes, want %d", n, want)
	}
}

// TestBuilderWide: more directories with files under way than descriptors.
func TestBuilderWide(t *testing.T) {
	const dirs = 1000
	dir := openTestDir(t, t.TempDir())
	limitFiles(t, 100)
	noLeak(t)
	must(t, runScript(t, NewRoot(dir), 7, func(s *script) {
		for i := range dirs {
			s.dir(strconv.Itoa(i), 0o755)
			s.file(strconv.Itoa(i)+"/f", "x")
		}
	}))
	names, err := ReadNames(int(dir.Fd()))
	must(t, err)
	if len(names) != dirs {
		t.Errorf("%d directories, want %d", len(names), dirs)
	}
}

// TestBuilderInherits: default ACLs and setgid bits above an inode must not decide what it gets.
func TestBuilderInherits(t *testing.T) {
	dir := openTestDir(t, build(t, "dir . @ 2777 default=u::rwx,u:12345:rwx,g::rwx,g:54321:rwx,m::rwx,o::rwx"))
	must(t, runScript(t, NewRoot(dir), 2, func(s *script) {
		s.dir(".", 0o700)
		m := meta(0o2770)
		m.Xattrs = []Xattr{{XattrDefault, aclValue(t, "u::rwx,u:777:rwx,g::rwx,m::rwx,o::rwx")}}
		s.do(s.b.Dir(context.Background(), "d", m))
		s.dir("d/e", 0o750)
		s.file("d/e/f", "x")
		s.file("d/f", "x")
		s.fifo("d/p")
		s.sym("d/l", "x")
		s.file("f", "x")
	}))
	wantTree(t, dir.Name(), strings.ReplaceAll(`
dir . @ 700 T
dir d @ 2770 T default=u::rwx,u:777:rwx,g::rwx,m::rwx,o::rwx
dir d/e @ 750 T
file d/e/f @ 644 T "x"
file d/f @ 644 T "x"
symlink d/l @ x T
fifo d/p @ 600 T
file f @ 644 T "x"`, " T", " mtime=1000000000.000000005"))
}

// TestBuilderDirTwice: ACLs and attributes of an earlier entry do not stay.
func TestBuilderDirTwice(t *testing.T) {
	dir := openTestDir(t, t.TempDir())
	must(t, runScript(t, NewRoot(dir), 2, func(s *script) {
		m := meta(0o777)
		m.Xattrs = []Xattr{{XattrAccess, aclValue(t, "u::rwx,u:777:rwx,g::rwx,m::rwx,o::rwx")}, {XattrDefault, aclValue(t, "u::rwx,g::rwx,o::rwx")}, {"user.x", []byte("y")}}
		s.do(s.b.Dir(context.Background(), "d", m))
		s.file("d/f", "x")
		s.file("f", "x")
		s.dir("d", 0o710)
	}))
	wantTree(t, dir.Name(), "dir . @ 755\ndir d @ 710 mtime=1000000000.000000005\nfile d/f @ 644 \"x\"\nfile f @ 644 \"x\"")
}

// TestBuilderPending: attributes that wait for their directory are bounded.
func TestBuilderPending(t *testing.T) {
	dir := openTestDir(t, t.TempDir())
	err := runScript(t, NewRoot(dir), 1, func(s *script) {
		value := make([]byte, 64<<10)
		for i := range 100 {
			m := meta(0o755)
			for k := range 100 {
				m.Xattrs = append(m.Xattrs, Xattr{"user." + strconv.Itoa(k), value})
			}
			s.do(s.b.Dir(context.Background(), strings.Repeat("d/", i)+"d", m))
		}
	})
	if err == nil || !strings.Contains(err.Error(), "MiB of attributes") {
		t.Errorf("error %v, want one about too many attributes", err)
	}
}

// TestBuilderConflicts lets every worker and every batch hold files that later entries replace, link to and enter.
func TestBuilderConflicts(t *testing.T) {
	for _, workers := range []int{1, 2, 7} {
		t.Run(strconv.Itoa(workers), func(t *testing.T) {
			dir := openTestDir(t, t.TempDir())
			var want strings.Builder
			must(t, runScript(t, NewRoot(dir), workers, func(s *script) {
				for i := range 600 {
					f, sizes := fmt.Sprintf("d%d/f%d", i%7, i%50), []int{0, 10, 5000, batchSize}
					s.file(f, strings.Repeat("x", sizes[i%4]))
					switch i % 5 {
					case 0:
						s.link(fmt.Sprintf("d%d/l%d", i%3, i%50), f)
					case 1:
						s.file(f, "again")
					case 2:
						s.sym(f, "elsewhere")
					case 3:
						s.dir(f, 0o755)
					}
				}
				for i := range 7 { // and at last all is what one entry says
					for k := range 50 {
						s.file(fmt.Sprintf("d%d/f%d", i, k), fmt.Sprint(i, k))
						s.file(fmt.Sprintf("d%d/l%d", i, k), "")
					}
				}
			}))
			var names []string
			for i := range 7 {
				names = append(names, fmt.Sprintf("dir d%d @ 755", i))
				for k := range 50 {
					names = append(names, fmt.Sprintf("file d%d/f%d @ 644 %q", i, k, fmt.Sprint(i, k)), fmt.Sprintf("file d%d/l%d @ 644 \"\"", i, k))
				}
			}
			slices.Sort(names)
			want.WriteString("dir . @ 755\n" + strings.Join(names, "\n"))
			wantTree(t, dir.Name(), want.String())
		})
	}
}

// TestBuilderCancelled: a cancelled context stops it, and nothing hangs or leaks.
func TestBuilderCancelled(t *testing.T) {
	noLeak(t)
	dir := openTestDir(t, t.TempDir())
	b, err := NewBuilder(dir, BuildOptions{Workers: 2})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	must(t, b.File(ctx, "f", meta(0o644), 1, nil, strings.NewReader("x")))
	cancel()
	if err := b.File(ctx, "g", meta(0o644), 1, nil, strings.NewReader("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that of the context", err)
	}
	must(t, b.Close())
}
