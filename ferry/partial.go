package ferry

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/nsferry/nsferry/archive/tree"

	"golang.org/x/sys/unix"
)

// partial is a tree that does not have its name yet: .NAME.partial-XXXXXXXX beside it, locked while somebody
// fills it. What is not locked is litter of a process that was killed, and goes with the next run.
type partial struct {
	parent *ParentDir
	name   string // final
	temp   string
	dir    *os.File // holds the lock
}

// nameMax is NAME_MAX (limits.h).
const nameMax = 255

// partialPrefix is what the names of a tree's partial siblings begin with.
func partialPrefix(name string) string {
	const suffix = ".partial-XXXXXXXX"
	if most := nameMax - 1 - len(suffix); len(name) > most {
		name = name[:most]
	}
	return "." + name + ".partial-"
}

// PartialName returns a new name for something of the given name that is not whole, or not to stay. Sweep removes it when
// nobody holds a lock on it.
func PartialName(name string) string {
	var random [4]byte
	_, _ = rand.Read(random[:]) // never fails
	return partialPrefix(name) + hex.EncodeToString(random[:])
}

// partials returns those of names that partial trees of name have.
func partials(names []string, name string) []string {
	prefix := partialPrefix(name)
	return slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, prefix) || len(n) != len(prefix)+8 })
}

// newPartial removes litter and makes an empty tree of mode 0700 that belongs to uid 0, without inherited ACLs. parent
// stays the caller's.
func newPartial(ctx context.Context, parent *ParentDir, name string) (*partial, error) {
	if err := parent.Sweep(ctx, name); err != nil {
		return nil, err
	}
	for range 16 { // a sweep of somebody else's may take the name in the moment before it is locked
		p := &partial{parent: parent, name: name, temp: PartialName(name)}
		err := p.make()
		if err == nil {
			return p, nil
		}
		var made *fs.PathError
		if errors.As(err, &made) && made.Op == "mkdirat" {
			return nil, err // ENOENT too: a directory that is gone, or one of proc
		}
		if aerr := p.abort(); aerr != nil || !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.ENOENT) {
			return nil, errors.Join(err, aerr)
		}
	}
	return nil, fmt.Errorf("%s: other processes keep removing the partial tree", name)
}

// make makes the directory, locks it and gives it to uid 0.
func (p *partial) make() error {
	at := int(p.parent.Fd())
	if err := p.parent.Do(func() error { return unix.Mkdirat(at, p.temp, 0o700) }); err != nil {
		p.temp = "" // nothing to abort
		return &fs.PathError{Op: "mkdirat", Path: p.parent.path(p.name), Err: err}
	}
	fd, err := p.openNew()
	if err != nil {
		return &fs.PathError{Op: "openat", Path: p.parent.path(p.temp), Err: err}
	}
	p.dir = os.NewFile(uintptr(fd), p.parent.path(p.temp))
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return &fs.PathError{Op: "flock", Path: p.dir.Name(), Err: err}
	}
	var named, ours unix.Stat_t
	err = p.parent.Do(func() error { return unix.Fstatat(at, p.temp, &named, unix.AT_SYMLINK_NOFOLLOW) })
	if err := errors.Join(err, unix.Fstat(fd, &ours)); err != nil {
		return &fs.PathError{Op: "fstatat", Path: p.dir.Name(), Err: err}
	}
	if named.Ino != ours.Ino {
		return &fs.PathError{Op: "flock", Path: p.dir.Name(), Err: unix.EWOULDBLOCK}
	}
	// Made with the caller's ids, or in a setgid directory, it is not uid 0's yet; its group may be one that has no place
	// in the map, and then only its owner can change that.
	if gid := p.parent.gid(ours.Gid); gid >= 0 {
		if err := p.parent.Do(func() error { return unix.Fchown(fd, -1, gid) }); err != nil {
			return &fs.PathError{Op: "fchown", Path: p.dir.Name(), Err: err}
		}
	}
	return errors.Join(p.dir.Chown(0, 0), tree.DropACLs(p.dir), p.dir.Chmod(0o700))
}

// openNew opens the directory just made: with the ids it was made with, for it may not be uid 0's yet.
func (p *partial) openNew() (fd int, err error) {
	err = p.parent.Do(func() (err error) {
		fd, err = unix.Openat(int(p.parent.Fd()), p.temp, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
}

// commit gives the tree its name, which must be free or an empty directory.
func (p *partial) commit() error {
	fd := int(p.parent.Fd())
	err := p.parent.Do(func() error { return unix.Renameat2(fd, p.temp, fd, p.name, unix.RENAME_NOREPLACE) })
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EINVAL) { // EINVAL: the filesystem lacks the flag
		// This replaces an empty directory, and nothing else.
		err = p.parent.Do(func() error { return unix.Renameat(fd, p.temp, fd, p.name) })
	}
	if err != nil {
		return &fs.PathError{Op: "rename", Path: p.name, Err: describe(err)}
	}
	err = p.dir.Close()
	p.temp = ""
	return err
}

// exchange gives the tree its name, in one step, in the place of one that is there; that one is removed by abort.
func (p *partial) exchange() error {
	fd := int(p.parent.Fd())
	err := p.parent.Do(func() error { return unix.Renameat2(fd, p.temp, fd, p.name, unix.RENAME_EXCHANGE) })
	if err != nil {
		return &fs.PathError{Op: "rename", Path: p.name, Err: describe(err)}
	}
	return nil
}

// describe puts what rename(2) says of a taken name into the words of the rule.
func describe(err error) error {
	switch {
	case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST):
		return fmt.Errorf("the target exists and is not empty; remove it with nsferry rm, or choose another name: %w", err)
	case errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("the target exists and is not a directory: %w", err)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("the target is a mount point; choose a directory below it: %w", err)
	}
	return err
}

// abort removes the tree, if it has not got its name.
func (p *partial) abort() error {
	if p.temp == "" {
		return nil
	}
	// The work may have been cancelled; cleaning up is not.
	_, err := p.parent.remove(context.Background(), p.temp)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if p.dir != nil {
		err = errors.Join(err, p.dir.Close())
	}
	p.temp = ""
	return err
}
