package facl

import (
	"errors"
	"os"
	"strconv"

	"github.com/nsferry/nsferry/acl"
	"golang.org/x/sys/unix"
)

// file is one inode, held by an O_PATH descriptor: whatever happens to its name, what is read is what is changed.
type file struct {
	fd   int
	path string // for messages and output
	st   unix.Stat_t
}

// openat is openat(2), not interrupted.
func openat(dir int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

func (f *file) close() { unix.Close(f.fd) }

func (f *file) is(format uint32) bool { return f.st.Mode&unix.S_IFMT == format }

// proc is the name that reaches the inode for calls that take no O_PATH descriptor.
func (f *file) proc() string { return "/proc/self/fd/" + strconv.Itoa(f.fd) }

// read returns the ACL of the kind; where the filesystem keeps none, what the mode says.
func (f *file) read(kind acl.Kind) (acl.ACL, error) {
	if kind == acl.Default && !f.is(unix.S_IFDIR) {
		return nil, nil
	}
	a, err := acl.Read(f.fd, kind)
	if err != nil && !errors.Is(err, acl.ErrUnsupported) {
		return nil, err
	}
	if a == nil && kind == acl.Access {
		return acl.FromMode(f.st.Mode), nil
	}
	return a, nil
}

// write sets an access ACL, or its mode where the filesystem keeps no ACLs and the mode can say it; or a default ACL.
func (f *file) write(kind acl.Kind, a acl.ACL) error {
	err := acl.Apply(f.fd, kind, a)
	if kind == acl.Access && a.Minimal() && errors.Is(err, acl.ErrUnsupported) {
		return f.chmod(f.st.Mode&0o7000 | a.Mode())
	}
	if kind == acl.Default && len(a) == 0 && errors.Is(err, acl.ErrUnsupported) {
		return nil
	}
	return err
}

// chmod sets the 12 low bits of the mode.
func (f *file) chmod(mode uint32) error {
	if err := unix.Chmod(f.proc(), mode); err != nil {
		return &os.PathError{Op: "chmod", Path: f.path, Err: err}
	}
	return nil
}

// chown sets the owners; -1 leaves one.
func (f *file) chown(uid, gid int) error {
	if err := unix.Fchownat(f.fd, "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "fchownat", Path: f.path, Err: err}
	}
	return nil
}
