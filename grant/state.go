package grant

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/nsferry/nsferry/acl"
	"github.com/nsferry/nsferry/idshift"
	"github.com/nsferry/nsferry/idshift/userns"
	"golang.org/x/sys/unix"
)

// state is all of a directory that a grant may change. ACLs are nil where there is none beyond the mode.
type state struct {
	Mode     uint32 // 07777
	UID, GID uint32
	Access   acl.ACL
	Default  acl.ACL
	noACLs   bool // the filesystem keeps none
}

func (s state) equal(o state) bool {
	return s.Mode == o.Mode && s.UID == o.UID && s.GID == o.GID && s.Access.Equal(o.Access) && s.Default.Equal(o.Default)
}

// effective is the access ACL, or what stands for it.
func (s state) effective() acl.ACL {
	if s.Access != nil {
		return slices.Clone(s.Access)
	}
	return acl.FromMode(s.Mode & 0o777)
}

// directory is an open directory, by an O_PATH descriptor, and who it is.
type directory struct {
	file *os.File
	path string // absolute, without symlinks
	id   identity
	now  state
}

func (d *directory) Close() error { return d.file.Close() }

// openDirectory opens the directory at path, whose components must not be symlinks.
func openDirectory(path string) (*directory, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS}
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &how)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) { // before Linux 5.6, or a filter of that age
		fd, err = unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	d := &directory{file: os.NewFile(uintptr(fd), path), path: path}
	if err := d.read(); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// read reads identity and state.
func (d *directory) read() error {
	fd := int(d.file.Fd())
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st)
	if err != nil {
		return &os.PathError{Op: "statx", Path: d.path, Err: err}
	}
	d.id = identity{Dev: unix.Mkdev(st.Dev_major, st.Dev_minor), Ino: st.Ino}
	if st.Mask&unix.STATX_BTIME != 0 {
		d.id.Born = fmt.Sprintf("%d.%09d", st.Btime.Sec, st.Btime.Nsec)
	}
	d.now = state{Mode: uint32(st.Mode) & 0o7777, UID: st.Uid, GID: st.Gid}
	d.now.Access, err = acl.Read(fd, acl.Access)
	if err == nil {
		d.now.Default, err = acl.Read(fd, acl.Default)
	}
	if errors.Is(err, acl.ErrUnsupported) {
		d.now.noACLs, err = true, nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", d.path, err)
	}
	return nil
}

// write makes the directory be like want and verifies it: first with the process's own rights, then, where the directory
// belongs to a sub-id, by a half.
func (d *directory) write(ctx context.Context, e *userns.Env, want state) error {
	err := setState(int(d.file.Fd()), d.now, want)
	if errors.Is(err, unix.EPERM) && !e.Direct {
		var from, to state
		if from, err = inside(e, d.now); err == nil {
			if to, err = inside(e, want); err == nil {
				_, err = writeHalf.Run(ctx, e, writeArgs{from, to}, nil, d.file)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", d.path, err)
	}
	if err := d.read(); err != nil {
		return err
	}
	if !d.now.equal(want) {
		return fmt.Errorf("%s: mode %04o and ACL %s were set, but mode %04o and ACL %s are there; something else changes it",
			d.path, want.Mode, want.effective().Short(), d.now.Mode, d.now.effective().Short())
	}
	return nil
}

// inside is s with the ids that halves see.
func inside(e *userns.Env, s state) (state, error) {
	shift := e.Handoff.Inside()
	var errs [4]error
	s.UID, errs[0] = shift.Owner(idshift.UID, s.UID)
	s.Access, errs[2] = shift.ACL(s.Access)
	s.Default, errs[3] = shift.ACL(s.Default)
	if gid, err := shift.Owner(idshift.GID, s.GID); err == nil {
		s.GID = gid
	} // a group that stays what it is need not be mapped
	return s, errors.Join(errs[:]...)
}

type writeArgs struct{ From, To state }

// writeHalf gets the directory.
var writeHalf = userns.Half[writeArgs, struct{}]{Name: "grant.write", Func: func(_ context.Context, in *userns.Inner, a writeArgs) (struct{}, error) {
	return struct{}{}, setState(int(in.Files[0].Fd()), a.From, a.To)
}}

// setState changes what differs between the states of the directory fd: owner, then ACLs, which set the permission bits,
// then the mode where that was not enough. Nothing is changed first that a later step could undo.
func setState(fd int, from, to state) error {
	path := fmt.Sprintf("/proc/self/fd/%d", fd)
	if from.UID != to.UID {
		if err := unix.Chown(path, int(to.UID), -1); err != nil {
			return &os.PathError{Op: "chown", Path: path, Err: err}
		}
	}
	if !from.Default.Equal(to.Default) {
		if err := acl.Apply(fd, acl.Default, to.Default); err != nil {
			return err
		}
	}
	if !from.Access.Equal(to.Access) {
		if err := acl.Apply(fd, acl.Access, to.Access); err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "fstat", Path: path, Err: err}
	}
	if st.Mode&0o7777 != to.Mode {
		if err := unix.Chmod(path, to.Mode); err != nil {
			return &os.PathError{Op: "chmod", Path: path, Err: err}
		}
	}
	return nil
}
