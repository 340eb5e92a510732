package debs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/idshift/handoff"
	"github.com/nsferry/nsferry/idshift/userns"
)

type fillArgs struct {
	Rest  string
	Names []bytesName
	Dense []bool // of each: no holes
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
	root, err := userns.ReopenDir(in.Files[0], a.Rest)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	dir, err := openArchives(root)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if len(in.Files) != 1+len(a.Names) || len(a.Dense) != len(a.Names) {
		return nil, fmt.Errorf("%d names, %d files", len(a.Names), len(in.Files)-1)
	}
	all := make([]problem, len(a.Names))
	var group errgroup.Group
	group.SetLimit(workers(0))
	for i, name := range a.Names {
		group.Go(func() error {
			all[i] = toProblem(fill(ctx, dir, string(name), in.Files[1+i], a.Dense[i]))
			return nil
		})
	}
	return all, group.Wait()
}}

// fill makes dst, which is empty, a copy of the regular file name in dir. A dense file must have no holes.
func fill(ctx context.Context, dir *os.File, name string, dst *os.File, dense bool) error {
	src, err := openRegular(dir, name)
	if err != nil {
		return err
	}
	defer src.Close()
	if dense {
		if err := refuseHoles(src); err != nil {
			return err
		}
	}
	// A change that is none of the bytes, as another link to the file, is no reason to give up: what came out is checked anyway.
	for try := 0; ; try++ {
		_, err := handoff.Transfer(ctx, dst, src, handoff.Ladder{})
		if !errors.Is(err, handoff.ErrChanged) || try == 3 {
			return err
		}
		if err := unix.Ftruncate(int(dst.Fd()), 0); err != nil {
			return &fs.PathError{Op: "ftruncate", Path: name, Err: err}
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
