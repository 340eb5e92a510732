package acl

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Kind is one of the two ACLs of an inode; only directories have a default ACL.
type Kind uint8

// The two kinds.
const (
	Access Kind = iota
	Default
)

// ErrUnsupported is what errors of Read and Apply wrap when the file system keeps no ACLs, or not for this type of inode
// (EOPNOTSUPP, e.g. ramfs or a symlink). errors.Is finds it behind the *os.PathError.
var ErrUnsupported = errors.ErrUnsupported

// xattr returns the name of the attribute that holds the kind.
func (k Kind) xattr() string {
	if k == Default {
		return "system.posix_acl_default"
	}
	return "system.posix_acl_access"
}

// String returns "access" or "default".
func (k Kind) String() string {
	if k == Default {
		return "default"
	}
	return "access"
}

// Read returns the ACL of the open inode; nil without an error when it has none beyond its mode. The descriptor stays the
// caller's and may be an O_PATH one, for which /proc must be mounted. Ids are those of the reader's user namespace; one
// that it does not map is Undefined.
func Read(fd int, kind Kind) (ACL, error) {
	// 32 entries fit; ACLs with more cost a second call.
	buf := make([]byte, xattrHeader+32*xattrEntry)
	for {
		n, err := getxattr(fd, kind.xattr(), buf)
		switch {
		case err == nil:
			a, err := Decode(buf[:n])
			if err != nil {
				return nil, &os.PathError{Op: "read " + kind.String() + " acl", Path: fdName(fd), Err: err}
			}
			return a, nil
		case errors.Is(err, unix.ENODATA):
			return nil, nil
		case errors.Is(err, unix.ERANGE) && len(buf) < maxXattr:
			buf = make([]byte, maxXattr)
		default:
			return nil, &os.PathError{Op: "getxattr " + kind.xattr(), Path: fdName(fd), Err: err}
		}
	}
}

// maxXattr is the kernel's limit of an xattr value (XATTR_SIZE_MAX).
const maxXattr = 65536

// Apply validates the ACL and sets it on the open inode; an ACL without entries removes it. The descriptor stays the
// caller's and may be an O_PATH one, for which /proc must be mounted. Setting an access ACL also sets the 9 mode bits to
// a.Mode(), and the kernel stores none that the mode can express; removing one leaves the mode as it is, so that a mask
// becomes the group's permissions. A default ACL on anything but a directory is EACCES.
func Apply(fd int, kind Kind, a ACL) error {
	op, call := "removexattr ", func(path string) error {
		if path == "" {
			return unix.Fremovexattr(fd, kind.xattr())
		}
		return unix.Removexattr(path, kind.xattr())
	}
	if len(a) > 0 {
		if err := a.Validate(); err != nil {
			return &os.PathError{Op: "set " + kind.String() + " acl", Path: fdName(fd), Err: err}
		}
		value := a.Encode()
		op, call = "setxattr ", func(path string) error {
			if path == "" {
				return unix.Fsetxattr(fd, kind.xattr(), value, 0)
			}
			return unix.Setxattr(path, kind.xattr(), value, 0)
		}
	}
	err := onFD(fd, call)
	if err != nil && (len(a) > 0 || !errors.Is(err, unix.ENODATA)) {
		return &os.PathError{Op: op + kind.xattr(), Path: fdName(fd), Err: err}
	}
	return nil
}

// getxattr is getxattr(2) for any kind of descriptor.
func getxattr(fd int, name string, buf []byte) (n int, err error) {
	err = onFD(fd, func(path string) error {
		if path == "" {
			n, err = unix.Fgetxattr(fd, name, buf)
		} else {
			n, err = unix.Getxattr(path, name, buf)
		}
		return err
	})
	return n, err
}

// onFD runs call with the path "", meaning the descriptor itself, and, when that is EBADF because of O_PATH (open(2)), once
// more with the descriptor's name in /proc. EINTR is retried.
func onFD(fd int, call func(path string) error) error {
	err := retry(func() error { return call("") })
	if !errors.Is(err, unix.EBADF) {
		return err
	}
	flags, ferr := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if ferr != nil || flags&unix.O_PATH == 0 {
		return err
	}
	return retry(func() error { return call(fdName(fd)) })
}

// retry repeats the call while it is interrupted.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// fdName is the magic link that names the descriptor's inode, without following a symlink that the inode itself may be.
func fdName(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }
