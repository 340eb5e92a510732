package tree

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Meta is everything about an inode but its type and content. UID and GID are ids as the calling process sees
// them; Mode is the low 12 bits of st_mode. Xattrs hold ACLs in the kernel's form (acl(5)) and capabilities as
// the calling process may write them; they are sorted by key.
type Meta struct {
	Mode     uint32
	UID, GID uint32
	ModTime  unix.Timespec
	Xattrs   []Xattr
}

// weight is how many bytes the attributes take.
func (m *Meta) weight() (n int) {
	for _, x := range m.Xattrs {
		n += len(x.Key) + len(x.Value)
	}
	return n
}

// fresh is what the kernel gave an inode that was just made.
type fresh struct {
	uid, gid uint32
	inherits bool // the parent may have handed down ACLs
}

// applyFd gives an open file or directory its final metadata in the one order that works (FACTS §5.2): the owner first,
// because a change of owner drops setuid bits and capabilities; the mode before the ACL, because the mode sets the ACL's mask;
// times last, because everything else changes them.
func applyFd(fd int, path string, m *Meta, was fresh) error {
	if was.uid != m.UID || was.gid != m.GID {
		if err := retry(func() error { return unix.Fchown(fd, int(m.UID), int(m.GID)) }); err != nil {
			return ownerError(path, m, err)
		}
	}
	if was.inherits {
		for _, key := range [2]string{XattrAccess, XattrDefault} {
			if err := dropXattr(fd, key); err != nil {
				return pathError("fremovexattr "+key, path, err)
			}
		}
	}
	if err := retry(func() error { return unix.Fchmod(fd, m.Mode) }); err != nil {
		return pathError("fchmod", path, err)
	}
	for _, x := range inOrder(m.Xattrs) {
		if err := setXattr(fd, x.Key, x.Value); err != nil {
			return xattrError(path, x, err)
		}
	}
	return setTimes(fd, path, m.ModTime)
}

// inOrder puts the ACLs behind all other attributes: a capability or user attribute never changes an ACL.
func inOrder(attrs []Xattr) []Xattr {
	isACL := func(x Xattr) bool { return x.Key == XattrAccess || x.Key == XattrDefault }
	if !slices.ContainsFunc(attrs, isACL) {
		return attrs
	}
	ordered := slices.Clone(attrs)
	slices.SortStableFunc(ordered, func(a, b Xattr) int {
		switch {
		case isACL(a) == isACL(b):
			return 0
		case isACL(a):
			return 1
		}
		return -1
	})
	return ordered
}

// setTimes sets the modification time; the access time is left as it is, archives do not hold one.
func setTimes(fd int, path string, mtime unix.Timespec) error {
	ts := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, mtime}
	// utimensat(2): a null path means the fd itself, which x/sys spells as AT_EMPTY_PATH only on newer
	// kernels; the magic link works everywhere.
	err := retry(func() error { return unix.UtimesNanoAt(unix.AT_FDCWD, procFd(fd), ts[:], 0) })
	return pathError("utimensat", path, err)
}

// applyAt gives an inode that cannot be opened (symlink, fifo, device) its metadata.
func applyAt(dir int, base, path string, m *Meta, isLink bool, was fresh) error {
	if was.uid != m.UID || was.gid != m.GID {
		err := retry(func() error { return unix.Fchownat(dir, base, int(m.UID), int(m.GID), unix.AT_SYMLINK_NOFOLLOW) })
		if err != nil {
			return ownerError(path, m, err)
		}
	}
	if !isLink {
		if err := modeAt(dir, base, m.Mode); err != nil {
			return pathError("fchmodat", path, err)
		}
	}
	for _, x := range inOrder(m.Xattrs) {
		if err := setXattrAt(dir, base, x.Key, x.Value); err != nil {
			return xattrError(path, x, err)
		}
	}
	ts := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, m.ModTime}
	err := retry(func() error { return unix.UtimesNanoAt(dir, base, ts[:], unix.AT_SYMLINK_NOFOLLOW) })
	return pathError("utimensat", path, err)
}

// modeAt sets the mode of an inode that is no symlink, without following: fchmodat(2) has no such flag before Linux
// 6.6, an O_PATH fd and its magic link have always worked. ACLs handed down by the parent go first.
func modeAt(dir int, base string, mode uint32) error {
	fd, err := openAt(dir, base, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	path := procFd(fd)
	_ = unix.Removexattr(path, XattrAccess) // absent as a rule; the mode below is what counts
	return retry(func() error { return unix.Chmod(path, mode) })
}

// ownerError explains EINVAL, which is what the kernel says of an id without an image (user_namespaces(7)).
func ownerError(path string, m *Meta, err error) error {
	return pathError("fchownat", path, fmt.Errorf("%d:%d: %w", m.UID, m.GID, err))
}

func xattrError(path string, x Xattr, err error) error {
	if err == unix.EOPNOTSUPP { //nolint:errorlint // a raw errno
		return pathError("setxattr "+x.Key, path, fmt.Errorf("%w: this filesystem cannot hold it; use another one or leave it out with --xattrs none", err))
	}
	return pathError("setxattr "+x.Key, path, err)
}
