//go:build linux

package handoff

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Alone tells whether nobody else has the file open: an error when somebody has, with whom it would change after it has got its
// name. It asks for a lease (fcntl(2), F_SETLEASE), which only the file's owner may, and gives it back: a write lease for a file that is
// open for writing here, so that this has to be the only opening of it; else a read lease, for which there may be readers.
func Alone(f *os.File) error {
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	kind := unix.F_RDLCK
	if flags&unix.O_ACCMODE != unix.O_RDONLY {
		kind = unix.F_WRLCK
	}
	if err == nil {
		if _, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, kind); err == nil {
			_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
		}
	}
	if isAny(err, unix.EAGAIN) {
		err = fmt.Errorf("another process has it open, and could change it later: %w", unix.ETXTBSY)
	}
	if err != nil {
		return &os.PathError{Op: "lease", Path: f.Name(), Err: err}
	}
	return nil
}

// Reopen opens the file once more, for foreign code to write to. What that keeps of it, Reclaim finds. The caller closes it.
// Who holds the descriptor can also open it by /dev/fd, whatever his ids are: nobody else can get at a file without a name.
func (p *Pending) Reopen() (*os.File, error) {
	f, err := p.dir.openat("open", unix.AT_FDCWD, procPath(p.file), p.name, unix.O_RDWR, 0)
	if err == nil && p.temp == "" {
		if err = p.chmod(0o666); err != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return f, err
}

// Reclaim takes back a file that foreign code could write to and that may have belonged to it: nobody else may have it open or
// have given it a name, and what that code gave it of rights is taken off. The caller has closed what Reopen returned.
func (p *Pending) Reclaim() error {
	err := p.reclaim()
	if err != nil {
		return fmt.Errorf("pending file %s: %w", p.name, err)
	}
	return nil
}

func (p *Pending) reclaim() error {
	if err := Alone(p.file); err != nil {
		return err
	}
	st, err := p.dir.fstat(p.file)
	if err != nil {
		return err
	}
	names := uint64(0)
	if p.temp != "" {
		names = 1
	}
	if uint64(st.Nlink) != names {
		return errors.New("it was given another name")
	}
	// A change of size, even to the same, takes off what only root may: capabilities (capabilities(7)).
	err = p.dir.call("ftruncate", p.name, func() error { return unix.Ftruncate(int(p.file.Fd()), st.Size) })
	if err != nil {
		return err
	}
	return p.strip()
}
