package tree

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// OpenHandle opens the inode at path, no component of which may be a symlink but the last, which is the symlink itself. Close must
// be called.
func (r *Root) OpenHandle(path string) (*Handle, error) {
	fd, err := openPath(r, path, unix.O_PATH)
	if err != nil {
		return nil, pathError("openat", path, err)
	}
	h := &Handle{Path: path, fd: fd}
	if err := h.Refresh(); err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

// Is makes sure that the inode is the one that was seen, and was not changed since.
func (h *Handle) Is(seen *unix.Statx_t) error {
	if h.Stat.Ino != seen.Ino || h.Stat.Mnt_id != seen.Mnt_id || h.Stat.Mode != seen.Mode || h.Stat.Ctime != seen.Ctime {
		return fmt.Errorf("%s: %w", h.Path, ErrChanged)
	}
	return nil
}

// Bare tells whether the inode has no extended attributes at all.
func (h *Handle) Bare() (bool, error) {
	return bare(h.Path, func(buf []byte) (int, error) { return unix.Listxattr(h.proc(), buf) })
}

// Bare tells whether the inode has no extended attributes at all.
func (e *Entry) Bare() (bool, error) {
	return bare(e.Path, func(buf []byte) (int, error) { return listXattrAt(e.Dir, e.Base, buf) })
}

func bare(path string, list func([]byte) (int, error)) (bool, error) {
	n, err := list(nil)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return true, nil
	}
	return n == 0, pathError("listxattr", path, err)
}

// Has tells whether the inode has the metadata m, and none of the attributes that spare says of that m lacks them. What
// Stat says of the inode is believed.
func (h *Handle) Has(m *Meta, spare func(key string) bool) (bool, error) {
	if !m.Fits(&h.Stat) {
		return false, nil
	}
	attrs, err := h.attributes(m, spare)
	return err == nil && slices.EqualFunc(attrs, m.Xattrs, sameXattr), err
}

// Fits tells whether owner, mode and time of the inode are those of m.
func (m *Meta) Fits(st *unix.Statx_t) bool {
	return st.Uid == m.UID && st.Gid == m.GID && st.Mtime.Sec == m.ModTime.Sec && int64(st.Mtime.Nsec) == m.ModTime.Nsec &&
		(st.Mode&unix.S_IFMT == unix.S_IFLNK || uint32(st.Mode)&0o7777 == m.Mode)
}

func sameXattr(a, b Xattr) bool { return a.Key == b.Key && bytes.Equal(a.Value, b.Value) }

// attributes returns those of the inode's attributes that m has too, with the inode's values, and those that it must not have.
func (h *Handle) attributes(m *Meta, spare func(key string) bool) ([]Xattr, error) {
	if h.Type() == unix.S_IFLNK && len(m.Xattrs) == 0 {
		return nil, nil // user.* and ACLs are not for symlinks (xattr(7))
	}
	keys, err := xattrKeysOf(h.fd)
	if err != nil {
		return nil, pathError("listxattr", h.Path, err)
	}
	var attrs []Xattr
	for _, key := range keys {
		if spare(key) && !slices.ContainsFunc(m.Xattrs, func(x Xattr) bool { return x.Key == key }) {
			continue
		}
		value, err := xattrValue(unix.Getxattr, h.proc(), key)
		switch {
		case errors.Is(err, unix.ENODATA):
			continue
		case errors.Is(err, unix.EOVERFLOW): // a capability of another user namespace (capabilities(7)): there, and not ours
		case err != nil:
			return nil, pathError("getxattr "+key, h.Path, err)
		}
		attrs = append(attrs, Xattr{key, value})
	}
	return attrs, nil
}

// Adjust gives the inode the metadata m, in the order of applyFd, and writes nothing that it has already. Attributes that m lacks are
// removed unless spare says that they are somebody else's.
func (h *Handle) Adjust(m *Meta, spare func(key string) bool) error {
	if h.Stat.Uid != m.UID || h.Stat.Gid != m.GID {
		if err := h.SetOwner(m.UID, m.GID); err != nil {
			return err
		}
		if err := h.Refresh(); err != nil { // setuid bits and capabilities are gone
			return err
		}
	}
	if err := h.dropOthers(m, spare); err != nil {
		return err
	}
	if h.Type() != unix.S_IFLNK && uint32(h.Stat.Mode)&0o7777 != m.Mode {
		if err := h.SetMode(m.Mode); err != nil {
			return err
		}
	}
	if err := h.setAttributes(m, spare); err != nil {
		return err
	}
	if h.Stat.Mtime.Sec != m.ModTime.Sec || int64(h.Stat.Mtime.Nsec) != m.ModTime.Nsec {
		return setTimes(h.fd, h.Path, m.ModTime)
	}
	return nil
}

func (h *Handle) dropOthers(m *Meta, spare func(key string) bool) error {
	attrs, err := h.attributes(m, spare)
	if err != nil {
		return err
	}
	for _, x := range attrs {
		if !slices.ContainsFunc(m.Xattrs, func(y Xattr) bool { return x.Key == y.Key }) {
			if err := h.RemoveXattr(x.Key); err != nil {
				return err
			}
		}
	}
	return h.Refresh() // an ACL that went has changed the mode
}

// setAttributes sets what differs; the mode may have changed an ACL's mask, and a new owner has lost capabilities.
func (h *Handle) setAttributes(m *Meta, spare func(key string) bool) error {
	if len(m.Xattrs) == 0 {
		return nil
	}
	attrs, err := h.attributes(m, spare)
	if err != nil {
		return err
	}
	for _, x := range inOrder(m.Xattrs) {
		if slices.ContainsFunc(attrs, func(y Xattr) bool { return sameXattr(x, y) }) {
			continue
		}
		err := retry(func() error { return unix.Setxattr(h.proc(), x.Key, x.Value, 0) })
		if err != nil {
			return xattrError(h.Path, x, err)
		}
	}
	return nil
}
