package tree

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Handle is one inode, held open (O_PATH), so that what is read of it and what is done to it concern the same inode
// whatever happens to its name meanwhile. A symlink is the symlink itself. One goroutine uses it at a time.
type Handle struct {
	Path string       // for messages
	Stat unix.Statx_t // of the inode, when it was opened or Refresh was called
	fd   int
}

// OpenHandle opens the inode that e names now. When that is no longer what was visited, or lies on another mount, the error is
// ErrChanged. Close must be called.
func (e *Entry) OpenHandle() (*Handle, error) {
	h, err := e.open()
	if err != nil {
		return nil, err
	}
	if h.Stat.Ino != e.Stat.Ino || h.Stat.Mnt_id != e.Stat.Mnt_id || h.Stat.Mode&unix.S_IFMT != e.Stat.Mode&unix.S_IFMT {
		h.Close()
		return nil, fmt.Errorf("%s: %w", e.Path, ErrChanged)
	}
	return h, nil
}

// open opens the inode that e names now, whatever it is.
func (e *Entry) open() (*Handle, error) {
	fd, err := openAt(e.Dir, e.Base, unix.O_PATH, 0)
	if err != nil {
		return nil, pathError("openat", e.Path, err)
	}
	h := &Handle{Path: e.Path, fd: fd}
	if err := h.Refresh(); err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

// proc is the magic link of the fd.
func (h *Handle) proc() string { return procFd(h.fd) }

// Close releases the inode.
func (h *Handle) Close() { unix.Close(h.fd) }

// Refresh reads Stat again.
func (h *Handle) Refresh() error {
	return pathError("statx", h.Path, retry(func() error {
		return unix.Statx(h.fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, statxMask, &h.Stat)
	}))
}

// Type is the S_IFMT part of the mode.
func (h *Handle) Type() uint32 { return uint32(h.Stat.Mode) & unix.S_IFMT }

// Ownership returns those of the attributes that hold ids, ACLs and capabilities, in the kernel's form. A symlink has none.
func (h *Handle) Ownership() ([]Xattr, error) {
	if h.Type() == unix.S_IFLNK {
		return nil, nil
	}
	keys, err := xattrKeysOf(h.fd)
	if err != nil {
		return nil, pathError("listxattr", h.Path, err)
	}
	var attrs []Xattr
	for _, key := range keys {
		if !holdsIDs(key) {
			continue
		}
		value, err := xattrValue(unix.Getxattr, h.proc(), key)
		switch {
		case errors.Is(err, unix.ENODATA):
			continue
		case err != nil:
			return nil, pathError("getxattr "+key, h.Path, err)
		}
		attrs = append(attrs, Xattr{key, value})
	}
	return attrs, nil
}

// HoldsIDs tells whether the inode that e names now has attributes that Handle.Ownership would return.
func (e *Entry) HoldsIDs() (bool, error) {
	if e.Type() == unix.S_IFLNK {
		return false, nil
	}
	keys, err := xattrKeysAt(e.Dir, e.Base)
	return slices.ContainsFunc(keys, holdsIDs), pathError("listxattr", e.Path, err)
}

func holdsIDs(key string) bool {
	return key == XattrAccess || key == XattrDefault || key == XattrCapability
}

// SetOwner changes owner and group, ids as this process sees them. The kernel drops setuid and setgid bits and
// capabilities of what is no directory, for whoever asks (chown(2)).
func (h *Handle) SetOwner(uid, gid uint32) error {
	err := retry(func() error { return unix.Fchownat(h.fd, "", int(uid), int(gid), unix.AT_EMPTY_PATH) })
	if err != nil {
		err = fmt.Errorf("to %d:%d: %w", uid, gid, err)
	}
	return pathError("fchownat", h.Path, err)
}

// SetMode changes the mode, the low 12 bits, of anything but a symlink.
func (h *Handle) SetMode(mode uint32) error {
	return pathError("chmod", h.Path, retry(func() error { return unix.Chmod(h.proc(), mode&0o7777) }))
}

// SetXattr sets an attribute of anything but a symlink.
func (h *Handle) SetXattr(x Xattr) error {
	return pathError("setxattr "+x.Key, h.Path, retry(func() error { return unix.Setxattr(h.proc(), x.Key, x.Value, 0) }))
}

// RemoveXattr removes an attribute of anything but a symlink; that it is not there is no error.
func (h *Handle) RemoveXattr(key string) error {
	err := retry(func() error { return unix.Removexattr(h.proc(), key) })
	if errors.Is(err, unix.ENODATA) {
		return nil
	}
	return pathError("removexattr "+key, h.Path, err)
}

// SetTimes sets access and modification time of what e names, a symlink itself and not its target.
func (e *Entry) SetTimes(t unix.Timespec) error {
	ts := [2]unix.Timespec{t, t}
	return pathError("utimensat", e.Path, retry(func() error {
		return unix.UtimesNanoAt(e.Dir, e.Base, ts[:], unix.AT_SYMLINK_NOFOLLOW)
	}))
}
