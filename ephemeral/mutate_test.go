package ephemeral

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/nsferry/nsferry/acl"

	"golang.org/x/sys/unix"
)

// mutation changes the tree at "/" as a command would: by paths. From the same seed and tree it does the same, whatever
// lies below.
type mutation struct {
	seed  uint64
	plain bool // the filesystem has no attributes, or one cannot go by the room that its files take
	rand  *rand.Rand
	made  map[string]bool // directories that are not of the tree that the run began with
}

// steps is how many changes there are.
const steps = 120

// stamp is the time that everything changed gets, so that two trees compare.
const stamp = 1234567890

func (m *mutation) run() error {
	begin := time.Now().Add(-time.Second)
	m.rand, m.made = rand.New(rand.NewPCG(m.seed, 7)), map[string]bool{}
	for i := range steps {
		paths, err := m.paths()
		if err != nil {
			return err
		}
		if err := m.step(i, paths); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	paths, err := m.paths()
	if err != nil {
		return err
	}
	for _, p := range append(paths, "/") {
		st, err := os.Lstat(p)
		if err != nil {
			return err
		}
		if st.ModTime().After(begin) && st.ModTime().Before(time.Now().Add(time.Second)) {
			ts := []unix.Timespec{{Sec: stamp}, {Sec: stamp}}
			if err := unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return err
			}
		}
	}
	return nil
}

// paths lists everything but what is mounted, in one order.
func (m *mutation) paths() (all []string, err error) {
	err = filepath.WalkDir("/", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch p {
		case "/dev", "/proc", "/sys", "/.test", "/etc": // what is mounted, and what was made for it
			return fs.SkipDir
		case "/":
			return nil
		}
		all = append(all, p)
		return nil
	})
	return all, err
}

// step does one change to something of the tree.
func (m *mutation) step(i int, paths []string) error {
	if len(paths) == 0 {
		return m.directory(fmt.Sprintf("/new%d", i))
	}
	p := paths[m.rand.IntN(len(paths))]
	st, err := os.Lstat(p)
	if err != nil {
		return err
	}
	fresh := filepath.Join(filepath.Dir(p), fmt.Sprintf("new%d", i))
	isLink := st.Mode()&fs.ModeSymlink != 0
	if sys := st.Sys().(*syscall.Stat_t); !m.plain && st.Mode().IsRegular() && sys.Blocks*512+4096 < st.Size() {
		// What the kernel copies up it copies by the MiB, and fills smaller holes (docs/EPHEMERAL.md, Limits).
		if i%2 == 0 {
			return os.Remove(p)
		}
		return nil
	}
	switch m.rand.IntN(15) {
	case 0:
		if st.Mode().IsRegular() {
			return appendTo(p, "more")
		}
	case 1:
		if st.Mode().IsRegular() {
			return os.Truncate(p, m.rand.Int64N(300000))
		}
	case 2:
		if !isLink {
			return unix.Chmod(p, []uint32{0o600, 0o755, 0o4755, 0o2711, 0o1777}[m.rand.IntN(5)])
		}
	case 3:
		return os.Lchown(p, m.rand.IntN(1000), m.rand.IntN(65535))
	case 4:
		if !m.plain {
			return m.attribute(p, st)
		}
	case 5:
		if st.Mode().IsRegular() && !m.plain {
			return unix.Setxattr(p, "security.capability", capNetRaw, 0)
		}
	case 6:
		return m.rename(p, fresh, st)
	case 7, 8:
		return os.RemoveAll(p)
	case 9:
		return m.again(p, st)
	case 10:
		return m.directory(fresh)
	case 11:
		return os.Symlink("../elsewhere", fresh)
	case 12:
		if !st.IsDir() {
			return os.Link(p, fresh)
		}
	case 13:
		return m.exchange(p, st)
	case 14:
		return errors.Join(unix.Mkfifo(fresh, 0o640), os.WriteFile(fresh+"-sparse", []byte("x"), 0o644), os.Truncate(fresh+"-sparse", 1<<20))
	}
	return nil
}

var capNetRaw = []byte{1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

func appendTo(p, text string) error {
	f, err := os.OpenFile(p, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// attribute sets or removes an attribute or an ACL.
func (m *mutation) attribute(p string, st fs.FileInfo) error {
	if !st.Mode().IsRegular() && !st.IsDir() {
		return nil
	}
	if m.rand.IntN(2) == 0 {
		return unix.Setxattr(p, "user.mutated", []byte(fmt.Sprint(m.rand.IntN(100))), 0)
	}
	a, err := acl.Parse(fmt.Sprintf("u::rwx,u:%d:r-x,g::r-x,m::rwx,o::---", 1+m.rand.IntN(60000)), nil)
	if err != nil {
		return err
	}
	return unix.Setxattr(p, "system.posix_acl_access", a.Encode(), 0)
}

// rename moves what an overlay lets it move: no directory that came from below.
func (m *mutation) rename(p, to string, st fs.FileInfo) error {
	if st.IsDir() {
		if !m.made[p] {
			return nil
		}
		for d := range m.made {
			if strings.HasPrefix(d, p+"/") {
				m.made[to+strings.TrimPrefix(d, p)] = true
			}
		}
		m.made[to] = true
	}
	return os.Rename(p, to)
}

// again removes something and makes another thing of that type under its name: a directory must come out opaque.
func (m *mutation) again(p string, st fs.FileInfo) error {
	if err := os.RemoveAll(p); err != nil {
		return err
	}
	if st.IsDir() {
		return m.directory(p)
	}
	return os.WriteFile(p, []byte("another"), 0o644)
}

func (m *mutation) directory(p string) error {
	m.made[p] = true
	return errors.Join(os.Mkdir(p, 0o750), os.WriteFile(filepath.Join(p, "in"), []byte(p), 0o644))
}

// exchange puts a directory where a file was, and the other way round.
func (m *mutation) exchange(p string, st fs.FileInfo) error {
	if err := os.RemoveAll(p); err != nil {
		return err
	}
	if st.IsDir() {
		return os.WriteFile(p, []byte("was a directory"), 0o640)
	}
	return m.directory(p)
}
