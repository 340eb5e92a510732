package archive

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"reflect"

	"github.com/nsferry/nsferry/archive/tarfmt"
	"github.com/nsferry/nsferry/archive/zframe"
)

// feed reads the contents of new files, in the archive's order, from the frames that hold them. They are decoded ahead by several
// workers; frames that follow each other are read as one stream.
type feed struct {
	file     *zframe.File
	start    []int64 // raw offset of each frame
	runs     []int   // which row of frames that follow each other a frame is in; 0 is none
	progress func(int64)
	done     int64

	cancel context.CancelFunc
	ready  chan frameData // decoded, in order
	result error          // valid when ready is closed
	pool   zframe.Buffers

	frame frameData // being read
	left  []byte
	next  *frameData // received, but not the frame behind the one being read
	tar   *tarfmt.Reader
	base  int64 // raw offset at which tar began
	run   int   // that it reads
}

type frameData struct {
	number int
	bytes  []byte
}

func newFeed(ctx context.Context, r *refresher) *feed {
	ctx, cancel := context.WithCancel(ctx)
	f := &feed{file: r.file, progress: r.Progress, cancel: cancel, ready: make(chan frameData), frame: frameData{number: -2}}
	at := int64(0)
	for _, fr := range r.frames {
		f.start = append(f.start, at)
		at += fr.Raw
	}
	f.runs = make([]int, len(r.frames))
	for k, i := range r.need {
		f.runs[i] = i - k + 1
	}
	order := zframe.NewOrdered(ctx, zframe.Limits{Workers: r.Workers}, func(d frameData) error {
		select {
		case f.ready <- d:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	go func() {
		for _, i := range r.need {
			if order.Submit(r.frames[i].Raw+r.frames[i].Stored, func(int) (frameData, error) {
				b, err := f.file.ReadFrame(i, f.pool.Get(int(r.frames[i].Raw)))
				return frameData{i, b}, err
			}) != nil {
				break // Wait returns it too
			}
		}
		f.result = order.Wait()
		close(f.ready)
	}()
	return f
}

// close ends reading ahead.
func (f *feed) close() {
	f.cancel()
	for range f.ready { // until it is closed
	}
}

// receive makes the next of the needed frames the one in f.next; io.EOF when there is none.
func (f *feed) receive() error {
	if f.next != nil {
		return nil
	}
	d, ok := <-f.ready
	if !ok {
		if f.result != nil {
			return f.result
		}
		return io.EOF
	}
	f.next = &d
	return nil
}

// enter goes on to the frame in f.next.
func (f *feed) enter() {
	f.pool.Put(f.frame.bytes)
	f.frame, f.next = *f.next, nil
	f.left = f.frame.bytes
	f.done += int64(len(f.left))
	if f.progress != nil {
		f.progress(f.done)
	}
}

// Read reads the tar stream as far as the frames follow each other.
func (f *feed) Read(p []byte) (int, error) {
	for len(f.left) == 0 {
		if err := f.receive(); err != nil {
			return 0, err
		}
		if f.next.number != f.frame.number+1 {
			return 0, io.EOF
		}
		f.enter()
	}
	n := copy(p, f.left)
	f.left = f.left[n:]
	return n, nil
}

// content returns a reader of the data of the file w.
func (f *feed) content(ctx context.Context, w *want) (io.Reader, error) {
	if sparseStored(w.Entry) == 0 {
		return bytes.NewReader(nil), nil
	}
	if w.moved != "" { // it lies anywhere
		r := &frameReader{ctx: ctx, f: f.file, next: w.Frame}
		if _, err := io.CopyN(io.Discard, r, w.Offset); err != nil {
			return nil, err
		}
		t := tarfmt.NewReader(r, tarfmt.Limits{})
		return t, advance(t, 0, 0, w)
	}
	at := f.start[w.Frame] + w.Offset
	if f.tar == nil || f.runs[w.Frame] != f.run {
		if err := f.begin(w.Frame, w.Offset); err != nil {
			return nil, err
		}
		f.tar, f.base = tarfmt.NewReader(f, tarfmt.Limits{}), at
	}
	return f.tar, advance(f.tar, f.base, at, w)
}

// begin starts a stream at an offset in a frame.
func (f *feed) begin(frame int, off int64) error {
	for f.frame.number < frame {
		if err := f.receive(); err != nil {
			return err
		}
		f.enter()
	}
	if f.frame.number != frame {
		panic("archive: internal error: a frame that is needed has gone by")
	}
	f.left = f.frame.bytes[off:]
	f.run = f.runs[frame]
	return nil
}

// advance moves t, which began at the raw offset base, to the headers of w at the raw offset at, and makes sure that they say what the
// table of contents does.
func advance(t *tarfmt.Reader, base, at int64, w *want) error {
	for {
		h, err := t.Next()
		switch {
		case err != nil:
			return err
		case base+t.Offset() > at:
			return bad(w.Entry, "is not where the table of contents has it")
		case base+t.Offset() == at:
			return agree(h, t, w)
		}
	}
}

func agree(h *tarfmt.Header, t *tarfmt.Reader, w *want) error {
	got, err := tocEntry(h, "")
	if err != nil {
		return err
	}
	want := *w.Entry
	if w.moved != "" {
		want.Name = w.moved
	}
	got.Digest, got.Frame, got.Offset, got.HeaderLen = want.Digest, want.Frame, want.Offset, int64(len(t.RawHeader()))
	if !reflect.DeepEqual(&got, &want) {
		return bad(w.Entry, fmt.Sprintf("the table of contents says %+v, the archive %+v", want, got))
	}
	return nil
}
