package deploy

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/idshift/handoff"
	"github.com/nsferry/nsferry/idshift/userns"
)

// maxGiven bounds the files of one Give: all are passed in at once.
const maxGiven = 200

// former is what a file was before it was given.
type former struct {
	UID, GID uint32
	Mode     uint32
	MTime    unix.Timespec
	Xattrs   []tree.Xattr // those that mean rights
}

type giveArgs struct {
	UID, GID uint32 // the caller's, as the half sees them
	As       userns.FSIDs
	Former   []former // not nil: take the files back to this
}

// giveHalf gets open files. It makes all of them the caller's, 0600 and without attributes that mean rights, and returns what
// they were; or it undoes that.
var giveHalf = userns.Half[giveArgs, []former]{Name: "deploy give", Func: func(ctx context.Context, in *userns.Inner, a giveArgs) (was []former, err error) {
	if a.Former != nil {
		for i, f := range in.Files {
			rerr := oneName(int(f.Fd()))
			if rerr == nil {
				rerr = a.Former[i].restore(f, a.As)
			}
			err = errors.Join(err, rerr)
		}
		return nil, err
	}
	for _, f := range in.Files {
		w, gerr := a.give(f)
		if err = gerr; err == nil {
			was = append(was, w)
			err = ctx.Err()
		}
		if err != nil {
			break
		}
	}
	if err != nil {
		for i, w := range was {
			err = errors.Join(err, w.restore(in.Files[i], a.As))
		}
	}
	return was, err
}}

func (a *giveArgs) give(f *os.File) (was former, err error) {
	if was, err = formerOf(f); err != nil {
		return was, err
	}
	fd := int(f.Fd())
	err = a.As.Do(func() error { return unix.Fchown(fd, int(a.UID), int(a.GID)) })
	if err != nil {
		return was, &os.PathError{Op: "fchown", Path: f.Name(), Err: err}
	}
	for _, x := range was.Xattrs {
		err = a.As.Do(func() error { return unix.Fremovexattr(fd, x.Key) })
		if err != nil && !errors.Is(err, unix.ENODATA) { // chown has taken it
			break
		}
		err = nil
	}
	if err == nil {
		err = a.As.Do(func() error { return unix.Fchmod(fd, 0o600) })
	}
	if err == nil { // now that inner root cannot make another name any more
		err = oneName(fd)
	}
	if err != nil {
		return was, errors.Join(&os.PathError{Op: "give", Path: f.Name(), Err: err}, was.restore(f, a.As))
	}
	return was, nil
}

// oneName refuses a file with more names than one: those that stay inside would be of a file of the caller's.
func oneName(fd int) error {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	if err == nil && st.Nlink != 1 {
		err = fmt.Errorf("it has %d names (hard links); without --give it is copied", st.Nlink)
	}
	return err
}

// formerOf reads what give changes.
func formerOf(f *os.File) (was former, err error) {
	fd := int(f.Fd())
	if err := oneName(fd); err != nil {
		return was, fmt.Errorf("%s: %w", f.Name(), err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return was, &os.PathError{Op: "fstat", Path: f.Name(), Err: err}
	}
	was = former{UID: st.Uid, GID: st.Gid, Mode: st.Mode & 0o7777, MTime: st.Mtim}
	for _, key := range []string{tree.XattrAccess, tree.XattrCapability} {
		value := make([]byte, 64<<10) // XATTR_SIZE_MAX (limits.h)
		n, err := unix.Fgetxattr(fd, key, value)
		switch {
		case err == nil:
			was.Xattrs = append(was.Xattrs, tree.Xattr{Key: key, Value: value[:n]})
		case !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.EOPNOTSUPP):
			return was, &os.PathError{Op: "getxattr " + key, Path: f.Name(), Err: err}
		}
	}
	return was, nil
}

// restore makes the file what it was, as far as it can: owner, mode, attributes, time.
func (w *former) restore(f *os.File, as userns.FSIDs) error {
	fd := int(f.Fd())
	steps := []func() error{
		func() error { return unix.Fchown(fd, int(w.UID), int(w.GID)) },
		func() error { return unix.Fchmod(fd, w.Mode) },
	}
	for _, x := range w.Xattrs {
		steps = append(steps, func() error { return unix.Fsetxattr(fd, x.Key, x.Value, 0) })
	}
	steps = append(steps, func() error {
		return unix.UtimesNanoAt(fd, "", []unix.Timespec{{Nsec: unix.UTIME_OMIT}, w.MTime}, unix.AT_EMPTY_PATH)
	})
	for _, step := range steps {
		if err := as.Do(step); err != nil {
			return &os.PathError{Op: "undo", Path: f.Name(), Err: err}
		}
	}
	return nil
}

// give fills the outputs, whose files are the sources themselves. After an error these are again what they were, where they
// were.
func (s *search) give(ctx context.Context, e *userns.Env, set *outputs, o Options) (sum Summary, err error) {
	if len(s.found) > maxGiven {
		return sum, fmt.Errorf("%d files are more than the %d that can be given at once", len(s.found), maxGiven)
	}
	a := giveArgs{As: e.CallerFSIDs()}
	a.UID, a.GID = a.As.UID, a.As.GID
	if e.Direct {
		a.UID, a.GID = e.Caller.UID, e.Caller.GID
	}
	if a.Former, err = giveHalf.Run(ctx, e, a, nil, s.files()...); err != nil {
		return sum, err
	}
	if err = s.settle(ctx, set, o); err == nil {
		sum, err = set.commit(ctx)
	}
	if err != nil { // perhaps because it was cancelled: cleaning up is not
		_, uerr := giveHalf.Run(context.WithoutCancel(ctx), e, a, nil, s.files()...)
		return sum, errors.Join(err, uerr)
	}
	if err := s.drop(context.WithoutCancel(ctx), e); err != nil {
		return sum, fmt.Errorf("everything is deployed, but: %w", err)
	}
	return sum, nil
}

// settle makes sure that nobody can write to the files any more, and sums them.
func (s *search) settle(ctx context.Context, set *outputs, o Options) error {
	for i, f := range s.found {
		if err := handoff.Alone(f.file); err != nil {
			return err
		}
		err := set.fill(ctx, i, func(out *os.File, w *watcher) (d Delivered, err error) {
			st, err := out.Stat() // it may have grown until now
			if err == nil {
				err = o.Expect.checkSize(st.Size())
			}
			if err != nil {
				return d, err
			}
			res := handoff.Result{Bytes: st.Size()}
			if eye := w.eye(ctx); eye != nil {
				if res, err = handoff.Scan(ctx, out, eye, o.Progress); err != nil {
					return d, err
				}
			}
			d = Delivered{Method: "give", Bytes: res.Bytes, Holes: res.Holes, Stored: res.Bytes}
			d.SHA256, err = w.finish(ctx, res.Bytes)
			return d, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

type dropArgs struct {
	openArgs
	Found []dropped
}

// dropped is a name that shall go, if it is still that of the file.
type dropped struct {
	found
	Dev, Ino uint64
}

// dropHalf gets the directories that the sources were below, and removes their old names.
var dropHalf = userns.Half[dropArgs, int]{Name: "deploy drop", Func: func(ctx context.Context, in *userns.Inner, a dropArgs) (n int, err error) {
	for _, d := range a.Found {
		if derr := a.drop(in, d); derr != nil {
			err = errors.Join(err, derr)
			continue
		}
		n++
	}
	return n, err
}}

func (a *dropArgs) drop(in *userns.Inner, d dropped) error {
	w := a.Wants[d.Want]
	s, err := openSite(in.Files[w.Site], string(w.Rest), a.InRoot, a.As)
	if err != nil {
		return err
	}
	defer s.close()
	parent, base, err := s.parent(string(d.Path))
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	var st unix.Stat_t
	err = a.As.Do(func() error { return unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW) })
	if err == nil && (st.Dev != d.Dev || st.Ino != d.Ino) {
		err = errors.New("another process has put something else there; the old name is somewhere else")
	}
	if err == nil {
		err = a.As.Do(func() error { return unix.Unlinkat(parent, base, 0) })
	}
	if err != nil {
		return &os.PathError{Op: "unlink", Path: s.name(string(d.Path)), Err: err}
	}
	return nil
}

// drop removes the old names.
func (s *search) drop(ctx context.Context, e *userns.Env) error {
	a := dropArgs{openArgs: s.args}
	for _, f := range s.found {
		var st unix.Stat_t
		if err := unix.Fstat(int(f.file.Fd()), &st); err != nil {
			return &os.PathError{Op: "fstat", Path: f.path, Err: err}
		}
		a.Found = append(a.Found, dropped{f.found, st.Dev, st.Ino})
	}
	_, err := dropHalf.Run(ctx, e, a, nil, s.dirs...)
	return err
}
