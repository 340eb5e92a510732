//go:build linux

package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nsferry/nsferry/idshift/handoff"
	"github.com/nsferry/nsferry/sstate/lock"

	"golang.org/x/sys/unix"
)

// ErrPresent says that the store has the entry already: the first writer wins.
var ErrPresent = errors.New("the store has this entry already")

// Pending is an entry that is being written. It is for one goroutine.
type Pending struct {
	store *Store
	key   Key
	lock  *lock.Lock
	dir   *os.File
	file  *handoff.Pending
	// See Repeat.
	of     *os.File
	linked bool
}

// Put begins the entry of key. It waits, until ctx is done, while another process writes the same one; when there is a
// whole entry then, the error is ErrPresent. An odd one is moved away. The caller defers Abort.
func (s *Store) Put(ctx context.Context, key Key) (_ *Pending, err error) {
	if err := s.makeDirs(key.dir()); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	p := &Pending{store: s, key: key}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Abort())
		}
	}()
	if p.lock, err = s.lockFile(ctx, s.path(key.Path())+".lock"); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if err := s.vacate(ctx, key); err != nil {
		return nil, err
	}
	if p.dir, err = os.Open(s.path(key.dir())); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	p.file, err = handoff.NewPending(p.dir, key.Name(), handoff.Options{Mode: s.fileMode(), Overwrite: handoff.First})
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", s.dir, err)
	}
	return p, nil
}

// vacate makes sure that nothing is under the key: a whole entry is ErrPresent, an odd one that stays where it is an error.
func (s *Store) vacate(ctx context.Context, key Key) error {
	o, err := s.Get(ctx, key)
	if err == nil {
		return errors.Join(ErrPresent, o.Close())
	}
	var miss *MissError
	if !errors.As(err, &miss) {
		return err
	}
	st, err := os.Stat(s.path(key.Path())) // a dangling symbolic link counts as nothing
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("store: %w", err)
	default:
		return fmt.Errorf("store: %s is in the way (%s): %s", s.path(key.Path()), st.Mode(), miss.Reason)
	}
	// A signature that an evicted entry has left would be of no use for this one.
	if err := os.Remove(s.path(key.Path()) + SignatureSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// File is what the entry is written to; it is open for reading too and stays the Pending's.
func (p *Pending) File() *os.File { return p.file.File() }

// Lock is the lock on the key. A process that inherits it keeps other writers away as long as it lives.
func (p *Pending) Lock() *os.File { return p.lock.File() }

// Commit puts the entry on the disk and gives it its name, which is on the disk too when Commit returns. Should another
// program have put an entry there meanwhile, that one stays, and Published is false.
func (p *Pending) Commit() error {
	linked, err := p.link()
	if err == nil && !linked {
		err = p.file.Commit()
	}
	if err != nil {
		return fmt.Errorf("store %s: %w", p.store.dir, err)
	}
	for at := p.dir.Name(); at != p.store.dir; {
		at = filepath.Dir(at)
		if err := syncDir(at); err != nil {
			return fmt.Errorf("store: %w", err)
		}
	}
	return nil
}

// Published tells, after Commit, whether the entry is this one.
func (p *Pending) Published() bool { return p.file.Published() }

// Attach puts a small file with the content beside the object, with suffix behind its name, on the disk.
func (p *Pending) Attach(suffix string, content []byte) error {
	return p.store.attach(p.key, suffix, content)
}

// Attach is Pending's Attach for an entry that is there.
func (o *Object) Attach(suffix string, content []byte) error {
	return o.store.attach(o.Key, suffix, content)
}

// Attached returns what is attached to the object under suffix, up to most bytes; fs.ErrNotExist when there is nothing.
func (o *Object) Attached(suffix string, most int64) ([]byte, error) {
	f, err := os.OpenFile(o.path+suffix, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(content)) > most {
		err = fmt.Errorf("%s is larger than %d bytes", f.Name(), most)
	}
	return content, errors.Join(err, f.Close())
}

func (s *Store) attach(key Key, suffix string, content []byte) error {
	dir, err := os.Open(s.path(key.dir()))
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	defer dir.Close()
	f, err := handoff.NewPending(dir, key.Name()+suffix, handoff.Options{Mode: s.fileMode(), Overwrite: handoff.Replace})
	if err != nil {
		return fmt.Errorf("store %s: %w", s.dir, err)
	}
	_, err = f.File().Write(content)
	if err == nil {
		err = f.Commit()
	}
	return errors.Join(err, f.Abort())
}

// Abort drops what is not committed and lets go of the key. It can be deferred.
func (p *Pending) Abort() (err error) {
	if p.file != nil {
		err = p.file.Abort()
	}
	if p.dir != nil {
		err = errors.Join(err, p.dir.Close())
		p.dir = nil
	}
	if p.lock != nil {
		err = errors.Join(err, p.lock.Release())
		p.lock = nil
	}
	return err
}

// syncDir puts the names in a directory on the disk, as far as the caller may open it.
func syncDir(path string) error {
	d, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, unix.EINVAL) { // the filesystem has no fsync of directories
		err = nil
	}
	return errors.Join(err, d.Close())
}
