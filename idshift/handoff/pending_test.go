//go:build linux

package handoff

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/acl"
	"github.com/nsferry/nsferry/tier"
)

// ways are the kernels that a Pending can meet: each named by what is missing.
var ways = map[string]map[string]error{
	"all":                {},
	"no O_TMPFILE":       {"open O_TMPFILE": unix.EOPNOTSUPP},
	"old kernel":         {"open O_TMPFILE": unix.EISDIR, "renameat2": unix.ENOSYS},
	"nfs":                {"open O_TMPFILE": unix.EOPNOTSUPP, "renameat2": unix.EINVAL},
	"no /proc":           {"linkat": unix.ENOENT},
	"no directory fsync": {"fsync directory": unix.EINVAL},
	"unreadable folder":  {"open directory": nil}, // see openUnreadable
}

// eachWay runs f with every kernel. f gets a function that makes a Pending with bytes in it.
func eachWay(t *testing.T, f func(t *testing.T, begin func(dir *os.File, name, text string, o Options) *Pending)) {
	for way, errs := range ways {
		t.Run(way, func(t *testing.T) {
			k := faults(errs)
			if way == "unreadable folder" {
				k = openUnreadable()
			}
			before := openFDs(t)
			t.Cleanup(func() {
				if after := openFDs(t); after != before {
					t.Errorf("%d descriptors before, %d after", before, after)
				}
			})
			f(t, func(dir *os.File, name, text string, o Options) *Pending {
				t.Helper()
				p, err := newPending(k, dir, name, o, nil)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { p.Abort() })
				if _, err := p.File().WriteString(text); err != nil {
					t.Fatal(err)
				}
				return p
			})
		})
	}
}

// openUnreadable is a kernel that denies every first opening of a directory, as it does to a user who may write and search
// it but not read it.
func openUnreadable() kernel {
	odd := false
	return kernel{fault: func(op string) error {
		if op != "open directory" {
			return nil
		}
		if odd = !odd; odd {
			return unix.EACCES
		}
		return nil
	}}
}

func TestPendingAppearsOnCommit(t *testing.T) {
	eachWay(t, func(t *testing.T, begin func(*os.File, string, string, Options) *Pending) {
		dir, path := openDir(t)
		p := begin(dir, "out", "new", Options{Mode: 0o644})
		if _, err := os.Lstat(filepath.Join(path, "out")); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("the name is there before Commit: %v", err)
		}
		if err := p.Commit(); err != nil {
			t.Fatal(err)
		}
		if !p.Published() {
			t.Error("not published")
		}
		if got := names(t, path); got != "out=new" {
			t.Errorf("directory holds %s", got)
		}
		if err := p.Abort(); err != nil {
			t.Errorf("Abort after Commit: %v", err)
		}
		if err := p.Commit(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("second Commit: %v", err)
		}
		if got := names(t, path); got != "out=new" {
			t.Errorf("directory holds %s afterwards", got)
		}
	})
}

func TestPendingAbortLeavesNothing(t *testing.T) {
	eachWay(t, func(t *testing.T, begin func(*os.File, string, string, Options) *Pending) {
		dir, path := openDir(t)
		p := begin(dir, "out", "new", Options{})
		for range 2 {
			if err := p.Abort(); err != nil {
				t.Fatal(err)
			}
		}
		if got := names(t, path); got != "" {
			t.Errorf("directory holds %s", got)
		}
		if err := p.Commit(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Commit after Abort: %v", err)
		}
	})
}

func TestPendingTakenName(t *testing.T) {
	for _, c := range []struct {
		policy    Overwrite
		there     string // before Commit: file, link to it, dangling link, directory
		want      string
		published bool
		err       error
	}{
		{Exclusive, "file", "out=old", false, ErrExists},
		{Exclusive, "dangling", "out->nowhere", false, ErrExists},
		{Exclusive, "dir", "out", false, ErrExists},
		{Replace, "file", "out=new", true, nil},
		{Replace, "dangling", "out=new", true, nil},
		{Replace, "dir", "out", false, unix.EISDIR},
		{First, "file", "out=old", false, nil},
		{First, "link", "other=old out->other", false, nil},
		{First, "dangling", "out=new", true, nil},
		{First, "dir", "out", false, ErrExists},
	} {
		t.Run(fmt.Sprint(c.policy, c.there), func(t *testing.T) {
			eachWay(t, func(t *testing.T, begin func(*os.File, string, string, Options) *Pending) {
				dir, path := openDir(t)
				p := begin(dir, "out", "new", Options{Overwrite: c.policy})
				plant(t, path, c.there)
				err := p.Commit()
				if c.err == nil && err != nil || !errors.Is(err, c.err) {
					t.Errorf("got error %v, want %v", err, c.err)
				}
				if p.Published() != c.published {
					t.Errorf("published: %v", p.Published())
				}
				if got := names(t, path); got != c.want {
					t.Errorf("directory holds %s, want %s", got, c.want)
				}
			})
		})
	}
}

func plant(t *testing.T, path, what string) {
	t.Helper()
	var err error
	out := filepath.Join(path, "out")
	switch what {
	case "file":
		err = os.WriteFile(out, []byte("old"), 0o600)
	case "link":
		err = errors.Join(os.WriteFile(filepath.Join(path, "other"), []byte("old"), 0o600), os.Symlink("other", out))
	case "dangling":
		err = os.Symlink("nowhere", out)
	case "dir":
		err = os.Mkdir(out, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestPendingExclusiveFailsEarly(t *testing.T) {
	dir, path := openDir(t)
	plant(t, path, "file")
	_, err := NewPending(dir, "out", Options{})
	if !errors.Is(err, ErrExists) || !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v", err)
	}
}

func TestPendingModeIsExact(t *testing.T) {
	restrict, err := acl.Parse("u::---,u:1:rwx,g::rwx,m::rwx,o::rwx", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, umask := range []int{0, 0o77, 0o777} {
		for _, inherit := range []bool{false, true} {
			for _, mode := range []uint32{0, 0o644, 0o444, 0o4755, 0o1777} {
				t.Run(fmt.Sprintf("umask %o inherit %v mode %o", umask, inherit, mode), func(t *testing.T) {
					eachWay(t, func(t *testing.T, begin func(*os.File, string, string, Options) *Pending) {
						dir, path := openDir(t)
						if inherit {
							if err := acl.Apply(int(dir.Fd()), acl.Default, restrict); errors.Is(err, acl.ErrUnsupported) {
								tier.Have(t, os.Getenv("HANDOFF_FS") == "ramfs", "a filesystem with ACLs")
								return
							} else if err != nil {
								t.Fatal(err)
							}
						}
						defer syscall.Umask(syscall.Umask(umask))
						p := begin(dir, "out", "x", Options{Mode: mode})
						if err := p.Commit(); err != nil {
							t.Fatal(err)
						}
						var st unix.Stat_t
						if err := unix.Lstat(filepath.Join(path, "out"), &st); err != nil {
							t.Fatal(err)
						}
						want := mode
						if mode == 0 {
							want = 0o600
						}
						if st.Mode&0o7777 != want || st.Nlink != 1 {
							t.Errorf("mode %o, %d links", st.Mode&0o7777, st.Nlink)
						}
						_, err := unix.Lgetxattr(filepath.Join(path, "out"), "system.posix_acl_access", nil)
						if !isAny(err, unix.ENODATA, unix.EOPNOTSUPP) {
							t.Errorf("an ACL was inherited: %v", err)
						}
					})
				})
			}
		}
	}
}

func TestPendingNames(t *testing.T) {
	dir, path := openDir(t)
	for _, name := range []string{"", ".", "..", "a/b", "/a", "a\x00b", strings.Repeat("n", 256)} {
		if p, err := NewPending(dir, name, Options{}); err == nil {
			p.Abort()
			t.Errorf("%.20q was taken", name)
		}
	}
	eachWay(t, func(t *testing.T, begin func(*os.File, string, string, Options) *Pending) {
		for _, name := range []string{strings.Repeat("n", 255), strings.Repeat("n", 240), "\xff\n", "-"} {
			for _, text := range []string{"one", "two"} {
				if err := begin(dir, name, text, Options{Overwrite: Replace}).Commit(); err != nil {
					t.Fatal(err)
				}
			}
			if b, err := os.ReadFile(filepath.Join(path, name)); err != nil || string(b) != "two" {
				t.Errorf("%.20q: %q, %v", name, b, err)
			}
		}
	})
	if entries, err := os.ReadDir(path); err != nil || len(entries) != 4 {
		t.Errorf("%d names left, %v", len(entries), err)
	}
}

func TestPendingBadOptions(t *testing.T) {
	dir, _ := openDir(t)
	for _, o := range []Options{{Mode: 0o10644}, {Overwrite: First + 1}} {
		if p, err := NewPending(dir, "out", o); err == nil {
			p.Abort()
			t.Errorf("%+v was taken", o)
		}
	}
}

// TestPendingByPathDescriptor passes a directory as inner halves get it, closed before Commit.
func TestPendingByPathDescriptor(t *testing.T) {
	path := t.TempDir()
	dir, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewPending(dir, "out", Options{})
	if err := errors.Join(err, dir.Close()); err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := names(t, path); got != "out=" {
		t.Errorf("directory holds %s", got)
	}
}

// TestPendingFailures lets each step fail and wants the directory as it was, an error that says which step, and no
// descriptor left.
func TestPendingFailures(t *testing.T) {
	for _, base := range []string{"all", "no O_TMPFILE", "nfs"} {
		for _, op := range []string{
			"open directory", "fstatfs", "fstatat", "fremovexattr", "fchmod", "fstat", "fsync", "fsync directory",
			"linkat", "renameat2", "renameat", "flock", "unlinkat", "openat",
		} {
			for _, policy := range []Overwrite{Exclusive, Replace, First} {
				t.Run(fmt.Sprintf("%s %s %d", base, op, policy), func(t *testing.T) { failAt(t, ways[base], op, policy) })
			}
		}
	}
}

func failAt(t *testing.T, base map[string]error, op string, policy Overwrite) {
	dir, path := openDir(t)
	want := ""
	if policy == Replace {
		plant(t, path, "file")
		want = "out=old"
	}
	before := openFDs(t)
	errs := map[string]error{op: unix.EIO}
	for k, v := range base {
		if k != op {
			errs[k] = v
		}
	}
	p, err := newPending(faults(errs), dir, "out", Options{Overwrite: policy}, nil)
	if err == nil {
		_, werr := p.File().WriteString("new")
		err = errors.Join(p.Commit(), werr)
	}
	got := names(t, path)
	switch {
	case err == nil:
		if got != "out=new" { // the step is not on this way
			t.Errorf("no error, directory holds %s", got)
		}
	case !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), op):
		t.Errorf("the error says nothing of %s: %v", op, err)
	case op == "fsync directory" && policy == Replace:
		if got != "out=new" || !strings.Contains(err.Error(), "has been replaced") {
			t.Errorf("directory holds %s after %v", got, err)
		}
	case op == "unlinkat" && got != want:
		// What cannot be removed stays, under a name that cannot be mistaken, and the next writer takes it away.
		q, err := NewPending(dir, "out", Options{Overwrite: First})
		if err != nil {
			t.Fatal(err)
		}
		if got = names(t, path); got != want && got != "out=new" {
			t.Errorf("directory holds %s", got)
		}
		q.Abort()
	case got != want:
		t.Errorf("directory holds %s, want %s, after %v", got, want, err)
	}
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// BenchmarkPending is what an empty file costs: on tmpfs, so that it is the system calls and not the disk.
func BenchmarkPending(b *testing.B) {
	path, err := os.MkdirTemp("/dev/shm", "handoff")
	tier.Have(b, err == nil, "/dev/shm")
	defer os.RemoveAll(path)
	dir, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer dir.Close()
	for b.Loop() {
		p, err := NewPending(dir, "out", Options{Overwrite: Replace})
		if err != nil {
			b.Fatal(err)
		}
		if err := p.Commit(); err != nil {
			b.Fatal(err)
		}
	}
}
