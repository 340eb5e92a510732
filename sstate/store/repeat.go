//go:build linux

package store

import (
	"context"
	"errors"
	"os"

	"github.com/nsferry/nsferry/idshift/handoff"

	"golang.org/x/sys/unix"
)

// Repeat lets the entry have all the bytes of f, an entry of this store, in place of what is in File. Nobody ever writes to an
// entry, so Commit gives the same file another name; where it has another owner or mode than a new entry would have, or where the
// filesystem or its rules do not allow that, it copies. f stays the caller's, open until Commit.
func (p *Pending) Repeat(f *os.File) { p.of = f }

// Linked tells after Commit whether the entry is another name of what Repeat was told.
func (p *Pending) Linked() bool { return p.of != nil && p.linked }

// link carries out Repeat, and reports whether the entry has its name with that.
func (p *Pending) link() (bool, error) {
	if p.of == nil {
		return false, nil
	}
	alike, err := p.alike()
	if err != nil {
		return false, err
	}
	if alike {
		twin, err := handoff.Adopt(p.dir, p.key.Name(), p.of, handoff.Options{Mode: p.store.fileMode(), Overwrite: handoff.First, ModTime: p.store.opts.Now()})
		if err != nil {
			return false, err
		}
		if err = twin.Commit(); err == nil {
			p.linked = twin.Published()
			return true, p.become(twin)
		}
		for _, refusal := range []error{unix.EMLINK, unix.EPERM, unix.EXDEV, unix.EOPNOTSUPP} {
			alike = alike && !errors.Is(err, refusal)
		}
		if alike {
			return false, err
		}
	}
	_, err = handoff.Transfer(context.Background(), p.file.File(), p.of, handoff.Ladder{})
	return false, err
}

// become puts another file in the place of the one that is not needed.
func (p *Pending) become(twin *handoff.Pending) error {
	err := p.file.Abort()
	p.file = twin
	return err
}

// alike tells whether owner and mode of the file to repeat are what a new entry's would be.
func (p *Pending) alike() (bool, error) {
	var was, would unix.Stat_t
	if err := unix.Fstat(int(p.of.Fd()), &was); err != nil {
		return false, os.NewSyscallError("fstat", err)
	}
	if err := unix.Fstat(int(p.file.File().Fd()), &would); err != nil {
		return false, os.NewSyscallError("fstat", err)
	}
	return was.Uid == would.Uid && was.Gid == would.Gid && was.Mode == unix.S_IFREG|p.store.fileMode(), nil
}
