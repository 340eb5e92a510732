//go:build linux

package handoff

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Chunk sizes in bytes: what is moved between two looks at the context.
const (
	rangeChunk = 16 << 20
	copyChunk  = 256 << 10 // what a core's own cache holds, so that who is shown the data does not fetch them a second time
)

// copier copies the data segments of src to the same offsets of dst, or, where dst is nil, only shows them.
type copier struct {
	Ladder
	dst, src *os.File
	size     int64
	method   Method // Range until the kernel refuses, then Copy
	holes    int64
}

// run goes over what is data and leaves out what is a hole.
func (c *copier) run(ctx context.Context) error {
	for off := int64(0); off < c.size; {
		start, end, err := c.segment(off)
		if err != nil {
			return err
		}
		c.holes += start - off
		for off = start; off < end; {
			if err := ctx.Err(); err != nil {
				return err
			}
			n, err := c.step(off, end-off)
			if err != nil {
				return err
			}
			off += n
			c.progress(off)
		}
	}
	return nil
}

// copied runs and then sets the size, which makes the hole at the end, if there is one.
func (c *copier) copied(ctx context.Context) (Result, error) {
	if err := c.run(ctx); err != nil {
		return Result{}, err
	}
	err := c.kernel.call("ftruncate", c.dst.Name(), func() error { return unix.Ftruncate(int(c.dst.Fd()), c.size) })
	if err != nil {
		return Result{}, err
	}
	c.progress(c.size)
	return Result{Method: c.method, Bytes: c.size, Holes: c.holes}, nil
}

// cloned is the result of a reflink; its holes are counted, for the summary.
func (c *copier) cloned() (Result, error) {
	for off := int64(0); off < c.size; {
		start, end, err := c.segment(off)
		if err != nil {
			return Result{}, err
		}
		c.holes += start - off
		off = end
	}
	c.progress(c.size)
	return Result{Method: Reflink, Bytes: c.size, Holes: c.holes}, nil
}

// segment finds the first data at or after off: [start, end). Both are the size when only a hole follows. Where
// the filesystem knows no holes (EINVAL, lseek(2)) all the rest is data.
func (c *copier) segment(off int64) (start, end int64, err error) {
	start, err = c.seek("SEEK_DATA", off, unix.SEEK_DATA)
	switch {
	case isAny(err, unix.ENXIO):
		return c.size, c.size, nil
	case isAny(err, unix.EINVAL, unix.EOPNOTSUPP):
		return off, c.size, nil
	case err != nil:
		return 0, 0, err
	}
	end, err = c.seek("SEEK_HOLE", start, unix.SEEK_HOLE)
	if isAny(err, unix.ENXIO) { // the file was cut meanwhile
		return 0, 0, ErrChanged
	}
	// A file that grows is stopped at the size it had; the check of its state afterwards reports it.
	return min(start, c.size), min(end, c.size), err
}

func (c *copier) seek(op string, off int64, whence int) (at int64, err error) {
	err = c.kernel.call(op, c.src.Name(), func() error {
		at, err = unix.Seek(int(c.src.Fd()), off, whence)
		return err
	})
	return at, err
}

// step copies at least one and at most n bytes at off.
func (c *copier) step(off, n int64) (int64, error) {
	if c.method == Range {
		done, err := c.copyRange(off, min(n, rangeChunk))
		if err == nil || !notHere(err) {
			return done, err
		}
		c.method = Copy
	}
	if len(c.Buffer) == 0 {
		c.Buffer = make([]byte, min(c.size, copyChunk))
	}
	part := c.Buffer[:min(n, int64(len(c.Buffer)))]
	got := 0
	err := c.kernel.call("pread", c.src.Name(), func() (err error) {
		got, err = unix.Pread(int(c.src.Fd()), part, off)
		return err
	})
	if err == nil && got == 0 {
		err = fmt.Errorf("%w: it ends at byte %d", ErrChanged, off)
	}
	if err != nil {
		return 0, err
	}
	if c.See != nil {
		if err := c.See(off, part[:got]); err != nil {
			return 0, err
		}
	}
	if c.dst == nil {
		return int64(got), nil
	}
	return int64(got), c.write(part[:got], off)
}

func (c *copier) write(part []byte, off int64) error {
	for len(part) > 0 {
		put := 0
		err := c.kernel.call("pwrite", c.dst.Name(), func() (err error) {
			put, err = unix.Pwrite(int(c.dst.Fd()), part, off)
			return err
		})
		if err != nil {
			return err
		}
		part, off = part[put:], off+int64(put)
	}
	return nil
}

// copyRange makes one copy_file_range(2). That it moves nothing means the end of the file, or, with some kernels and
// filesystems, that it pretends: then reading decides.
func (c *copier) copyRange(off, n int64) (int64, error) {
	in, out, moved := off, off, 0
	err := c.kernel.call("copy_file_range", c.dst.Name(), func() (err error) {
		moved, err = unix.CopyFileRange(int(c.src.Fd()), &in, int(c.dst.Fd()), &out, int(n), 0)
		if err == nil && moved == 0 {
			err = unix.EOPNOTSUPP
		}
		return err
	})
	return int64(moved), err
}

func (c *copier) progress(done int64) {
	if c.Progress != nil {
		c.Progress(done, c.size)
	}
}
