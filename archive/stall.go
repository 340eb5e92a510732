package archive

import (
	"context"
	"encoding/binary"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// stallable is an open file whose reads and writes may block for ever, a pipe, socket or terminal, and end when ctx does.
// It waits in poll(2) and calls read(2) or write(2) only when these do not block: the file description is shared with other
// processes, so that O_NONBLOCK is not ours to set.
type stallable struct {
	ctx  context.Context // of the one call that this value lives in
	file *os.File
	mu   sync.Mutex // held by whoever uses wake
	wake int        // an eventfd, readable from the end of ctx on; -1 when released
}

// UnstalledReader returns in, or a reader of it that ends with ctx, for an input that may never come. The caller calls
// release when nobody reads any more, or nobody shall.
func UnstalledReader(ctx context.Context, in io.Reader) (r io.Reader, release func(), err error) {
	if f, ok := in.(*os.File); ok {
		s, release, err := newStallable(ctx, f)
		if s != nil || err != nil {
			return s, release, err
		}
	}
	return in, func() {}, nil
}

// UnstalledWriter returns out, or a writer to it that ends with ctx, for an output that somebody may never read. The
// caller calls release when nobody writes any more.
func UnstalledWriter(ctx context.Context, out io.Writer) (w io.Writer, release func(), err error) {
	if f, ok := out.(*os.File); ok {
		s, release, err := newStallable(ctx, f)
		if s != nil || err != nil {
			return s, release, err
		}
	}
	return out, func() {}, nil
}

// newStallable returns nil for a file that cannot block for ever.
func newStallable(ctx context.Context, f *os.File) (*stallable, func(), error) {
	st, err := f.Stat()
	if err != nil || st.Mode()&(os.ModeNamedPipe|os.ModeSocket|os.ModeCharDevice) == 0 {
		return nil, func() {}, err
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, func() {}, os.NewSyscallError("eventfd", err)
	}
	s := &stallable{ctx: ctx, file: f, wake: wake}
	fired := make(chan struct{})
	ring := func() {
		_, _ = unix.Write(wake, binary.NativeEndian.AppendUint64(nil, 1)) // fails only at 2^64 rings
	}
	stop := context.AfterFunc(ctx, func() { ring(); close(fired) })
	return s, func() {
		if !stop() {
			<-fired
		}
		ring()
		s.mu.Lock()
		defer s.mu.Unlock()
		unix.Close(wake)
		s.wake = -1
	}, nil
}

// wait returns nil when the file has one of the events, or an error that the call itself will name.
func (s *stallable) wait(events int16) error {
	if s.wake < 0 {
		return os.ErrClosed
	}
	raw, err := s.file.SyscallConn() // Fd would change how the file blocks
	if err != nil {
		return err
	}
	var result error
	err = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: events}, {Fd: int32(s.wake), Events: unix.POLLIN}}
		for {
			_, err := unix.Poll(p, -1)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				result = os.NewSyscallError("poll", err)
			} else if p[1].Revents != 0 {
				if result = s.ctx.Err(); result == nil {
					result = os.ErrClosed
				}
			}
			return
		}
	})
	if err != nil {
		return err
	}
	return result
}

func (s *stallable) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.wait(unix.POLLIN); err != nil {
		return 0, err
	}
	return s.file.Read(p)
}

// Write writes by pieces of PIPE_BUF: more might block although the file is ready (pipe(7)).
func (s *stallable) Write(p []byte) (n int, err error) {
	const pipeBuf = 4096
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(p) > 0 {
		if err := s.wait(unix.POLLOUT); err != nil {
			return n, err
		}
		m, err := s.file.Write(p[:min(len(p), pipeBuf)])
		n += m
		if err != nil {
			return n, err
		}
		p = p[m:]
	}
	return n, nil
}
