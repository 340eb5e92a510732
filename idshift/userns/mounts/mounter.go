//go:build linux

package mounts

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// mounter holds the few ways to mount by file descriptor. Its methods need CAP_SYS_ADMIN in the user
// namespace that owns the current mount namespace, and a /proc that shows the calling process.
type mounter struct {
	legacy bool            // only mount(2), openat2 neither
	root   *os.File        // root of what is being built, nil before it is mounted
	stage  string          // where root lies in the mount namespace's root directory, as mountinfo shows it
	devs   map[uint64]bool // st_dev of the filesystems mounted for /dev and /dev/shm
	held   []*os.File      // see Result.Hold
}

// mountInfo is one line of mountinfo.
type mountInfo = mountinfo.Info

// hold locks the mount target dst shared if it is a placeholder.
func (m *mounter) hold(dst *os.File) error {
	ours, err := IsPlaceholder(dst)
	if err != nil || !ours {
		return err
	}
	fd, err := unix.Open(self(dst), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dst.Name(), Err: err}
	}
	f := os.NewFile(uintptr(fd), dst.Name())
	m.held = append(m.held, f)
	return flock(f, unix.LOCK_SH)
}

// mountAt is mount(2) onto the file dst itself.
func mountAt(source string, dst *os.File, fstype string, flags uintptr, data string) error {
	if err := unix.Mount(source, self(dst), fstype, flags, data); err != nil {
		return &os.PathError{Op: "mount " + fstype, Path: dst.Name(), Err: err}
	}
	return nil
}

// attach binds src onto dst. src may be a file of the current mount namespace (a copy is bound, recursively with
// rec), or a detached mount as Detach makes it (which is used up), or a file of the namespace we came from (which
// is looked up again by its path, see reopen).
func (m *mounter) attach(src, dst *os.File, rec bool) error {
	ours, err := mountedHere(src)
	if err != nil {
		return err
	}
	if !ours {
		var moveErr error
		if !m.legacy {
			if moveErr = moveMount(src, dst); moveErr == nil {
				return nil
			}
		}
		if src, err = reopen(src); err != nil {
			return errors.Join(err, moveErr)
		}
		defer src.Close()
	}
	if !m.legacy {
		tree, err := openTree(src, rec)
		if err == nil {
			defer tree.Close()
			return moveMount(tree, dst)
		}
		if !isErrno(err, unix.EPERM, unix.ENOSYS) { // else an old kernel or a seccomp filter
			return lockedChildren(src, rec, err)
		}
	}
	flags := uintptr(unix.MS_BIND)
	if rec {
		flags |= unix.MS_REC
	}
	if err := mountAt(self(src), dst, "bind", flags, ""); err != nil {
		if !rec && isErrno(err, unix.EINVAL) {
			err = fmt.Errorf("%w: %w", err, errLocked)
		}
		return fmt.Errorf("bind %s: %w", src.Name(), err)
	}
	return nil
}

// openTree makes a detached copy of the mount at f, with f as its root (open_tree(2), Linux 5.2).
func openTree(f *os.File, rec bool) (*os.File, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH)
	if rec {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(int(f.Fd()), "", flags)
	if err != nil {
		return nil, &os.PathError{Op: "open_tree", Path: f.Name(), Err: err}
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// moveMount puts a detached mount onto dst; dst may be a symlink opened itself.
func moveMount(tree, dst *os.File) error {
	flags := unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
	if err := unix.MoveMount(int(tree.Fd()), "", int(dst.Fd()), "", flags); err != nil {
		return &os.PathError{Op: "move_mount", Path: dst.Name(), Err: err}
	}
	return nil
}

// private cuts the mounts at and below the mount root f off from the propagation of those they are copies of.
func private(f *os.File) error {
	return mountAt("", f, "", unix.MS_REC|unix.MS_PRIVATE, "")
}

// readOnly makes the mount whose root is f and all mounts below it read-only. Flags locked by a more privileged
// mount namespace are kept (mount_namespaces(7)).
func (m *mounter) readOnly(f *os.File) error {
	if !m.legacy {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		err := unix.MountSetattr(int(f.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr)
		if err == nil {
			return nil
		}
		if err != unix.ENOSYS && err != unix.EPERM { // before 5.12, or a seccomp filter
			return &os.PathError{Op: "mount_setattr", Path: f.Name(), Err: err}
		}
	}
	below, err := m.mountsBelow(f)
	if err != nil {
		return err
	}
	for _, name := range below {
		if err := m.remountReadOnly(name); err != nil {
			return err
		}
	}
	return nil
}

// remountReadOnly remounts what is mounted at name, relative to the root being built.
func (m *mounter) remountReadOnly(name string) error {
	f, err := m.inRoot(m.root, name, true)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return &os.PathError{Op: "fstatfs", Path: name, Err: err}
	}
	return mountAt("", f, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|keptFlags(st.Flags), "")
}

// keptFlags translates statfs(2) flags to those that mount(2) must repeat on a remount.
func keptFlags(st int64) (flags uintptr) {
	for _, f := range []struct {
		st int64
		ms uintptr
	}{
		{unix.ST_NOSUID, unix.MS_NOSUID},
		{unix.ST_NODEV, unix.MS_NODEV},
		{unix.ST_NOEXEC, unix.MS_NOEXEC},
		{unix.ST_NOATIME, unix.MS_NOATIME},
		{unix.ST_NODIRATIME, unix.MS_NODIRATIME},
		{unix.ST_RELATIME, unix.MS_RELATIME},
	} {
		if st&f.st != 0 {
			flags |= f.ms
		}
	}
	return flags
}

// mountsBelow lists the mount of f and those below it, outermost first, as names relative to the root being built.
func (m *mounter) mountsBelow(f *os.File) ([]string, error) {
	id, err := mountID(f)
	if err != nil {
		return nil, err
	}
	in := map[int]bool{id: true}
	var names []string
	_, err = mountTable(func(i *mountInfo) {
		if in[i.Parent] {
			in[i.ID] = true
		}
		if in[i.ID] {
			names = append(names, strings.TrimPrefix(i.Mountpoint, strings.TrimSuffix(m.stage, "/")))
		}
	})
	return names, err
}

// mountTable calls each for every mount of the calling thread's namespace, parents before children, and returns
// the ids.
func mountTable(each func(*mountInfo)) (ids map[int]bool, err error) {
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	ids = map[int]bool{}
	_, err = mountinfo.GetMountsFromReader(f, func(i *mountInfo) (skip, stop bool) {
		ids[i.ID] = true
		if each != nil {
			each(i)
		}
		return true, false
	})
	return ids, err
}

// mountedHere tells whether f lies in a mount of the calling thread's mount namespace.
func mountedHere(f *os.File) (bool, error) {
	id, err := mountID(f)
	if err != nil {
		return false, err
	}
	ids, err := mountTable(nil)
	return ids[id], err
}

// mountID returns the id of the mount that f lies in, as in mountinfo (proc(5), fdinfo).
func mountID(f *os.File) (int, error) {
	name := "/proc/thread-self/fdinfo/" + strconv.Itoa(int(f.Fd()))
	text, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			return strconv.Atoi(strings.TrimSpace(v))
		}
	}
	return 0, fmt.Errorf("%s: no mnt_id", name)
}
