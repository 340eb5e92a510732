package audit

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/nsferry/nsferry/acl"
	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/idshift"
	"github.com/nsferry/nsferry/idshift/userns"
	"golang.org/x/sys/unix"
)

// openTo tells whether other users of the machine can come as far as the directory that dir is in: everything from / down
// lets somebody through who is neither the caller nor one of his sub-ids. On a filesystem without setuid nobody gains.
func openTo(e *userns.Env, dir string) (bool, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err == nil && fs.Flags&unix.ST_NOSUID != 0 {
		return false, nil
	}
	w := walker{args: args{Ids: newIds(e)}}
	w.Ids.Direct = true // these are looked at from outside
	at := "/"
	parts := strings.Split(strings.Trim(filepath.Dir(dir), "/"), "/")
	for _, part := range append([]string{""}, parts...) {
		at = filepath.Join(at, part)
		var st unix.Stat_t
		if err := unix.Stat(at, &st); errors.Is(err, unix.EACCES) {
			return false, nil // closed to the caller, so belongs to a sub-id, or is closed to all
		} else if err != nil {
			return false, &os.PathError{Op: "stat", Path: at, Err: err}
		}
		a := acl.FromMode(st.Mode & 0o777)
		if fd, err := unix.Open(at, unix.O_PATH|unix.O_CLOEXEC, 0); err == nil {
			if set, err := acl.Read(fd, acl.Access); err == nil && set != nil {
				a = set
			}
			unix.Close(fd)
		}
		f := facts{uid: st.Uid, gid: st.Gid}
		f.class, f.gclass = w.Ids.class(idshift.UID, st.Uid), w.Ids.class(idshift.GID, st.Gid)
		if !w.othersMay(a, f, acl.PermExecute) {
			return false, nil
		}
	}
	return true, nil
}

// othersMay tells whether the ACL of an inode lets anybody do perm who is neither the caller nor one of his ids: the
// others, a group or a user of the machine. The owning group counts unless it is the caller's own, or root's.
func (w *walker) othersMay(a acl.ACL, f facts, perm uint16) bool {
	mask := uint16(7)
	for _, n := range a {
		if n.Tag == acl.Mask {
			mask = n.Perm
		}
	}
	for _, n := range a {
		switch n.Tag {
		case acl.Other:
			if n.Perm&perm != 0 {
				return true
			}
		case acl.GroupObj:
			if n.Perm&mask&perm != 0 && f.gclass == Foreign && f.gid != 0 {
				return true
			}
		case acl.User, acl.Group:
			k := idshift.UID
			if n.Tag == acl.Group {
				k = idshift.GID
			}
			foreign := n.ID == acl.Undefined || w.Ids.class(k, w.Ids.outside(k, n.ID)) == Foreign
			if n.Perm&mask&perm != 0 && foreign {
				return true
			}
		}
	}
	return false
}

// searchable is othersMay for a directory of the tree.
func (w *walker) searchable(e *tree.Entry, f facts) bool {
	a, err := access(e)
	return err != nil || w.othersMay(a, f, acl.PermExecute)
}

// access is the entry's access ACL, or what its mode says.
func access(e *tree.Entry) (acl.ACL, error) {
	a, err := readACL(e, acl.Access)
	if a == nil {
		a = acl.FromMode(uint32(e.Stat.Mode) & 0o777)
	}
	return a, err
}

// readACL reads one ACL of the entry; nil where there is none.
func readACL(e *tree.Entry, kind acl.Kind) (acl.ACL, error) {
	key := tree.XattrAccess
	if kind == acl.Default {
		key = tree.XattrDefault
	}
	value, err := e.Xattr(key)
	if err != nil || value == nil {
		return nil, err
	}
	return acl.Decode(value)
}

// busy tells whether a process holds a lock on the entry.
func busy(e *tree.Entry) bool {
	fd, err := unix.Openat(e.Dir, e.Base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return errors.Is(unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

func newFile(fd int, name string) *os.File { return os.NewFile(uintptr(fd), name) }

func lstat(path string) (st unix.Stat_t, err error) {
	err = unix.Lstat(path, &st)
	return st, err
}

// quote makes path one word of a shell.
func quote(path string) string {
	if path != "" && !strings.ContainsFunc(path, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:@%,=", r))
	}) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
