package ferry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/nsferry/nsferry/acl"
	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/idshift"
	"github.com/nsferry/nsferry/idshift/userns"

	"golang.org/x/sys/unix"
)

// Examine tests, by making and removing a tree in it as unpack would, what the directory at path (or, if it is missing, the
// nearest one above it) can hold. The findings' ids begin with "path."; State is a problem where nsferry itself would
// fail, a note where it only matters for some trees or for other tools.
func Examine(ctx context.Context, e *userns.Env, path string) []userns.Finding {
	dir := nearest(path)
	all := []userns.Finding{filesystem(dir), Traversal(e, dir)}
	root, rest, err := userns.OpenTree(dir)
	if err != nil {
		return append(all, problem("path.open", "the directory cannot be opened", err, "choose a directory that you can reach"))
	}
	defer root.Close()
	found, err := examineHalf.Run(ctx, e, examineArgs{rest, dir, e.CallerFSIDs(), highest(e.Plain.UID)}, nil, root)
	if err != nil {
		return append(all, problem("path.write", "no tree can be made here", err, "choose a directory that you may write to, on a filesystem with room"))
	}
	return append(append(all, found...), overlayAt(ctx, e, dir, rest, root))
}

// nearest returns path, or the closest directory above it that exists.
func nearest(path string) string {
	path, err := filepath.Abs(path)
	for err == nil {
		st, serr := os.Stat(path)
		if serr == nil && st.IsDir() || path == "/" || errors.Is(serr, os.ErrPermission) {
			break
		}
		path = filepath.Dir(path)
	}
	return path
}

// highest returns the largest inside id up to 65533 that m holds: an id that an archive may well have.
func highest(m idshift.Map) uint32 {
	best := uint32(0)
	for _, x := range m.Extents() {
		if x.Inside <= 65533 {
			best = max(best, min(x.Inside+x.Count-1, 65533))
		}
	}
	return best
}

func problem(id, what string, err error, remedy string) userns.Finding {
	return userns.Finding{ID: id, State: userns.StateProblem, What: what, Evidence: err.Error(), Remedy: remedy}
}

// networked are filesystems whose server decides on ids (statfs(2)).
var networked = map[int64]string{unix.NFS_SUPER_MAGIC: "NFS", unix.SMB2_SUPER_MAGIC: "SMB", unix.CIFS_SUPER_MAGIC: "SMB", unix.V9FS_MAGIC: "9p", 0x65735546: "FUSE"}

// filesystem names what the directory is on.
func filesystem(dir string) userns.Finding {
	f := userns.Finding{ID: "path.fs", State: userns.StateOK, What: "a local filesystem"}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return problem("path.fs", "the filesystem cannot be examined", err, "choose a directory that you can reach")
	}
	f.Evidence = fmt.Sprintf("%s: filesystem type %#x, %d MiB free", dir, st.Type, int64(st.Bavail)*st.Bsize>>20)
	if name := networked[int64(st.Type)]; name != "" {
		f.State, f.What = userns.StateNote, name+": its server may refuse owners that it does not know, ACLs and attributes"
		f.Remedy = "keep trees on a local filesystem; archives may stay here"
	}
	return f
}

// Traversal finds the first directory on the way that inner root cannot search by name. nsferry's own commands go by descriptor and
// do not mind; tools that walk paths inside do.
func Traversal(e *userns.Env, dir string) userns.Finding {
	f := userns.Finding{ID: "path.traverse", State: userns.StateOK, What: "inner root can walk this path"}
	uid, _ := e.Plain.UID.ToOutside(0)
	gid, _ := e.Plain.GID.ToOutside(0)
	at := "/"
	for _, part := range strings.Split(strings.Trim(dir, "/"), "/") {
		at = filepath.Join(at, part)
		var st unix.Stat_t
		if err := unix.Stat(at, &st); err != nil {
			f.State, f.What, f.Evidence = userns.StateNote, "beyond this directory you cannot look yourself", at
			return f
		}
		_, mappedUID := e.Plain.UID.ToInside(st.Uid)
		_, mappedGID := e.Plain.GID.ToInside(st.Gid)
		if mappedUID && mappedGID || permits(at, &st, uid, gid) {
			continue
		}
		f.State = userns.StateNote
		f.What = "inner root cannot walk this path by name: nsferry goes by descriptor and does not mind, other tools inside do"
		f.Evidence = fmt.Sprintf("%s has mode %03o, owner %d:%d; inner root is %d:%d outside", at, st.Mode&0o777, st.Uid, st.Gid, uid, gid)
		f.Remedy = "for such tools: nsferry grant --traverse " + dir
		if st.Uid != e.Caller.UID && !mappedUID {
			f.Remedy = fmt.Sprintf("for such tools, as root: setfacl -m u:%d:--x %s", uid, at)
		}
		return f
	}
	return f
}

// permits tells whether mode and ACL of the directory let uid:gid search it.
func permits(dir string, st *unix.Stat_t, uid, gid uint32) bool {
	a := acl.FromMode(st.Mode & 0o777)
	if fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
		if set, err := acl.Read(fd, acl.Access); err == nil && set != nil {
			a = set
		}
		unix.Close(fd)
	}
	return a.Permits(acl.Subject{UID: uid, GID: gid}, st.Uid, st.Gid, acl.PermExecute)
}

type examineArgs struct {
	Rest, Name string
	As         userns.FSIDs
	High       uint32 // an inside id to try
}

// examineHalf makes a partial tree in the directory and tries everything that a rootfs may need on a file in it.
var examineHalf = userns.Half[examineArgs, []userns.Finding]{Name: "examine", Func: func(ctx context.Context, in *userns.Inner, a examineArgs) (found []userns.Finding, err error) {
	parent, err := OpenParentDir(in.Files[0], a.Rest, a.As)
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	p, err := newPartial(ctx, parent, "doctor")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.abort()) }()
	fd, err := unix.Openat(int(p.dir.Fd()), "file", unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "openat", Path: p.temp, Err: err}
	}
	defer unix.Close(fd)
	if err := unix.Fchown(fd, int(a.High), int(a.High)); err != nil {
		return nil, &os.PathError{Op: "fchown", Path: p.temp, Err: err}
	}
	found = append(found, userns.Finding{ID: "path.write", State: userns.StateOK, What: "trees can be made here, with their owners"})
	for _, try := range trials {
		f := userns.Finding{ID: try.id, State: userns.StateOK, What: try.what + ": yes"}
		if err := try.do(fd, int(p.dir.Fd())); err != nil {
			f.State, f.What, f.Evidence, f.Remedy = userns.StateNote, try.what+": no", err.Error(), try.remedy
		}
		found = append(found, f)
	}
	return found, nil
}}

// trials are what a filesystem may or may not have.
var trials = []struct {
	id, what, remedy string
	do               func(file, dir int) error
}{
	{"path.xattr", "user attributes", "trees that have them cannot be unpacked here; use ext4, xfs, btrfs or tmpfs (since Linux 6.6), or --xattrs none", func(file, _ int) error {
		return unix.Fsetxattr(file, "user.nsferry.probe", []byte("1"), 0)
	}},
	{"path.acl", "POSIX ACLs", "trees that have them cannot be unpacked here; mount with the option acl, or use --xattrs none", func(file, _ int) error {
		return acl.Apply(file, acl.Access, acl.ACL{{Tag: acl.UserObj, Perm: 6}, {Tag: acl.User, Perm: 4, ID: 0}, {Tag: acl.GroupObj}, {Tag: acl.Mask, Perm: 4}, {Tag: acl.Other}})
	}},
	{"path.capability", "file capabilities", "programs such as ping lose theirs: trees that have them cannot be unpacked here", func(file, _ int) error {
		return unix.Fsetxattr(file, tree.XattrCapability, idshift.Capability{Permitted: 1 << unix.CAP_NET_RAW, Effective: true}.Rev2(), 0)
	}},
	{"path.reflink", "reflinks", "copies between files here cost their size", func(file, dir int) error {
		if _, err := unix.Pwrite(file, make([]byte, 4096), 0); err != nil {
			return err
		}
		to, err := unix.Openat(dir, "clone", unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return err
		}
		defer unix.Close(to)
		return unix.IoctlFileClone(to, file)
	}},
	{"path.holes", "sparse files", "holes in files are filled here", func(file, _ int) error {
		if err := unix.Ftruncate(file, 1<<20); err != nil {
			return err
		}
		if off, err := unix.Seek(file, 4096, unix.SEEK_HOLE); err != nil || off >= 1<<20 {
			return errors.Join(err, errors.New("the file has no hole where nothing was written"))
		}
		return nil
	}},
}
