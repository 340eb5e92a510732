package debs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/idshift/handoff"
	"github.com/nsferry/nsferry/idshift/userns"
)

type fillArgs struct {
	Rest  string
	Files []source
}

// source is a file of a rootfs's archives as it was listed.
type source struct {
	Name  bytesName
	Size  int64
	Dense bool // it must have no holes
}

// problem is an error on its way through JSON. The zero value is none.
type problem struct {
	Text  string
	Errno syscall.Errno
}

func toProblem(err error) problem {
	if err == nil {
		return problem{}
	}
	p := problem{Text: err.Error()}
	errors.As(err, &p.Errno)
	return p
}

func (p problem) err() error {
	switch {
	case p.Text == "":
		return nil
	case p.Errno == 0:
		return errors.New(p.Text)
	}
	return &told{p.Text, p.Errno}
}

// told is an error of the other side.
type told struct {
	text  string
	errno syscall.Errno
}

func (e *told) Error() string { return e.text }
func (e *told) Unwrap() error { return e.errno }

// fillHalf copies files out of a rootfs's archives into open files of the caller's: the rootfs comes first, the outputs after
// it. It answers with one problem for each.
var fillHalf = userns.Half[fillArgs, []problem]{Name: "debs-fill", Func: func(ctx context.Context, in *userns.Inner, a fillArgs) ([]problem, error) {
	dir, err := archivesInside(in, a.Rest)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if len(in.Files) != 1+len(a.Files) {
		return nil, fmt.Errorf("%d files, %d copies", len(a.Files), len(in.Files)-1)
	}
	all := make([]problem, len(a.Files))
	err = crew(ctx, workers(0), len(all), func(ctx context.Context, i int, buf []byte) error {
		all[i] = toProblem(fill(ctx, dir, a.Files[i], in.Files[1+i], buf, nil))
		return nil
	})
	return all, err
}}

// fill makes dst, which is empty, a copy of the regular file s in dir. It must have the size that was listed: somebody may put one of
// terabytes in its place. sum, if not nil, becomes the digest of what is in dst.
func fill(ctx context.Context, dir *os.File, s source, dst *os.File, buf []byte, sum *Sum) error {
	src, err := openRegular(dir, string(s.Name))
	if err != nil {
		return err
	}
	defer src.Close()
	st, err := src.Stat()
	if err == nil && st.Size() != s.Size {
		err = resized(st.Size(), s.Size)
	}
	if err != nil {
		return err
	}
	if s.Dense {
		if err := refuseHoles(src); err != nil {
			return err
		}
	}
	if sum != nil {
		sum.Size = s.Size
	}
	_, err = transfer(ctx, dst, src, handoff.Ladder{Buffer: buf}, sum)
	return err
}

// resized is the error of a file that is no longer of the size that it was listed with.
func resized(has, had int64) error {
	return fmt.Errorf("it had %d bytes when it was listed, and has %d", had, has)
}

// transfer copies src to dst, which is empty. sum, if not nil, has the size that src must have, and becomes the digest of what is in dst: of the bytes that were written there, from a
// buffer that nobody else sees, or, where blocks are shared, of what dst has when read. A change of src that is none of the bytes, as another link
// to it, is no reason to give up: then it is copied again.
func transfer(ctx context.Context, dst, src *os.File, l handoff.Ladder, sum *Sum) (handoff.Method, error) {
	for try := 0; ; try++ {
		var seen *summer
		if sum != nil {
			seen = newSummer(sum.Size)
			l.See = seen.see
		}
		res, err := handoff.Transfer(ctx, dst, src, l)
		switch {
		case err == nil && sum == nil:
			return res.Method, nil
		case err == nil && res.Bytes != sum.Size:
			return "", resized(res.Bytes, sum.Size)
		case err == nil && res.Method == handoff.Reflink:
			*sum, err = digest(dst, l.Buffer)
			return res.Method, err
		case err == nil:
			*sum = seen.sum()
			return res.Method, nil
		case !errors.Is(err, handoff.ErrChanged) || try == 3:
			return "", err
		}
		if err := unix.Ftruncate(int(dst.Fd()), 0); err != nil {
			return "", &fs.PathError{Op: "ftruncate", Path: dst.Name(), Err: err}
		}
	}
}

// refuseHoles refuses a sparse file. Where the filesystem cannot tell, lseek(2) says that the hole is at the end.
func refuseHoles(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	at, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_HOLE)
	if err == nil && at < st.Size() {
		return fmt.Errorf("%w: sparse, with a hole at byte %d", errDamaged, at)
	}
	return nil
}
