package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/idshift/userns"
)

// source is one file to deploy, open for reading.
type source struct {
	path  string // as the user knows it
	name  string // its last component
	file  *os.File
	size  int64
	mtime time.Time
}

// want is one of the sources that were asked for: what to look for, and below which of the passed directories. Names are bytes, which
// only []byte carries through JSON.
type want struct {
	Text    string // as it was typed, for messages
	Site    int    // number of the directory
	Rest    []byte // from there to where the pattern starts
	Pattern []byte
}

type openArgs struct {
	Wants  []want
	InRoot bool
	All    bool
	As     userns.FSIDs
}

// found goes out with each open file.
type found struct {
	Want int
	Path []byte // below the site
}

// openHalf gets a socket and the directories. It sends each file that it opens through the socket, and returns how many.
var openHalf = userns.Half[openArgs, int]{Name: "deploy", Func: func(ctx context.Context, in *userns.Inner, a openArgs) (n int, err error) {
	for i, w := range a.Wants {
		files, err := a.open(ctx, in, i, w)
		n += files
		if err != nil {
			return n, err
		}
	}
	return n, nil
}}

// open opens and sends what one source stands for.
func (a *openArgs) open(ctx context.Context, in *userns.Inner, i int, w want) (n int, err error) {
	s, err := openSite(in.Files[1+w.Site], string(w.Rest), a.InRoot, a.As)
	if err != nil {
		return 0, err
	}
	defer s.close()
	paths, err := s.expand(string(w.Pattern))
	if err != nil {
		return 0, err
	}
	switch {
	case len(paths) == 0:
		return 0, fmt.Errorf("%s matches nothing: %w", w.Text, unix.ENOENT)
	case len(paths) > 1 && !a.All:
		const few = 5
		list := strings.Join(paths[:min(few, len(paths))], ", ")
		if len(paths) > few {
			list += ", …"
		}
		return 0, fmt.Errorf("%s matches %d files, and one is wanted: %s; name it, or take all with --all", w.Text, len(paths), list)
	}
	for _, path := range paths {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		f, err := s.openFile(path)
		if err != nil {
			return n, err
		}
		err = sendFile(in.Files[0], found{i, []byte(path)}, f)
		f.Close()
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// sendFile passes an open file through a socket, with what is to be known of it.
func sendFile(socket *os.File, about found, f *os.File) error {
	text, err := json.Marshal(about)
	if err != nil {
		return err
	}
	defer runtime.KeepAlive(socket)
	for {
		err = unix.Sendmsg(int(socket.Fd()), text, unix.UnixRights(int(f.Fd())), nil, 0)
		if err != unix.EINTR {
			return os.NewSyscallError("sendmsg", err)
		}
	}
}

// find has the half open all sources. The caller closes what it returns, also after an error.
func find(ctx context.Context, e *userns.Env, sources []string, o Options) ([]*source, error) {
	a := openArgs{InRoot: o.From != "", All: o.All, As: e.CallerFSIDs()}
	dirs, err := a.prepare(sources, o.From)
	defer func() {
		for _, d := range dirs {
			d.Close()
		}
	}()
	if err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "socket"), os.NewFile(uintptr(pair[1]), "socket")
	defer ours.Close()
	type result struct {
		files []*source
		err   error
	}
	received := make(chan result, 1)
	go func() {
		var r result
		r.files, r.err = a.receive(ours, o.From)
		received <- r
	}()
	n, err := openHalf.Run(ctx, e, a, nil, append([]*os.File{theirs}, dirs...)...)
	theirs.Close() // the last end: whatever became of the half, the receiver sees the end
	r := <-received
	switch {
	case err != nil:
		return r.files, err
	case r.err != nil:
		return r.files, r.err
	case len(r.files) != n:
		return r.files, fmt.Errorf("%d files were opened inside, and %d came out", n, len(r.files))
	}
	return r.files, nil
}

// prepare opens the directories that the sources are below.
func (a *openArgs) prepare(sources []string, from string) (dirs []*os.File, err error) {
	if from != "" {
		dir, rest, err := userns.OpenTree(from)
		if err != nil {
			return nil, err
		}
		for _, s := range sources {
			a.Wants = append(a.Wants, want{Text: s, Rest: []byte(rest), Pattern: []byte(s)})
		}
		return []*os.File{dir}, nil
	}
	for _, s := range sources {
		parts, err := components(s)
		if err != nil {
			return dirs, err
		}
		fixed := 0
		for fixed < len(parts)-1 && !meta(parts[fixed]) {
			parts[fixed] = literal(parts[fixed])
			fixed++
		}
		above := strings.Join(parts[:fixed], "/")
		if strings.HasPrefix(s, "/") {
			above = "/" + above
		}
		dir, rest, err := openTrusted(above)
		if err != nil {
			return dirs, err
		}
		a.Wants = append(a.Wants, want{Text: s, Site: len(dirs), Rest: []byte(rest), Pattern: []byte(strings.Join(parts[fixed:], "/"))})
		dirs = append(dirs, dir)
	}
	return dirs, nil
}

// receive takes files from the socket until no end of it is open elsewhere. It always reads on to that end.
func (a *openArgs) receive(socket *os.File, from string) (files []*source, err error) {
	text, rights := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4))
	for {
		n, oob, flags, _, rerr := unix.Recvmsg(int(socket.Fd()), text, rights, unix.MSG_CMSG_CLOEXEC)
		if rerr == unix.EINTR {
			continue
		}
		if rerr != nil {
			return files, errors.Join(err, os.NewSyscallError("recvmsg", rerr))
		}
		if n == 0 {
			return files, err
		}
		if flags&(unix.MSG_CTRUNC|unix.MSG_TRUNC) != 0 {
			err = errors.Join(err, errors.New("a file was lost on its way out: too many are open (ulimit -n)"))
			continue
		}
		s, perr := a.source(text[:n], rights[:oob], from)
		if perr != nil {
			err = errors.Join(err, perr)
			continue
		}
		files = append(files, s)
	}
}

// source makes a source of what came through the socket.
func (a *openArgs) source(text, rights []byte, from string) (*source, error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("a message without a file (%w)", err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("a message without a file (%w)", err)
	}
	var about found
	if err := json.Unmarshal(text, &about); err != nil {
		return nil, errors.Join(err, unix.Close(fds[0]))
	}
	s := &source{path: string(about.Path), name: path.Base(string(about.Path))}
	w := a.Wants[about.Want]
	if from != "" {
		s.path = path.Join(from, s.path)
	} else if !meta(w.Text) {
		s.path = w.Text
	}
	s.file = os.NewFile(uintptr(fds[0]), s.path)
	st, err := s.file.Stat()
	if err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	s.size, s.mtime = st.Size(), st.ModTime()
	return s, nil
}
