package debs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/acl"
	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/idshift"
	"github.com/nsferry/nsferry/idshift/userns"
)

// archivesMode is the mode of the archives in a fresh Debian; partialMode that of partial, which is _apt's.
const (
	archivesMode = 0o755
	partialMode  = 0o700
)

// owner tells how a half calls inside ids: as they are, or, where they have to be shifted, by a map.
type owner struct {
	Shift *idshift.Mapping
}

func ownerIn(e *userns.Env) owner {
	if e.Arithmetic() {
		return owner{&e.Plain}
	}
	return owner{}
}

// id returns what a half calls an inside id.
func (o owner) id(k idshift.Kind, inside uint32) (uint32, error) {
	if o.Shift == nil {
		return inside, nil
	}
	id, ok := o.Shift.Of(k).ToOutside(inside)
	if !ok {
		return 0, fmt.Errorf("%s %d has no place in the map", k, inside)
	}
	return id, nil
}

// chown gives an open file to inside ids.
func (o owner) chown(f *os.File, uid, gid uint32) error {
	u, err := o.id(idshift.UID, uid)
	if err != nil {
		return err
	}
	g, err := o.id(idshift.GID, gid)
	if err != nil {
		return err
	}
	return f.Chown(int(u), int(g))
}

type settleArgs struct {
	Rest   string
	Owner  owner
	Mode   uint32
	Named  bool   // ACL entries for those inside who want to write, and for the caller
	Caller uint32 // his uid, as the half calls it
	Make   bool   // the directories, if they are missing
}

// settleHalf makes apt's archives in a rootfs, its file, what they are to be: owner, mode and ACL.
var settleHalf = userns.Half[settleArgs, struct{}]{Name: "debs-settle", Func: func(_ context.Context, in *userns.Inner, a settleArgs) (none struct{}, err error) {
	root, err := userns.ReopenDir(in.Files[0], a.Rest)
	if err != nil {
		return none, err
	}
	defer root.Close()
	return none, a.settle(root)
}}

func (a settleArgs) settle(root *os.File) error {
	users := insideUsers(root)
	dir, err := openArchives(root)
	if a.Make && errors.Is(err, fs.ErrNotExist) {
		dir, err = a.makeDir(root, aptArchives)
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	if a.Make {
		if err := a.settlePartial(root, users["_apt"]); err != nil {
			return err
		}
	}
	if err := errors.Join(a.Owner.chown(dir, 0, 0), tree.DropACLs(dir)); err != nil {
		return err
	}
	if err := unix.Fchmod(int(dir.Fd()), a.Mode); err != nil {
		return &fs.PathError{Op: "fchmod", Path: dir.Name(), Err: err}
	}
	if !a.Named {
		return nil
	}
	list := acl.FromMode(a.Mode & 0o777)
	ids := []uint32{a.Caller}
	for _, name := range [...]string{"_apt", "sbuild"} {
		if uid, ok := users[name]; ok {
			if uid, err = a.Owner.id(idshift.UID, uid); err != nil {
				return err
			}
			ids = append(ids, uid)
		}
	}
	for _, id := range ids {
		list = append(list, acl.Entry{Tag: acl.User, Perm: 7, ID: id})
	}
	return acl.Apply(int(dir.Fd()), acl.Access, list.CalcMask())
}

// makeDir makes a directory below root with all that is missing on the way, inner root's and of mode 0755 whatever umask and
// default ACLs say, and opens it.
func (a settleArgs) makeDir(root *os.File, name string) (*os.File, error) {
	if parent := path.Dir(name); parent != "." {
		dir, err := a.makeDir(root, parent)
		if err != nil {
			return nil, err
		}
		dir.Close()
	}
	r := tree.NewRoot(root)
	fd, err := r.OpenDir(name)
	if err == nil {
		return os.NewFile(uintptr(fd), name), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	at, base, err := r.OpenParent(name)
	if err != nil {
		return nil, err
	}
	defer unix.Close(at)
	if err := unix.Mkdirat(at, base, 0o700); err != nil {
		return nil, &fs.PathError{Op: "mkdirat", Path: name, Err: err}
	}
	if fd, err = unix.Openat(at, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err != nil {
		return nil, &fs.PathError{Op: "openat", Path: name, Err: err}
	}
	dir := os.NewFile(uintptr(fd), name)
	err = errors.Join(a.Owner.chown(dir, 0, 0), tree.DropACLs(dir), dir.Chmod(0o755))
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return dir, nil
}

// settlePartial makes apt's directory for downloads that are under way, as apt itself does: _apt's alone.
func (a settleArgs) settlePartial(root *os.File, apt uint32) error {
	dir, err := a.makeDir(root, aptArchives+"/partial")
	if err != nil {
		return err
	}
	defer dir.Close()
	return errors.Join(a.Owner.chown(dir, apt, 0), tree.DropACLs(dir), dir.Chmod(partialMode))
}

// insideUsers returns the users of the rootfs's passwd file. Without one, or with a bad one, there are none: then everything is
// inner root's.
func insideUsers(root *os.File) map[string]uint32 {
	users := map[string]uint32{}
	at, base, err := tree.NewRoot(root).OpenParent("etc/passwd")
	if err != nil {
		return users
	}
	etc := os.NewFile(uintptr(at), "etc")
	defer etc.Close()
	f, err := openRegular(etc, base)
	if err != nil {
		return users
	}
	defer f.Close()
	text, _ := io.ReadAll(io.LimitReader(f, 1<<20)) // as much as can be read
	for line := range bytes.Lines(text) {
		col := strings.Split(string(line), ":")
		if len(col) < 4 {
			continue
		}
		if uid, err := strconv.ParseUint(col[2], 10, 32); err == nil {
			if _, again := users[col[0]]; !again {
				users[col[0]] = uint32(uid)
			}
		}
	}
	return users
}
