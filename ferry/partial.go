package ferry

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/nsferry/nsferry/archive/tree"

	"golang.org/x/sys/unix"
)

// partial is a tree that does not have its name yet: .NAME.partial-XXXXXXXX beside it, locked while somebody
// fills it. What is not locked is litter of a process that was killed, and goes with the next run.
type partial struct {
	parent *os.File
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

// newPartial removes litter and makes an empty tree of mode 0700 without inherited ACLs. parent stays the caller's.
func newPartial(ctx context.Context, parent *os.File, name string) (*partial, error) {
	if err := sweep(ctx, parent, name); err != nil {
		return nil, err
	}
	var random [4]byte
	_, _ = rand.Read(random[:]) // never fails
	p := &partial{parent: parent, name: name, temp: partialPrefix(name) + hex.EncodeToString(random[:])}
	if err := unix.Mkdirat(int(parent.Fd()), p.temp, 0o700); err != nil {
		return nil, &fs.PathError{Op: "mkdirat", Path: name, Err: err}
	}
	fd, err := unix.Openat(int(parent.Fd()), p.temp, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "openat", Path: p.temp, Err: err}
	}
	p.dir = os.NewFile(uintptr(fd), p.temp)
	err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		err = tree.DropACLs(p.dir)
	}
	if err == nil {
		err = p.dir.Chmod(0o700)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", p.temp, err), p.abort())
	}
	return p, nil
}

// sweep removes the partial trees of name that nobody holds a lock on.
func sweep(ctx context.Context, parent *os.File, name string) error {
	names, err := tree.ReadNames(int(parent.Fd()))
	if errors.Is(err, fs.ErrPermission) {
		return nil // a directory to write into, but not to list
	}
	if err != nil {
		return fmt.Errorf("%s: %w", parent.Name(), err)
	}
	prefix := partialPrefix(name)
	for _, n := range names {
		if !strings.HasPrefix(n, prefix) || len(n) != len(prefix)+8 {
			continue
		}
		fd, err := unix.Openat(int(parent.Fd()), n, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			continue // no directory, or not ours to open: no tree of ours
		}
		if err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err == nil {
			_, err = tree.Remove(ctx, parent, n)
		}
		unix.Close(fd)
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("leftover of an earlier run: %w", err)
		}
	}
	return nil
}

// commit gives the tree its name, which must be free or an empty directory.
func (p *partial) commit() error {
	fd := int(p.parent.Fd())
	err := unix.Renameat2(fd, p.temp, fd, p.name, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EINVAL) { // EINVAL: the filesystem lacks the flag
		err = unix.Renameat(fd, p.temp, fd, p.name) // replaces an empty directory, and nothing else
	}
	if err != nil {
		return &fs.PathError{Op: "rename", Path: p.name, Err: describe(err)}
	}
	err = p.dir.Close()
	p.temp = ""
	return err
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
	_, err := tree.Remove(context.Background(), p.parent, p.temp)
	if p.dir != nil {
		err = errors.Join(err, p.dir.Close())
	}
	p.temp = ""
	return err
}
