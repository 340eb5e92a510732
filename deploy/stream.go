package deploy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/idshift/userns"
)

// errEmpty is the refusal of a stream that a failed command has left behind it.
var errEmpty = errors.New("the input is empty, as it is when the command that should have written it failed; an expected size of 0 allows it")

// Stream deploys what comes through in, up to its end, to the file dest. Blocks of zeros become holes. That the writer ended well is
// more than the end of a pipe can tell: the Expectation can.
func Stream(ctx context.Context, in *os.File, dest string, o Options) (sum Summary, err error) {
	if err := o.check(1); err != nil {
		return sum, err
	}
	if o.Compress != "" || o.Give {
		return sum, &userns.UsageError{What: "a stream can be neither given nor compressed on its way; pipe it through zstd(1) or gzip(1)"}
	}
	set, err := newOutputs(dest, o)
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, set.abort()) }() // no effect once committed
	if set.name == "" {
		return sum, fmt.Errorf("%s is a directory, and what comes through a pipe has no name", dest)
	}
	if err := set.add(&source{path: "-", name: set.name}, time.Time{}); err != nil {
		return sum, err
	}
	err = set.fill(ctx, 0, func(f *os.File, w *watcher) (Delivered, error) { return readStream(ctx, f, in, w, o) })
	if err != nil {
		return sum, err
	}
	return set.commit(ctx)
}

// readStream writes in to f, which is empty.
func readStream(ctx context.Context, f, in *os.File, w *watcher, o Options) (d Delivered, err error) {
	r, release, err := archive.UnstalledReader(ctx, in)
	if err != nil {
		return d, err
	}
	defer release()
	eye, buf := w.eye(ctx), make([]byte, 1<<20)
	for err == nil {
		n := 0
		if n, err = io.ReadFull(r, buf); n == 0 {
			break
		}
		if werr := writeSparse(f, buf[:n], d.Bytes, eye, &d.Holes); werr != nil {
			return d, werr
		}
		d.Bytes += int64(n)
		if o.Progress != nil {
			o.Progress(d.Bytes, 0)
		}
		if x := o.Expect.Size; x != nil && d.Bytes > *x {
			return d, &MismatchError{"the size", fmt.Sprint(*x), fmt.Sprintf("at least %d", d.Bytes)}
		}
		if cerr := ctx.Err(); cerr != nil {
			return d, cerr
		}
	}
	switch {
	case err != io.EOF && err != io.ErrUnexpectedEOF:
		return d, err
	case d.Bytes == 0 && o.Expect.Size == nil:
		return d, errEmpty
	}
	d.Method, d.Stored = "stream", d.Bytes
	if err := errors.Join(o.Expect.checkSize(d.Bytes), f.Truncate(d.Bytes)); err != nil {
		return d, err
	}
	d.SHA256, err = w.finish(ctx, d.Bytes)
	return d, err
}

// writeSparse writes data at off, its blocks of zeros left out.
func writeSparse(f *os.File, data []byte, off int64, eye func(int64, []byte) error, holes *int64) error {
	for len(data) > 0 {
		n := run(data, true)
		*holes += int64(n)
		off, data = off+int64(n), data[n:]
		n = run(data, false)
		if n == 0 {
			continue
		}
		if _, err := f.WriteAt(data[:n], off); err != nil {
			return err
		}
		if eye != nil {
			if err := eye(off, data[:n]); err != nil {
				return err
			}
		}
		off, data = off+int64(n), data[n:]
	}
	return nil
}

// run is the length of the blocks at the beginning of data that are all zeros, or that are not.
func run(data []byte, zero bool) (n int) {
	var zeros [blockSize]byte
	for n < len(data) {
		part := data[n:min(n+blockSize, len(data))]
		if bytes.Equal(part, zeros[:len(part)]) != zero {
			break
		}
		n += len(part)
	}
	return n
}
