package archive

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// output is where a framed archive goes. Frames of a base are shared with it where the filesystem can, a run of neighbours at a
// time: that is by blocks (ioctl_ficlonerange(2)), so the run must lie at one distance from a block's beginning in both files.
type output struct {
	w      io.Writer
	n      int64    // bytes that have come in
	file   *os.File // w, if blocks may be shared with it
	start  int64    // where in file the first byte goes
	block  int64    // bytes
	cannot bool     // nothing can be shared between these filesystems
	base   *base
	since  unix.Stat_t // of the base, when it was opened
	share  atomic.Bool // whether frames of the base may come without their bytes
	elide  bool        // everything so far is the base from its beginning on; it is in run, and nothing is written
	same   bool        // all of it is
	run    piece       // of the base, which has come in and is not written yet
	taken  []piece     // what of the base came without its bytes

	copied, shared int64 // bytes that came from the base, and those of them that are shared with it
}

// piece is a frame, or several ones in a row, of the base.
type piece struct {
	first, last  int   // numbers of frames
	off, len, at int64 // where it lies in the base, its length, where it goes
}

func newOutput(w io.Writer) *output {
	o := &output{w: w}
	f, ok := w.(*os.File)
	if !ok {
		return o
	}
	var st unix.Stat_t
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil || flags&(unix.O_APPEND|unix.O_ACCMODE) != unix.O_RDWR || unix.Fstat(int(f.Fd()), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return o
	}
	if o.start, err = f.Seek(0, io.SeekCurrent); err == nil {
		o.file, o.block = f, int64(st.Blksize)
	}
	return o
}

// copyFrom allows frames of b to come, which must not be the output itself. With elide nothing is written as long as it would be b.
func (o *output) copyFrom(b *base, elide bool) error {
	if err := unix.Fstat(int(b.file.Fd()), &o.since); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	o.base = b
	if elide && o.file != nil && o.start == 0 {
		o.elide = true
		o.share.Store(true)
		return nil
	}
	// Tried by use, with what most likely comes first; whatever comes is written over it.
	if o.file != nil && b.framed.End() >= o.block && o.start%o.block == 0 && o.clone(o.start, 0, o.block) {
		o.share.Store(true)
		o.shared = 0
	}
	return nil
}

// distinct refuses a base that is the output itself.
func (o *output) distinct(f *os.File) error {
	w, ok := o.w.(*os.File)
	if !ok {
		return nil
	}
	a, err := w.Stat()
	if err != nil {
		return err
	}
	b, err := f.Stat()
	if err == nil && os.SameFile(a, b) {
		err = errors.New("the base is the output itself; write to another name")
	}
	return err
}

func (o *output) Write(p []byte) (int, error) {
	if err := o.flush(); err != nil {
		return 0, err
	}
	n, err := o.w.Write(p)
	o.n += int64(n)
	return n, err
}

// frame takes frame n of the base, which was found sound; stored may be nil if share said so before.
func (o *output) frame(n int, stored []byte) error {
	span := o.base.framed.Frames()[n]
	o.copied += span.Stored
	if o.elide = o.elide && span.Offset == o.n; o.elide {
		o.run.last, o.run.len = n, span.Offset+span.Stored
		o.n = o.run.len
		return nil
	}
	if stored != nil {
		if _, err := o.Write(stored); err != nil {
			return err
		}
	} else if o.run.len > 0 && o.run.off+o.run.len == span.Offset {
		o.run.last, o.run.len = n, o.run.len+span.Stored
		o.n += span.Stored
	} else {
		if err := o.flush(); err != nil {
			return err
		}
		o.run = piece{n, n, span.Offset, span.Stored, o.start + o.n}
		o.n += span.Stored
	}
	// The next one may come without its bytes if it could be shared, lying behind this one in both files.
	if o.file != nil && !o.cannot {
		o.share.Store((o.start+o.n-span.Offset-span.Stored)%o.block == 0)
	}
	return nil
}

// flush brings the run into the output.
func (o *output) flush() error {
	r := o.run
	o.elide = false
	if r.len == 0 {
		return nil
	}
	o.run = piece{}
	o.taken = append(o.taken, r)
	// Whole blocks in the middle, the rest of the run by copying.
	lo, hi := (r.off+o.block-1)/o.block*o.block, (r.off+r.len)/o.block*o.block
	if o.cannot || (r.at-r.off)%o.block != 0 || lo >= hi || !o.clone(r.at+lo-r.off, lo, hi-lo) {
		lo, hi = r.off, r.off
	}
	if err := o.transfer(r.at, r.off, lo-r.off); err != nil {
		return err
	}
	if err := o.transfer(r.at+hi-r.off, hi, r.off+r.len-hi); err != nil {
		return err
	}
	_, err := o.file.Seek(r.at+r.len, io.SeekStart)
	return err
}

// clone shares whole blocks, or says that these filesystems cannot, after which nobody tries again.
func (o *output) clone(at, off, n int64) bool {
	err := unix.IoctlFileCloneRange(int(o.file.Fd()), &unix.FileCloneRange{
		Src_fd: int64(o.base.file.Fd()), Src_offset: uint64(off), Src_length: uint64(n), Dest_offset: uint64(at),
	})
	if err != nil {
		o.cannot = true
		o.share.Store(false)
		return false
	}
	o.shared += n
	return true
}

// transfer copies n bytes of the base from off to where they go.
func (o *output) transfer(at, off, n int64) error {
	if n == 0 {
		return nil
	}
	_, err := io.CopyBuffer(io.NewOffsetWriter(o.file, at), io.NewSectionReader(o.base.file, off, n), make([]byte, min(n, 256<<10)))
	return err
}

// close writes the tail of the archive, unless all of it turns out to be the base, and looks again at what came from there.
func (o *output) close(tail []byte) error {
	if o.elide && o.n == o.base.framed.End() {
		if err := o.recheck(o.base.file, []piece{o.run}); err != nil {
			return err
		}
		same, err := o.base.endsWith(tail)
		if err != nil {
			return err
		}
		if o.same = same; same {
			o.n += int64(len(tail))
			o.copied = o.n
			return nil
		}
	}
	if _, err := o.Write(tail); err != nil {
		return err
	}
	return o.recheck(o.file, o.taken)
}

// recheck looks at what came without its bytes: that was looked at before it was taken; if the base has changed since, the sums of
// what is now in f decide.
func (o *output) recheck(f *os.File, taken []piece) error {
	if len(taken) == 0 {
		return nil
	}
	var now unix.Stat_t
	if err := unix.Fstat(int(o.base.file.Fd()), &now); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if now.Ctim == o.since.Ctim {
		return nil
	}
	buf := make([]byte, 256<<10)
	for _, r := range taken {
		for n := r.first; n <= r.last; n++ {
			if _, err := o.base.sound(f, r.at+o.base.framed.Frames()[n].Offset-r.off, o.base.frames[n], buf, nil); err != nil {
				return fmt.Errorf("frame %d of the base changed while it was copied: %w", n, err)
			}
		}
	}
	return nil
}
