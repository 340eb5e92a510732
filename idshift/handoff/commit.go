//go:build linux

package handoff

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Symlink is a symbolic link that CommitAll sets last, in place of an earlier one. Anything but a symbolic link
// under its name is an error. Dir stays the caller's.
type Symlink struct {
	Dir          *os.File
	Name, Target string
}

// Commit puts the file on the disk, gives it its name and puts that on the disk. After an error the name is what it
// was before, except where an earlier file was replaced and only then the directory could not be synced: the error
// says so. A file whose fsync failed is lost, for the kernel reports such an error once and forgets it; there is
// no second try. Commit ends the Pending in either case.
func (p *Pending) Commit() error { return CommitAll([]*Pending{p}, nil) }

// CommitAll commits several files together: all are on the disk before the first name appears, in the order given,
// and link, if not nil, comes last. When a later step fails, the names that appeared before it are taken back, except
// where they replaced an earlier file: the error names those. It ends all Pendings in either case.
func CommitAll(all []*Pending, link *Symlink) (err error) {
	defer func() {
		for _, p := range all {
			err = errors.Join(err, p.Abort())
		}
	}()
	for _, p := range all {
		if p.done {
			return fmt.Errorf("commit %s: %w", p.name, os.ErrClosed)
		}
	}
	for _, p := range all {
		if err := p.seal(); err != nil {
			return fmt.Errorf("commit %s: %w", p.name, err)
		}
	}
	if err := publishAll(all); err != nil {
		return errors.Join(err, takeBack(all))
	}
	if link != nil {
		if err := link.set(); err != nil {
			return errors.Join(fmt.Errorf("symbolic link %s: %w", link.Name, err), takeBack(all))
		}
	}
	for _, p := range all {
		p.end()
	}
	return nil
}

// Seal puts the file on the disk ahead of Commit, which then only gives it its name: so several files can be sealed at once, and
// a lock be taken for the names alone. Nothing may be written to it afterwards. Sealing it again does nothing.
func (p *Pending) Seal() error {
	if p.done {
		return fmt.Errorf("seal %s: %w", p.name, os.ErrClosed)
	}
	if err := p.seal(); err != nil {
		return fmt.Errorf("seal %s: %w", p.name, err)
	}
	return nil
}

// Written tells that nothing more will be written: the disk may begin with the bytes while the caller does something else, and Seal waits
// for less. It is no more than advice.
func (p *Pending) Written() {
	if !p.done && !p.sealed && !p.opts.NoSync {
		_ = p.dir.call("sync_file_range", p.name, func() error { // Seal finds out
			return writeOut(p.file, 0, 0)
		})
	}
}

// WriteOut returns progress for a Ladder that also has the disk begin with what has been copied to f, so that the sync at the end waits for
// less. That is advice: the sync finds out what the disk cannot do. progress may be nil.
func WriteOut(f *os.File, progress func(done, total int64)) func(done, total int64) {
	const step = 8 << 20
	begun := int64(0)
	return func(done, total int64) {
		if done-begun >= step {
			_ = writeOut(f, begun, done-begun)
			begun = done
		}
		if progress != nil {
			progress(done, total)
		}
	}
}

// writeOut begins to write a range of f to the disk (sync_file_range(2)); n 0 is all from off on.
func writeOut(f *os.File, off, n int64) error {
	return unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
}

// seal gives the file its mode and time and puts its bytes on the disk.
func (p *Pending) seal() error {
	if p.sealed {
		return nil
	}
	err := p.chmod(p.opts.Mode)
	if t := p.opts.ModTime; err == nil && !t.IsZero() {
		ts := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: t.Unix(), Nsec: int64(t.Nanosecond())}}
		err = p.dir.call("utimensat", p.name, func() error { return unix.UtimesNanoAt(int(p.file.Fd()), "", ts[:], unix.AT_EMPTY_PATH) })
	}
	if err == nil && !p.opts.NoSync {
		err = p.dir.call("fsync", p.name, func() error { return unix.Fsync(int(p.file.Fd())) })
	}
	p.sealed = err == nil
	return err
}

func publishAll(all []*Pending) error {
	for _, p := range all {
		if err := p.publish(); err != nil {
			return fmt.Errorf("commit %s: %w", p.name, err)
		}
	}
	for i, p := range all {
		if p.opts.NoSync || i > 0 && p.inDirectoryOf(all[i-1]) && !all[i-1].opts.NoSync {
			continue
		}
		if err := p.dir.sync(p.file); err != nil {
			return fmt.Errorf("commit %s: %w", p.name, err)
		}
	}
	return nil
}

// inDirectoryOf tells whether one fsync of the directory serves both.
func (p *Pending) inDirectoryOf(q *Pending) bool {
	a, errA := p.dir.fstat(p.dir.f)
	b, errB := q.dir.fstat(q.dir.f)
	return errA == nil && errB == nil && sameInode(a, b)
}

// takeBack removes the names that have appeared, where nothing was replaced.
func takeBack(all []*Pending) (err error) {
	for _, p := range all {
		switch {
		case p.replaced:
			err = errors.Join(err, fmt.Errorf("%s has been replaced already and stays", p.name))
		case p.published:
			err = errors.Join(err, p.withdraw())
		}
	}
	return err
}

// withdraw removes the name unless it is another's file by now.
func (p *Pending) withdraw() error {
	st, err := p.dir.fstat(p.file)
	if err != nil {
		return err
	}
	ours, err := p.dir.holds(p.name, st)
	if err != nil || !ours {
		return err
	}
	if err := p.dir.unlink(p.name); err != nil {
		return err
	}
	p.published = false
	return p.dir.sync(p.file)
}

// end lets go of everything. The bytes are on the disk by fsync, so that close has no news.
func (p *Pending) end() {
	p.done = true
	p.file.Close()
	p.dir.close()
}

// set makes the link under a temporary name and renames it. Another process may remove that name at any time, for a
// link cannot be locked and holds nothing that must be kept: then it is made again. It may also put its own
// link there, which is as if it had come later.
func (l *Symlink) set() error {
	d, err := openDirectory(kernel{}, l.Dir)
	if err != nil {
		return err
	}
	defer d.close()
	st, err := d.stat(l.Name, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case err == nil && st.Mode&unix.S_IFMT != unix.S_IFLNK:
		return fmt.Errorf("%w by what is not a symbolic link", ErrExists)
	case err != nil && !isAny(err, unix.ENOENT):
		return err
	}
	temp := d.tempName(l.Name, symlinkSlot)
	for {
		err = d.call("symlinkat", temp, func() error { return unix.Symlinkat(l.Target, d.fd(), temp) })
		if err == nil {
			err = d.rename(temp, l.Name)
		} else if isAny(err, unix.EEXIST) {
			if err = d.unlink(temp); err == nil {
				continue
			}
		}
		if !isAny(err, unix.ENOENT) {
			break
		}
		if st, serr := d.fstat(d.f); serr != nil || st.Nlink == 0 {
			break // the directory itself is gone
		}
	}
	if err != nil {
		return err
	}
	return d.sync(d.f)
}
