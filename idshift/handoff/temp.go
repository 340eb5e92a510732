//go:build linux

package handoff

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A file that must have a name before its own is `.NAME.partial-XXXXXXXX`. The last part is the number of a slot,
// not random: so litter is found without reading the directory, which may hold thousands of debs, and there is
// never more of it than slots. The living hold flock(2) on their inode, the dead cannot.
const (
	slots       = 16
	symlinkSlot = 0xffffffff // where a symbolic link waits; it cannot be locked, and anybody may remove it
)

// tempName is name's file name in a slot, name being cut to what the filesystem takes. Two long names may then share
// their slots, which the locks allow.
func (d *directory) tempName(name string, slot uint32) string {
	suffix := fmt.Sprintf(".partial-%08x", slot)
	return "." + name[:min(len(name), d.longest-1-len(suffix))] + suffix
}

// sweep removes what dead writers of name left behind.
func (d *directory) sweep(name string) error {
	for slot := uint32(0); slot < slots; slot++ {
		if _, err := d.removeDead(d.tempName(name, slot)); err != nil {
			return err
		}
	}
	return nil
}

// removeDead removes temp unless a living writer holds it or it is not ours to remove. It tells whether temp is free now.
func (d *directory) removeDead(temp string) (free bool, err error) {
	st, err := d.stat(temp, unix.AT_SYMLINK_NOFOLLOW)
	if isAny(err, unix.ENOENT) {
		return true, nil
	}
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return false, err
	}
	// NFS wants a descriptor that can write for an exclusive lock.
	f, err := d.open(temp, unix.O_RDWR|unix.O_NONBLOCK)
	if isAny(err, unix.EACCES, unix.EPERM) {
		f, err = d.open(temp, unix.O_RDONLY|unix.O_NONBLOCK)
	}
	switch {
	case isAny(err, unix.ENOENT):
		return true, nil
	case isAny(err, unix.EACCES, unix.EPERM, unix.ELOOP, unix.EROFS):
		return false, nil
	case err != nil:
		return false, err
	}
	defer f.Close()
	err = d.flock(f, unix.LOCK_EX|unix.LOCK_NB)
	if isAny(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if st, err = d.fstat(f); err != nil {
		return false, err
	}
	ours, err := d.holds(temp, st)
	if err != nil || !ours {
		return false, err
	}
	err = d.unlink(temp)
	if isAny(err, unix.EACCES, unix.EPERM, unix.EROFS) {
		return false, nil
	}
	return err == nil, err
}

// errSwept is the answer for a temporary file that a sweeper took for dead before it was locked.
var errSwept = errors.New("swept away")

// takeSlot calls take with the temporary names of name until one succeeds. take answers EEXIST for a taken one, and
// errSwept when the same one is to be tried again.
func (d *directory) takeSlot(name string, take func(temp string) error) (string, error) {
	for slot := uint32(0); slot < slots; slot++ {
		temp := d.tempName(name, slot)
		for free := true; free; {
			err := take(temp)
			switch {
			case err == nil:
				return temp, nil
			case errors.Is(err, errSwept):
				continue
			case !isAny(err, unix.EEXIST):
				return "", err
			}
			if free, err = d.removeDead(temp); err != nil {
				return "", err
			}
		}
	}
	return "", fmt.Errorf("%d other writers hold %s: %w", slots, d.tempName(name, 0), unix.EBUSY)
}

// createTemp makes a new locked file with a temporary name of name.
func (d *directory) createTemp(name string) (f *os.File, temp string, err error) {
	temp, err = d.takeSlot(name, func(temp string) error {
		if f, err = d.open(temp, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL); err != nil {
			return err
		}
		if err = d.lockTemp(f, temp); err != nil {
			return errors.Join(err, f.Close())
		}
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	return f, temp, nil
}

// lockTemp locks the file just made as temp. A sweeper may have seen it unlocked and removed it: errSwept. After any
// other error the name is gone.
func (d *directory) lockTemp(f *os.File, temp string) error {
	err := d.flock(f, unix.LOCK_EX)
	var st unix.Stat_t
	if err == nil {
		st, err = d.fstat(f)
	}
	ours := false
	if err == nil {
		ours, err = d.holds(temp, st)
	}
	switch {
	case err != nil:
		return errors.Join(err, d.unlink(temp))
	case !ours:
		return errSwept
	}
	return nil
}

// linkTemp gives the file f, which has no temporary name yet, one of name. It is locked before. Who else could hold the lock
// had the file open before it was ours, and may hold it for ever.
func (d *directory) linkTemp(f *os.File, name string) (string, error) {
	if err := d.flock(f, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return "", err
	}
	return d.takeSlot(name, func(temp string) error { return d.linkFile(f, temp) })
}

func (d *directory) flock(f *os.File, how int) error {
	return d.call("flock", f.Name(), func() error { return unix.Flock(int(f.Fd()), how) })
}
