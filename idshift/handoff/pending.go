//go:build linux

// Package handoff turns finished bytes into a name that the caller owns, and never shows a name whose bytes are
// not finished.
//
// A Pending is a file on its way to a name: it has none while it is written, its bytes are on the disk before it
// gets one, and the name is on the disk before Commit returns. Killed at any moment, a writer leaves the old file
// or the new one under the name. Transfer moves the bytes of one file into another by the cheapest way both
// filesystems know.
package handoff

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Overwrite says what Commit does when the name is taken.
type Overwrite uint8

const (
	Exclusive Overwrite = iota // it is an error, ErrExists
	Replace                    // the new file takes the place of the old one in one step
	First                      // the file that is there stays, and Published tells; a dangling symbolic link counts as nothing
)

// ErrExists is the error of an Exclusive Pending whose name is taken. It is also an fs.ErrExist.
var ErrExists = fmt.Errorf("the name is taken: %w", fs.ErrExist)

// Options says how a Pending is to appear. The zero value is a file of mode 0600 that replaces nothing.
type Options struct {
	Mode      uint32    // exact mode of the finished file, 07777 at most, whatever umask and default ACL say; 0 means 0600
	Overwrite Overwrite // what to do when the name is taken
	ModTime   time.Time // modification time of the finished file; the zero value leaves it as it is
	// NoSync leaves it to the system when bytes and name get to the disk: for copies of what is kept elsewhere. The name still
	// appears only with all bytes, but a crash of the machine may leave it without them.
	NoSync bool
}

// Pending is a file that gets its name when it is finished. It is for one goroutine.
type Pending struct {
	dir       *directory
	name      string
	opts      Options
	file      *os.File
	temp      string // name while it is written, or on its way over an old file; "" for an unnamed inode
	sealed    bool
	done      bool // by Commit or Abort
	published bool
	replaced  bool // an earlier file is gone from the name
}

// NewPending begins a file that shall become name in dir. dir stays the caller's and may be closed at once; it may be
// an O_PATH descriptor. What dead writers of the same name left behind is removed. An Exclusive Pending fails
// at once with ErrExists when the name is taken already. The caller defers Abort.
func NewPending(dir *os.File, name string, o Options) (*Pending, error) {
	return newPending(kernel{}, dir, name, o, nil)
}

// Adopt begins a Pending of a file that is finished and has a name on dir's filesystem already: Commit gives it another one,
// with mode and time, and Abort lets go of it. file stays the caller's, and must be his.
func Adopt(dir *os.File, name string, file *os.File, o Options) (*Pending, error) {
	return newPending(kernel{}, dir, name, o, file)
}

// newPending makes a Pending of a new file, or of adopted if that is not nil.
func newPending(k kernel, dir *os.File, name string, o Options, adopted *os.File) (_ *Pending, err error) {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return nil, fmt.Errorf("%q cannot be the name of a file", name)
	}
	if o.Mode == 0 {
		o.Mode = 0o600
	}
	if o.Mode&^0o7777 != 0 || o.Overwrite > First {
		return nil, fmt.Errorf("pending file %s: bad options: mode %#o, overwrite %d", name, o.Mode, o.Overwrite)
	}
	p := &Pending{name: name, opts: o}
	if p.dir, err = openDirectory(k, dir); err != nil {
		return nil, fmt.Errorf("pending file %s: %w", name, err)
	}
	if err := p.begin(adopted); err != nil {
		return nil, errors.Join(fmt.Errorf("pending file %s: %w", name, err), p.Abort())
	}
	return p, nil
}

// begin checks the name, clears the ground and makes the inode, or takes the adopted one.
func (p *Pending) begin(adopted *os.File) error {
	if len(p.name) > p.dir.longest {
		return &os.PathError{Op: "openat", Path: p.name, Err: unix.ENAMETOOLONG}
	}
	if p.opts.Overwrite == Exclusive {
		_, err := p.dir.stat(p.name, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil {
			return ErrExists
		}
		if !isAny(err, unix.ENOENT) {
			return err
		}
	}
	if err := p.dir.sweep(p.name); err != nil {
		return err
	}
	var err error
	if adopted != nil {
		p.file, err = p.dir.duplicate(adopted)
		return err
	}
	p.file, err = p.dir.openat("open O_TMPFILE", p.dir.fd(), ".", filepath.Join(p.dir.f.Name(), p.name), unix.O_TMPFILE|unix.O_RDWR, 0o600)
	if isAny(err, unix.EOPNOTSUPP, unix.EISDIR, unix.ENOENT, unix.EINVAL, unix.ENOSYS) {
		p.file, p.temp, err = p.dir.createTemp(p.name)
	}
	if err != nil {
		return err
	}
	return p.strip()
}

// strip takes off what the directory's default ACL and the umask put on the new inode. Until Commit it is the
// owner's alone.
func (p *Pending) strip() error {
	err := p.dir.call("fremovexattr", p.name, func() error {
		return unix.Fremovexattr(int(p.file.Fd()), "system.posix_acl_access")
	})
	if err != nil && !isAny(err, unix.ENODATA, unix.EOPNOTSUPP) {
		return err
	}
	return p.chmod(0o600)
}

// chmod sets the mode and checks that it was taken: the kernel drops a setgid bit without an error when the
// caller is not in the file's group.
func (p *Pending) chmod(mode uint32) error {
	err := p.dir.call("fchmod", p.name, func() error { return unix.Fchmod(int(p.file.Fd()), mode) })
	if err != nil {
		return err
	}
	st, err := p.dir.fstat(p.file)
	if err == nil && st.Mode&0o7777 != mode {
		err = fmt.Errorf("mode %04o was asked for, the filesystem made it %04o", mode, st.Mode&0o7777)
	}
	return err
}

// File is the file to write to, open for reading and writing. It stays the Pending's: Commit and Abort close it.
// A duplicate that another process holds may outlive both.
func (p *Pending) File() *os.File { return p.file }

// Published tells after Commit whether the name is this file. It is false when the policy was First and another
// writer was.
func (p *Pending) Published() bool { return p.published }

// Abort drops the file. It has no effect after Commit or a first Abort, so it can be deferred.
func (p *Pending) Abort() error {
	if p.done {
		return nil
	}
	p.done = true
	var err error
	if p.temp != "" {
		err = p.dropTemp()
	}
	if p.file != nil {
		err = errors.Join(err, p.file.Close())
	}
	return errors.Join(err, p.dir.close())
}

// dropTemp removes the name that the file had on its way. The lock on the inode keeps others from it.
func (p *Pending) dropTemp() error {
	err := p.dir.unlink(p.temp)
	p.temp = ""
	if isAny(err, unix.ENOENT) {
		return nil
	}
	return err
}

func procPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }
