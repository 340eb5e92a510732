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
	found
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

// search is what was asked for, and what there is of it. close releases it.
type search struct {
	args  openArgs
	dirs  []*os.File // that the sources are below
	found []*source
}

func (s *search) close() {
	for _, d := range s.dirs {
		d.Close()
	}
	for _, f := range s.found {
		f.file.Close()
	}
}

// files are the open files of all sources.
func (s *search) files() (files []*os.File) {
	for _, f := range s.found {
		files = append(files, f.file)
	}
	return files
}

// find has the half open all sources.
func find(ctx context.Context, e *userns.Env, sources []string, o Options) (_ *search, err error) {
	s := &search{args: openArgs{InRoot: o.From != "", All: o.All, As: e.CallerFSIDs()}}
	if s.dirs, err = s.args.prepare(sources, o.From); err == nil {
		err = s.open(ctx, e, o.From)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// open runs the half and takes in what it sends.
func (s *search) open(ctx context.Context, e *userns.Env, from string) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "socket"), os.NewFile(uintptr(pair[1]), "socket")
	defer ours.Close()
	received := make(chan error, 1)
	go func() { received <- s.receive(ours, from) }()
	n, err := openHalf.Run(ctx, e, s.args, nil, append([]*os.File{theirs}, s.dirs...)...)
	theirs.Close() // the last end: whatever became of the half, the receiver sees the end
	lost := <-received
	switch {
	case err != nil:
		return err
	case lost != nil:
		return lost
	case len(s.found) != n:
		return fmt.Errorf("%d files were opened inside, and %d came out", n, len(s.found))
	}
	return nil
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
func (s *search) receive(socket *os.File, from string) (err error) {
	text, rights := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4))
	for {
		n, oob, flags, _, rerr := unix.Recvmsg(int(socket.Fd()), text, rights, unix.MSG_CMSG_CLOEXEC)
		switch {
		case rerr == unix.EINTR:
			continue
		case rerr != nil:
			return errors.Join(err, os.NewSyscallError("recvmsg", rerr))
		case n == 0:
			return err
		case flags&(unix.MSG_CTRUNC|unix.MSG_TRUNC) != 0:
			err = errors.Join(err, errors.New("a file was lost on its way out: too many are open (ulimit -n)"))
			continue
		}
		f, serr := s.args.source(text[:n], rights[:oob], from)
		if serr != nil {
			err = errors.Join(err, serr)
			continue
		}
		s.found = append(s.found, f)
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
	s := &source{found: about, path: string(about.Path), name: path.Base(string(about.Path))}
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
