//go:build linux

package handoff

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Method is a rung of the ladder: a way to move bytes from file to file.
type Method string

const (
	Reflink Method = "reflink"         // FICLONE: the filesystem shares the blocks
	Range   Method = "copy_file_range" // the kernel copies, segment of data by segment of data
	Copy    Method = "copy"            // read and write, segment by segment
)

// Ladder says how Transfer goes about it. The zero value tries everything.
type Ladder struct {
	Top      Method                  // the first rung to try; "" means Reflink
	Progress func(done, total int64) // called after every chunk with bytes of the logical size; may be nil
	// See, if not nil, is shown the data that is copied, in order and without the holes; the bytes are the ladder's again when
	// it returns. The kernel's own copying shows nobody anything, so that Range is left out then. A reflink shows nothing.
	See func(off int64, data []byte) error
	// Buffer is what data go through that the kernel does not copy by itself. One is made where it is empty; who copies many
	// small files spares making many.
	Buffer []byte

	kernel kernel
}

// Result says what Transfer did.
type Result struct {
	Method Method // the rung that finished
	Bytes  int64  // logical size of the file
	Holes  int64  // bytes of it that are holes, by SEEK_HOLE; 0 where the filesystem of the source cannot tell
}

// ErrChanged is the error of a source that changed while it was read. What came out is no copy of any state of it.
var ErrChanged = errors.New("the file changed while it was copied")

// Transfer makes the empty regular file dst a copy of the whole regular file src, holes kept and size exact. It takes the
// first rung of the ladder that both filesystems know. File offsets are neither used nor kept. Only the answers that
// mean "not here" lead down (EINVAL, EXDEV, EOPNOTSUPP, ENOTTY, ENOSYS, and EPERM, which is what seccomp filters say);
// EIO and ENOSPC do not. After an error dst holds an unfinished copy. ctx is looked at between chunks of at most 16 MiB.
func Transfer(ctx context.Context, dst, src *os.File, l Ladder) (Result, error) {
	defer runtime.KeepAlive(src)
	defer runtime.KeepAlive(dst)
	res, err := l.transfer(ctx, dst, src)
	if err != nil {
		return Result{}, fmt.Errorf("copy %s: %w", src.Name(), err)
	}
	return res, nil
}

// Scan shows see the data of the whole regular file src as Ladder.See is shown it, and copies nothing. The Result's Method is "".
func Scan(ctx context.Context, src *os.File, see func(off int64, data []byte) error, progress func(done, total int64)) (Result, error) {
	defer runtime.KeepAlive(src)
	c := copier{Ladder: Ladder{See: see, Progress: progress}, src: src, method: Copy}
	before, err := c.kernel.fstat(src)
	if err == nil && before.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errors.New("it is not a regular file")
	}
	if err == nil {
		c.size = before.Size
		err = c.unchanged(src, before, func() error { return c.run(ctx) })
	}
	if err != nil {
		return Result{}, fmt.Errorf("read %s: %w", src.Name(), err)
	}
	return Result{Bytes: c.size, Holes: c.holes}, nil
}

func (l Ladder) transfer(ctx context.Context, dst, src *os.File) (res Result, err error) {
	before, err := l.endpoints(dst, src)
	if err != nil {
		return Result{}, err
	}
	err = l.unchanged(src, before, func() error {
		res, err = l.climb(ctx, dst, src, before.Size)
		return err
	})
	if err != nil {
		return Result{}, err
	}
	made, err := l.kernel.fstat(dst)
	if err == nil && made.Size != before.Size {
		err = fmt.Errorf("%s came out %d bytes long by %s, not %d", dst.Name(), made.Size, res.Method, before.Size)
	}
	return res, err
}

// unchanged runs read, which reads src, and answers ErrChanged when src is no longer as before.
func (l Ladder) unchanged(src *os.File, before unix.Stat_t, read func() error) error {
	settle(before.Ctim)
	err := read()
	after, serr := l.kernel.fstat(src)
	if serr == nil && (after.Size != before.Size || after.Ctim != before.Ctim) {
		return errors.Join(ErrChanged, err)
	}
	return errors.Join(err, serr)
}

// settle waits until the clock that filesystems stamp by has moved past ctime, so that any later change shows in it. That
// takes one tick, 10 ms at most, and only with a file that was written just now. A ctime in the future, of
// another machine's clock, is not waited for.
func settle(ctime unix.Timespec) {
	for range 20 {
		var now unix.Timespec
		if unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now) != nil || now.Nano() > ctime.Nano() {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// endpoints checks both files and returns the state of src.
func (l Ladder) endpoints(dst, src *os.File) (unix.Stat_t, error) {
	from, err := l.kernel.fstat(src)
	if err != nil {
		return from, err
	}
	to, err := l.kernel.fstat(dst)
	switch {
	case err != nil:
		return from, err
	case from.Mode&unix.S_IFMT != unix.S_IFREG:
		return from, fmt.Errorf("%s is not a regular file", src.Name())
	case to.Mode&unix.S_IFMT != unix.S_IFREG:
		return from, fmt.Errorf("%s is not a regular file", dst.Name())
	case to.Size != 0:
		return from, fmt.Errorf("%s is not empty", dst.Name())
	case sameInode(from, to):
		return from, fmt.Errorf("%s is to be copied onto itself", src.Name())
	}
	return from, nil
}

// climb walks the ladder from its top.
func (l Ladder) climb(ctx context.Context, dst, src *os.File, size int64) (Result, error) {
	c := copier{Ladder: l, dst: dst, src: src, size: size, method: l.Top}
	switch l.Top {
	case "", Reflink:
		if err := ctx.Err(); err != nil {
			return Result{}, err
		}
		err := l.kernel.call("FICLONE", dst.Name(), func() error {
			return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
		})
		if err == nil {
			return c.cloned()
		}
		if !notHere(err) {
			return Result{}, err
		}
		c.method = Range
	case Range, Copy:
	default:
		return Result{}, fmt.Errorf("no such way to copy: %q", l.Top)
	}
	if l.See != nil {
		c.method = Copy
	}
	return c.copied(ctx)
}

// notHere tells errors that mean that this way is closed from those that mean that the data are lost.
func notHere(err error) bool {
	return isAny(err, unix.EINVAL, unix.EXDEV, unix.EOPNOTSUPP, unix.ENOTTY, unix.ENOSYS, unix.EPERM)
}
