//go:build linux

package handoff

import (
	"errors"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// nameMax is the longest name Linux takes (NAME_MAX), in bytes.
const nameMax = 255

// directory is where a name is to appear. It holds its own descriptor of the directory.
type directory struct {
	kernel
	f        *os.File
	readable bool // false: opened by O_PATH, because the directory may be searched and written but not read
	longest  int  // longest name in bytes that the filesystem takes
}

// openDirectory opens the directory behind dir anew, so that dir may be an O_PATH descriptor and may be
// closed before the name appears.
func openDirectory(k kernel, dir *os.File) (*directory, error) {
	d := &directory{kernel: k, readable: true}
	var err error
	d.f, err = k.openat("open directory", int(dir.Fd()), ".", dir.Name(), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if isAny(err, unix.EACCES) {
		d.readable = false
		d.f, err = k.openat("open directory", int(dir.Fd()), ".", dir.Name(), unix.O_PATH|unix.O_DIRECTORY, 0)
	}
	runtime.KeepAlive(dir)
	if err != nil {
		return nil, err
	}
	var st unix.Statfs_t
	err = k.call("fstatfs", dir.Name(), func() error { return unix.Fstatfs(d.fd(), &st) })
	if err != nil {
		return nil, errors.Join(err, d.f.Close())
	}
	d.longest = nameMax
	if st.Namelen > 0 && st.Namelen < nameMax {
		d.longest = int(st.Namelen)
	}
	return d, nil
}

func (d *directory) fd() int { return int(d.f.Fd()) }

func (d *directory) open(name string, flags int) (*os.File, error) {
	return d.openat("openat", d.fd(), name, name, flags|unix.O_NOFOLLOW, 0o600)
}

// stat returns what is at name, a symbolic link itself when flags has AT_SYMLINK_NOFOLLOW.
func (d *directory) stat(name string, flags int) (st unix.Stat_t, err error) {
	err = d.call("fstatat", name, func() error { return unix.Fstatat(d.fd(), name, &st, flags) })
	return st, err
}

// holds tells whether name is the inode st. A name that is not there is not.
func (d *directory) holds(name string, st unix.Stat_t) (bool, error) {
	at, err := d.stat(name, unix.AT_SYMLINK_NOFOLLOW)
	if isAny(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil && sameInode(at, st), err
}

func (d *directory) unlink(name string) error {
	return d.call("unlinkat", name, func() error { return unix.Unlinkat(d.fd(), name, 0) })
}

func (d *directory) rename(from, to string) error {
	return d.call("renameat", to, func() error { return unix.Renameat(d.fd(), from, d.fd(), to) })
}

// renameNew renames without replacing: EEXIST when to is taken. Filesystems without RENAME_NOREPLACE (NFS
// answers EINVAL) get a hard link instead and lose the old name after it.
func (d *directory) renameNew(from, to string) error {
	err := d.call("renameat2", to, func() error {
		return unix.Renameat2(d.fd(), from, d.fd(), to, unix.RENAME_NOREPLACE)
	})
	if !isAny(err, unix.EINVAL, unix.ENOSYS, unix.EOPNOTSUPP) {
		return err
	}
	err = d.call("linkat", to, func() error { return unix.Linkat(d.fd(), from, d.fd(), to, 0) })
	if err != nil {
		return err
	}
	if err := d.unlink(from); err != nil {
		return errors.Join(err, d.unlink(to))
	}
	return nil
}

// linkFile gives the open file f, which may have no name yet, the name to: EEXIST when that is taken. The way by
// /proc works for everybody (open(2), O_TMPFILE); AT_EMPTY_PATH is for processes without /proc, and needs
// CAP_DAC_READ_SEARCH or Linux 6.10.
func (d *directory) linkFile(f *os.File, to string) error {
	proc := procPath(f)
	err := d.call("linkat", to, func() error {
		return unix.Linkat(unix.AT_FDCWD, proc, d.fd(), to, unix.AT_SYMLINK_FOLLOW)
	})
	if !isAny(err, unix.ENOENT) {
		return err
	}
	bare := d.call("linkat without /proc", to, func() error {
		return unix.Linkat(int(f.Fd()), "", d.fd(), to, unix.AT_EMPTY_PATH)
	})
	if bare == nil || isAny(bare, unix.EEXIST) {
		return bare
	}
	return errors.Join(err, bare, errNoProc)
}

var errNoProc = errors.New("an unnamed file can be named only where /proc is mounted, or with CAP_DAC_READ_SEARCH, or by Linux 6.10 and newer")

// sync makes names in the directory durable. f is a file in it: where the directory cannot be read, and so not be opened for
// fsync(2), or the filesystem has no fsync of directories (EINVAL), the whole filesystem of f is synced instead.
func (d *directory) sync(f *os.File) error {
	if d.readable {
		err := d.call("fsync directory", d.f.Name(), func() error { return unix.Fsync(d.fd()) })
		if !isAny(err, unix.EINVAL, unix.EOPNOTSUPP) {
			return err
		}
	}
	return d.call("syncfs", d.f.Name(), func() error { return unix.Syncfs(int(f.Fd())) })
}

func (d *directory) close() error { return d.f.Close() }
