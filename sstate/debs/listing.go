package debs

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/idshift/userns"
)

// aptArchives is where apt keeps the debs that it has got.
const aptArchives = "var/cache/apt/archives"

// bytesName is a file name on its way through JSON, which has only UTF-8.
type bytesName string

// MarshalJSON implements json.Marshaler.
func (n bytesName) MarshalJSON() ([]byte, error) { return json.Marshal([]byte(n)) }

// UnmarshalJSON implements json.Unmarshaler.
func (n *bytesName) UnmarshalJSON(b []byte) error {
	var raw []byte
	err := json.Unmarshal(b, &raw)
	*n = bytesName(raw)
	return err
}

// File is a name in a directory and what was there when it was listed.
type File struct {
	Name     bytesName
	Mode     uint32 // with type
	UID, GID uint32 // as the lister sees them
	Size     int64
	MTime    int64 // ns
	CTime    int64 // ns
	Dev, Ino uint64
}

func (f File) regular() bool { return f.Mode&unix.S_IFMT == unix.S_IFREG }

// sameInode tells two names of one file.
func (f File) sameInode(g File) bool { return f.Dev == g.Dev && f.Ino == g.Ino }

// sameStamp tells files that are taken for equal: a copy gets the time of its original.
func (f File) sameStamp(g File) bool { return f.Size == g.Size && f.MTime == g.MTime }

// Listing is a directory of debs as it was at one moment, sorted by name.
type Listing struct {
	Exists bool
	Dir    File // the directory itself
	ACL    bool // it has one
	// Partial is apt's directory partial in it, if there is one.
	Partial *File
	Files   []File
}

// list lists dir. Names that vanish meanwhile are not in it.
func list(dir *os.File) (Listing, error) {
	l := Listing{Exists: true}
	fd := int(dir.Fd())
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return l, &fs.PathError{Op: "fstat", Path: dir.Name(), Err: err}
	}
	l.Dir = file("", &st)
	for _, key := range [...]string{tree.XattrAccess, tree.XattrDefault} {
		if _, err := unix.Fgetxattr(fd, key, nil); err == nil {
			l.ACL = true
		}
	}
	names, err := tree.ReadNames(fd)
	if err != nil {
		return l, &fs.PathError{Op: "readdir", Path: dir.Name(), Err: err}
	}
	l.Files = make([]File, 0, len(names))
	for _, name := range names {
		err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return l, &fs.PathError{Op: "fstatat", Path: dir.Name() + "/" + name, Err: err}
		}
		f := file(name, &st)
		if name == "partial" && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			l.Partial = &f
			continue
		}
		l.Files = append(l.Files, f)
	}
	return l, nil
}

func file(name string, st *unix.Stat_t) File {
	return File{Name: bytesName(name), Mode: st.Mode, UID: st.Uid, GID: st.Gid, Size: st.Size, MTime: st.Mtim.Nano(), CTime: st.Ctim.Nano(), Dev: st.Dev, Ino: st.Ino}
}

// restArgs is the argument of a half that needs none but where in its file the rootfs is.
type restArgs struct{ Rest string }

// listHalf lists apt's archives in a rootfs, its file.
var listHalf = userns.Half[restArgs, Listing]{Name: "debs-list", Func: func(_ context.Context, in *userns.Inner, a restArgs) (Listing, error) {
	root, err := userns.ReopenDir(in.Files[0], a.Rest)
	if err != nil {
		return Listing{}, err
	}
	defer root.Close()
	dir, err := openArchives(root)
	if errors.Is(err, fs.ErrNotExist) { // the archives, not the rootfs
		return Listing{}, nil
	}
	if err != nil {
		return Listing{}, err
	}
	defer dir.Close()
	return list(dir)
}}

// listBoth lists apt's archives in a rootfs, and tells whether a half in the namespace did that, and DL, both at once.
func listBoth(ctx context.Context, r *rootfs, dl *cache) (archives Listing, entered bool, there Listing, err error) {
	var group errgroup.Group
	group.Go(func() (err error) { there, err = dl.list(ctx); return err })
	archives, entered, err = ask(ctx, r, listHalf, restArgs{r.rest})
	return archives, entered, there, errors.Join(err, group.Wait())
}

// archivesInside opens, for a half, apt's archives in the rootfs that is at rest in its first file.
func archivesInside(in *userns.Inner, rest string) (*os.File, error) {
	root, err := userns.ReopenDir(in.Files[0], rest)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return openArchives(root)
}

// openArchives opens apt's archives below root, symbolic links meaning what they mean inside.
func openArchives(root *os.File) (*os.File, error) {
	fd, err := tree.NewRoot(root).OpenDir(aptArchives)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), aptArchives), nil
}
