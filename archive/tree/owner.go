package tree

import (
	"errors"

	"golang.org/x/sys/unix"
)

// XattrPlaceholder marks a mount target that was made for a mount and is no part of the tree.
const XattrPlaceholder = "user.nsferry.placeholder"

// PlaceholderSec and PlaceholderNsec mark one on filesystems without user attributes (tmpfs before Linux 6.6, NFS servers without
// them): a modification time that no clock yields. The first change of the file or directory takes it away.
const (
	PlaceholderSec  = 0x6e736665
	PlaceholderNsec = 727297
)

// OwnerIsMapped tells, for an inode that shows id 65534 as owner or group, whether that is a real nobody or what the kernel
// shows for an id without a mapping (user_namespaces(7)). No call returns the difference; what does depend on it is whether uid 0's
// capabilities count for the inode (capabilities(7): only where both its ids are mapped), so something is
// tried that the mode bits do not allow and a capability does.
func (e *Entry) OwnerIsMapped() bool {
	// The kernel looks at CAP_SETFCAP before it looks at the root id in the value (cap_convert_nscap in
	// security/commoncap.c), and refuses this one: nothing is ever written.
	err := retry(func() error {
		return unix.Lsetxattr(procPath(e.Dir, e.Base), XattrCapability, impossibleCapability[:], unix.XATTR_REPLACE)
	})
	switch {
	case errors.Is(err, unix.EINVAL):
		return true
	case errors.Is(err, unix.EPERM):
		return false
	}
	return e.ownerSeemsMapped()
}

// impossibleCapability is a capability of revision 3 for the root id 4294967295, which no namespace has.
var impossibleCapability = [24]byte{3: 3, 20: 0xff, 21: 0xff, 22: 0xff, 23: 0xff}

// ownerSeemsMapped is for where OwnerIsMapped's trial says nothing, such as a read-only mount. It takes uid 0's own files with an
// unmapped group for mapped.
func (e *Entry) ownerSeemsMapped() bool {
	mode := uint32(e.Stat.Mode)
	switch {
	case e.Type() == unix.S_IFLNK:
		// A symlink's mode allows everything; giving it the owner that it has takes CAP_CHOWN.
		err := unix.Fchownat(e.Dir, e.Base, int(e.Stat.Uid), int(e.Stat.Gid), unix.AT_SYMLINK_NOFOLLOW)
		return err == nil
	case mode&0o002 == 0 && e.access(unix.W_OK):
		return true
	case mode&0o004 == 0 && e.access(unix.R_OK):
		return true
	case mode&0o006 == 0o006:
		// Everybody may do everything: only the owner or CAP_FOWNER may ask for O_NOATIME (open(2)). It tells of the uid alone.
		fd, err := openAt(e.Dir, e.Base, unix.O_RDONLY|unix.O_NOATIME|unix.O_NONBLOCK, 0)
		if err == nil {
			unix.Close(fd)
		}
		return err == nil
	}
	return false
}

func (e *Entry) access(what uint32) bool {
	err := retry(func() error { return unix.Faccessat2(e.Dir, e.Base, what, unix.AT_EACCESS|unix.AT_SYMLINK_NOFOLLOW) })
	return err == nil
}
