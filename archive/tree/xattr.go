package tree

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// The xattr names of POSIX ACLs and of file capabilities (acl(5), capabilities(7)).
const (
	XattrAccess     = "system.posix_acl_access"
	XattrDefault    = "system.posix_acl_default"
	XattrCapability = "security.capability"
)

// Xattr is one extended attribute of an inode; Value is the caller's.
type Xattr struct {
	Key   string
	Value []byte
}

// procPath names base in dir for system calls that take a path and have no *at form before Linux 6.13. The
// path goes through the magic link of an open fd: nothing above the directory matters, and the l-calls
// do not follow base.
func procPath(dir int, base string) string {
	b := make([]byte, 0, 32+len(base))
	b = append(b, "/proc/self/fd/"...)
	b = strconv.AppendInt(b, int64(dir), 10)
	b = append(b, '/')
	return string(append(b, base...))
}

// XattrsAt returns the extended attributes of base in dir, sorted by key; none, also where the filesystem has none.
func XattrsAt(dir int, base string) ([]Xattr, error) {
	keys, err := xattrKeysAt(dir, base)
	if err != nil || len(keys) == 0 {
		return nil, err
	}
	path := procPath(dir, base)
	attrs := make([]Xattr, 0, len(keys))
	for _, key := range keys {
		value, err := xattrValue(unix.Lgetxattr, path, key)
		if errors.Is(err, unix.ENODATA) {
			continue // gone since it was listed, or listed for others only
		}
		if err != nil {
			return nil, pathError("lgetxattr "+key, base, err)
		}
		attrs = append(attrs, Xattr{Key: key, Value: value})
	}
	return attrs, nil
}

// XattrKeys returns the names of the extended attributes, sorted.
func (e *Entry) XattrKeys() ([]string, error) {
	keys, err := xattrKeysAt(e.Dir, e.Base)
	return keys, pathError("listxattr", e.Path, err)
}

// xattrKeysAt returns the names of the attributes of base in dir, which is not followed.
func xattrKeysAt(dir int, base string) ([]string, error) {
	return xattrKeys(func(buf []byte) (int, error) { return listXattrAt(dir, base, buf) })
}

// xattrKeysOf is xattrKeysAt for an open fd, of any kind.
func xattrKeysOf(fd int) ([]string, error) {
	return xattrKeys(func(buf []byte) (int, error) { return unix.Listxattr(procFd(fd), buf) })
}

func xattrKeys(list func([]byte) (int, error)) ([]string, error) {
	buf := make([]byte, 512)
	for {
		n, err := list(buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ERANGE):
			buf = make([]byte, 64<<10) // XATTR_LIST_MAX
			continue
		case errors.Is(err, unix.EOPNOTSUPP):
			return nil, nil
		case err != nil:
			return nil, err
		case n == 0:
			return nil, nil
		}
		return sortedKeys(buf[:n]), nil
	}
}

// sortedKeys splits the kernel's list of NUL-terminated names.
func sortedKeys(list []byte) []string {
	var keys []string
	for _, k := range bytes.Split(bytes.TrimSuffix(list, []byte{0}), []byte{0}) {
		keys = append(keys, string(k))
	}
	slices.Sort(keys)
	return keys
}

func xattrValue(read func(string, string, []byte) (int, error), path, key string) ([]byte, error) {
	buf := make([]byte, 128)
	for {
		n, err := read(path, key, buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ERANGE):
			buf = make([]byte, 64<<10) // XATTR_SIZE_MAX
			continue
		case err != nil:
			return nil, err
		}
		return buf[:n:n], nil
	}
}

// setXattrAt sets an attribute of base in dir, which is not followed.
func setXattrAt(dir int, base, key string, value []byte) error {
	path := procPath(dir, base)
	return retry(func() error { return unix.Lsetxattr(path, key, value, 0) })
}

// setXattr sets an attribute of an open file or directory.
func setXattr(fd int, key string, value []byte) error {
	return retry(func() error { return unix.Fsetxattr(fd, key, value, 0) })
}

// dropXattr removes an attribute; that it was not there, or cannot be there, is no error.
func dropXattr(fd int, key string) error {
	err := retry(func() error { return unix.Fremovexattr(fd, key) })
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

// hasXattr tells whether an open file or directory has the attribute.
func hasXattr(fd int, key string) (bool, error) {
	err := retry(func() error { _, err := unix.Fgetxattr(fd, key, nil); return err })
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) {
		return false, nil
	}
	return err == nil, err
}

// DropACLs removes both ACLs of an open directory, such as it inherited from its parent (acl(5)).
func DropACLs(dir *os.File) error {
	for _, key := range [2]string{XattrAccess, XattrDefault} {
		if err := dropXattr(int(dir.Fd()), key); err != nil {
			return pathError("fremovexattr "+key, dir.Name(), err)
		}
	}
	return nil
}

// Xattr returns one extended attribute of the entry; nil where it has none of that name, or the filesystem has none at all. The
// error EOVERFLOW, of a capability, says that it belongs to another user namespace (capabilities(7)).
func (e *Entry) Xattr(key string) ([]byte, error) {
	value, err := xattrValue(unix.Lgetxattr, procPath(e.Dir, e.Base), key)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	return value, pathError("lgetxattr "+key, e.Path, err)
}
