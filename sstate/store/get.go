//go:build linux

package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"time"

	"github.com/nsferry/nsferry/archive/zframe"
	"github.com/nsferry/nsferry/sstate/lock"

	"golang.org/x/sys/unix"
)

// ErrMiss is what every MissError is.
var ErrMiss = errors.New("not in the store")

// ExitMiss is the exit status of a miss.
const ExitMiss = 3

// MissError says that there is no usable entry under a key, and why.
type MissError struct {
	Key    Key
	Reason string // "there is no such entry", or what is odd about the one that is there
	Moved  string // where the odd entry was moved to, or empty
}

// Error names key, reason, and what became of the entry.
func (e *MissError) Error() string {
	text := fmt.Sprintf("%s: %v: %s", e.Key, ErrMiss, e.Reason)
	if e.Moved != "" {
		text += "; moved to " + e.Moved
	}
	return text
}

// Is makes every MissError an ErrMiss.
func (e *MissError) Is(target error) bool { return target == ErrMiss }

// ExitCode is that of a miss.
func (e *MissError) ExitCode() int { return ExitMiss }

// Object is an entry that is open for reading. While it is, a shared lock on its file keeps the store's gc from it; the
// lock is the open file's, so that a process which inherits File holds it too.
type Object struct {
	Key    Key
	File   *os.File
	Size   int64
	Frames *zframe.File // nil for an archive of another make

	store *Store
	path  string
	peek  bool // nothing is moved away on the way in
}

// Close lets go of the entry.
func (o *Object) Close() error { return o.File.Close() }

// touchEvery is how old the last use may look before it is noted anew.
const touchEvery = time.Hour

// Get opens the entry of key, and notes that it is used. Whatever keeps it from being used is a *MissError; the only other
// error is that ctx is done.
func (s *Store) Get(ctx context.Context, key Key) (*Object, error) {
	o, err := s.open(ctx, key, false)
	if err != nil {
		return nil, err
	}
	if st, err := o.File.Stat(); err == nil && s.opts.Now().Sub(st.ModTime()) > touchEvery {
		// In a store that is read-only or another user's this may fail; then its owner has to see to it that used entries stay.
		_ = unix.UtimesNanoAt(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(int(o.File.Fd())), nil, 0)
	}
	return o, nil
}

// Peek is Get for who only looks: no use is noted, and an odd entry stays where it is.
func (s *Store) Peek(ctx context.Context, key Key) (*Object, error) { return s.open(ctx, key, true) }

func (s *Store) open(ctx context.Context, key Key, peek bool) (*Object, error) {
	path := s.path(key.Path())
	for {
		f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, s.unopened(key, path, err)
		}
		o := &Object{Key: key, File: f, store: s, path: path, peek: peek}
		again, err := o.admit(ctx)
		if err == nil && !again {
			return o, nil
		}
		f.Close()
		if err != nil {
			return nil, err
		}
	}
}

// unopened is the miss of an entry that cannot be opened.
func (s *Store) unopened(key Key, path string, err error) error {
	miss := &MissError{Key: key, Reason: "the entry cannot be opened: " + err.Error()}
	if errors.Is(err, fs.ErrNotExist) {
		miss.Reason = "there is no such entry"
		if to, lerr := os.Readlink(path); lerr == nil {
			miss.Reason = "the entry is a symbolic link to " + to + ", which is not there"
		}
	}
	return miss
}

// admit locks the file and looks whether it can be an entry. It asks for another round when the name has become another
// file meanwhile.
func (o *Object) admit(ctx context.Context) (again bool, err error) {
	st, err := o.File.Stat()
	switch {
	case err != nil:
		return false, o.miss("stat: " + err.Error())
	case !st.Mode().IsRegular():
		return false, o.odd("the entry is no regular file")
	}
	if err := lock.Wait(ctx, o.File, lock.Options{Shared: true, Note: o.store.opts.Note}); err != nil {
		if ctx.Err() != nil {
			return false, err
		}
		return false, o.miss("the entry cannot be locked: " + err.Error())
	}
	same, err := lock.Names(o.path, o.File)
	if err != nil {
		return false, o.miss(err.Error())
	}
	if !same {
		return true, nil
	}
	if st, err = o.File.Stat(); err != nil {
		return false, o.miss(err.Error())
	}
	if o.Size = st.Size(); o.Size == 0 {
		return false, o.odd("the entry is empty")
	}
	return false, o.recognize()
}

// recognize looks at the beginning and the end of the file.
func (o *Object) recognize() error {
	frames, err := zframe.Open(o.File, o.Size)
	if err == nil {
		o.Frames = frames
		return nil
	}
	bad := (*zframe.CorruptError)(nil)
	switch {
	case errors.Is(err, zframe.ErrNotSeekable):
		return o.foreign()
	case errors.Is(err, zframe.ErrTruncated), errors.As(err, &bad):
		return o.odd(err.Error())
	}
	return o.miss("the entry cannot be read: " + err.Error())
}

// foreign looks whether the file is an archive of another make.
func (o *Object) foreign() error {
	in, _, err := zframe.Decompress(io.NewSectionReader(o.File, 0, o.Size), zframe.Options{Workers: 1})
	if err == nil {
		_, err = io.CopyN(io.Discard, in, 512)
		err = errors.Join(err, in.Close())
	}
	if err != nil {
		return o.odd("the entry is no archive: " + err.Error())
	}
	return nil
}

// odd is the miss of an entry that will never be of use.
func (o *Object) odd(reason string) error {
	if o.peek {
		return o.miss(reason)
	}
	return o.Quarantine(reason)
}

func (o *Object) miss(reason string) error { return &MissError{Key: o.Key, Reason: reason} }
