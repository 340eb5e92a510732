//go:build linux

package handoff

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// publish gives the sealed file its name by the policy.
func (p *Pending) publish() error {
	for {
		err := p.nameNew()
		if !isAny(err, unix.EEXIST) {
			return err
		}
		switch p.opts.Overwrite {
		case Exclusive:
			return ErrExists
		case Replace:
			return p.replace()
		}
		if gone, err := p.yield(); !gone {
			return err
		}
	}
}

// nameNew gives the file its name where that is free, and answers EEXIST where it is not.
func (p *Pending) nameNew() error {
	var err error
	if p.temp == "" {
		err = p.dir.linkFile(p.file, p.name)
	} else if err = p.dir.renameNew(p.temp, p.name); err == nil {
		p.temp = ""
	}
	if err != nil {
		return err
	}
	p.published = true
	if p.opts.Overwrite == Replace {
		return nil // another Replace may have come later already, and rightly
	}
	return p.check(p.name)
}

// check makes sure that name is the file that was written.
func (p *Pending) check(name string) error {
	st, err := p.dir.fstat(p.file)
	if err != nil {
		return err
	}
	ours, err := p.dir.holds(name, st)
	if err == nil && !ours {
		err = fmt.Errorf("%s was taken away or replaced by another process at once", name)
	}
	return err
}

// replace puts the file in the place of what is at the name, in one step. It goes by a temporary name because
// linkat(2) never replaces.
func (p *Pending) replace() error {
	if p.temp == "" {
		temp, err := p.dir.linkTemp(p.file, p.name)
		if err != nil {
			return err
		}
		p.temp = temp
	}
	if err := p.check(p.temp); err != nil {
		return err
	}
	if err := p.dir.rename(p.temp, p.name); err != nil {
		return err
	}
	p.temp = ""
	p.published, p.replaced = true, true
	return nil
}

// yield leaves the name to the file that is there, or tells that it is gone again. A dangling symbolic link, which is
// what shared caches leave behind when their mirror goes, is replaced; anything that is not a file is an error.
func (p *Pending) yield() (gone bool, err error) {
	st, err := p.dir.stat(p.name, 0)
	if isAny(err, unix.ENOENT) {
		_, err = p.dir.stat(p.name, unix.AT_SYMLINK_NOFOLLOW)
		if isAny(err, unix.ENOENT) {
			return true, nil
		}
		if err == nil {
			err = p.replace()
		}
		return false, err
	}
	if err != nil {
		return false, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return false, fmt.Errorf("%w by what is not a regular file", ErrExists)
	}
	if p.temp != "" {
		return false, p.dropTemp()
	}
	return false, nil
}
