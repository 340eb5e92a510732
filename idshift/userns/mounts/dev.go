//go:build linux

package mounts

import (
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// ttyGID is Debian's group tty, which owns pseudo terminals so that write(1) works.
const ttyGID = 5

// devices are bound from the host's /dev: a user namespace may not make device nodes.
var devices = []struct {
	name         string
	major, minor uint32
	optional     bool // absent on the host is no error
}{
	{"null", 1, 3, false},
	{"zero", 1, 5, false},
	{"full", 1, 7, false},
	{"random", 1, 8, false},
	{"urandom", 1, 9, false},
	{"tty", 5, 0, false},
	{"console", 5, 1, true},
}

// devLinks are the symlinks that POSIX shells and glibc expect.
var devLinks = []struct{ name, target string }{
	{"fd", "/proc/self/fd"},
	{"stdin", "/proc/self/fd/0"},
	{"stdout", "/proc/self/fd/1"},
	{"stderr", "/proc/self/fd/2"},
	{"ptmx", "pts/ptmx"},
}

// dev mounts a private /dev. It is not noexec, which some programs that map /dev/zero executable need.
func (m *mounter) dev() error {
	dst, err := m.preset("dev")
	if err != nil {
		return err
	}
	defer dst.Close()
	if err := mountAt("dev", dst, "tmpfs", unix.MS_NOSUID|unix.MS_NOATIME, "mode=755,size=16m"); err != nil {
		return err
	}
	top, err := m.preset("dev")
	if err != nil {
		return err
	}
	defer top.Close()
	if err := m.remember(top); err != nil {
		return err
	}
	for _, d := range []string{"pts", "shm"} {
		if err := os.Mkdir(path.Join(self(top), d), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(path.Join(self(top), "shm"), 0o777|os.ModeSticky); err != nil {
		return err
	}
	for _, l := range devLinks {
		if err := os.Symlink(l.target, path.Join(self(top), l.name)); err != nil {
			return err
		}
	}
	for _, d := range devices {
		err := m.device(top, d.name, unix.Mkdev(d.major, d.minor))
		if err != nil && !(d.optional && errors.Is(err, os.ErrNotExist)) {
			return fmt.Errorf("%s: %w", d.name, err)
		}
	}
	return m.devpts()
}

// device binds a device node of the host, after a look that it is what its name says.
func (m *mounter) device(dev *os.File, name string, rdev uint64) error {
	src, err := openPath("/dev/" + name)
	if err != nil {
		return err
	}
	defer src.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return &os.PathError{Op: "fstat", Path: "/dev/" + name, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != rdev {
		return fmt.Errorf("/dev/%s is not character device %d:%d", name, unix.Major(rdev), unix.Minor(rdev))
	}
	if err := os.WriteFile(path.Join(self(dev), name), nil, 0o666); err != nil {
		return err
	}
	dst, err := openAt(dev, name, unix.O_PATH, "/dev/"+name)
	if err != nil {
		return err
	}
	defer dst.Close()
	return m.attach(src, dst, false)
}

// devpts mounts pseudo terminals of its own; mounts of devpts are always new instances since Linux 4.7.
func (m *mounter) devpts() error {
	dst, err := m.preset("dev/pts")
	if err != nil {
		return err
	}
	defer dst.Close()
	data := "newinstance,ptmxmode=0666,mode=0620"
	hasTTY, err := mapped(ttyGID)
	if err != nil {
		return err
	}
	if hasTTY {
		data += fmt.Sprintf(",gid=%d", ttyGID)
	}
	return mountAt("devpts", dst, "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, data)
}

// remember notes that the filesystem of f is one of our own, where mount targets may be created freely.
func (m *mounter) remember(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &os.PathError{Op: "fstat", Path: f.Name(), Err: err}
	}
	m.devs[st.Dev] = true
	return nil
}
