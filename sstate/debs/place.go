package debs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/idshift/handoff"
	"github.com/nsferry/nsferry/idshift/userns"
)

// hardLink is the method of a deb that came in as another name of DL's inode; kept of one that was there.
const (
	hardLink handoff.Method = "hard link"
	kept     handoff.Method = "kept"
)

// order is one deb to be placed. Its open file is at the same index of the half's files, the rootfs being in front.
type order struct {
	Name  bytesName
	Hard  bool  // it may be a hard link
	Sure  bool  // its content is what a list says
	Check bool  // there is a file of this name already, which stays if it is right
	MTime int64 // ns
	Want  []Sum // if there are any, nobody has read it yet, and a copy has to be one of these
}

type placeArgs struct {
	Rest    string
	Owner   owner
	Link    Link
	Orders  []order
	Workers int
}

// placed is what became of an order.
type placed struct {
	Method  handoff.Method
	Problem problem
	Damaged bool   // that is the problem: not what was wanted
	SHA256  []byte // of what Want was compared with
}

// placeHalf puts debs into apt's archives in a rootfs.
var placeHalf = userns.Half[placeArgs, []placed]{Name: "debs-place", Func: func(ctx context.Context, in *userns.Inner, a placeArgs) ([]placed, error) {
	dir, err := archivesInside(in, a.Rest)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if len(in.Files) != 1+len(a.Orders) {
		return nil, fmt.Errorf("%d debs, %d files", len(a.Orders), len(in.Files)-1)
	}
	all := make([]placed, len(a.Orders))
	err = crew(ctx, workers(a.Workers), len(all), func(ctx context.Context, i int, buf []byte) error {
		p := &all[i]
		var err error
		p.Method, err = a.place(ctx, dir, in.Files[1+i], a.Orders[i], buf, p)
		p.Problem, p.Damaged = toProblem(err), errors.Is(err, errDamaged)
		return nil
	})
	return all, err
}}

// place puts the deb src into dir.
func (a placeArgs) place(ctx context.Context, dir, src *os.File, o order, buf []byte, answer *placed) (handoff.Method, error) {
	if o.Check && isRight(dir, src, o) {
		return kept, nil
	}
	if o.Hard && (a.Link == LinkSafe || a.Link == LinkHard) {
		err := linkInto(dir, src, string(o.Name))
		if err == nil {
			return hardLink, nil
		}
		if a.Link == LinkHard || !notLinkable(err) {
			return "", err
		}
	}
	if a.Link == LinkHard {
		return "", errors.New("a hard link would let the inner side own or write the cached file, or it could not read it; --link=safe finds another way")
	}
	return a.copyInto(ctx, dir, src, o, buf, answer)
}

// notLinkable tells the answers of linkat(2) that lead to a copy.
func notLinkable(err error) bool {
	for _, no := range [...]error{unix.EXDEV, unix.EPERM, unix.EACCES, unix.EMLINK, unix.EOPNOTSUPP, unix.ENOSYS, unix.ENOENT} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

// linkInto makes name in dir another name of src, in place of whatever file or link is there.
func linkInto(dir, src *os.File, name string) error {
	for range 8 { // somebody may put something there again and again
		err := unix.Linkat(unix.AT_FDCWD, procPath(src), int(dir.Fd()), name, unix.AT_SYMLINK_FOLLOW)
		if err != unix.EEXIST {
			if err != nil {
				return &fs.PathError{Op: "linkat", Path: name, Err: err}
			}
			return nil
		}
		if err := unix.Unlinkat(int(dir.Fd()), name, 0); err != nil && err != unix.ENOENT {
			return &fs.PathError{Op: "unlinkat", Path: name, Err: err}
		}
	}
	return &fs.PathError{Op: "linkat", Path: name, Err: unix.EEXIST}
}

// copyInto makes name in dir a copy of src that is inner root's, and checks it, if that is still to be done.
func (a placeArgs) copyInto(ctx context.Context, dir, src *os.File, o order, buf []byte, answer *placed) (_ handoff.Method, err error) {
	// The original stays in DL, so that there is nothing to lose by leaving the time of writing to the system.
	p, err := handoff.NewPending(dir, string(o.Name), handoff.Options{Mode: debMode, Overwrite: handoff.Replace, NoSync: true})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, p.Abort()) }() // no effect once committed
	ladder := handoff.Ladder{Buffer: buf}
	if a.Link == LinkCopy {
		ladder.Top = handoff.Copy
	}
	method, err := o.transfer(ctx, p.File(), src, ladder, answer)
	if err != nil {
		return "", err
	}
	if a.Link == LinkReflink && method != handoff.Reflink {
		return "", errors.New("the filesystems cannot share blocks, and --link=reflink allows nothing else")
	}
	if err := a.Owner.chown(p.File(), 0, 0); err != nil {
		return "", err
	}
	if err := setMTime(p.File(), o.MTime); err != nil {
		return "", err
	}
	return method, p.Commit()
}

// transfer copies src to dst, and compares what has been copied with what is wanted.
func (o order) transfer(ctx context.Context, dst, src *os.File, l handoff.Ladder, answer *placed) (handoff.Method, error) {
	if len(o.Want) == 0 {
		return transfer(ctx, dst, src, l, nil)
	}
	st, err := src.Stat()
	if err != nil {
		return "", err
	}
	sum := Sum{Size: st.Size()}
	method, err := transfer(ctx, dst, src, l, &sum)
	if err != nil {
		return "", err
	}
	answer.SHA256 = sum.SHA256[:]
	return method, damaged(judge(o.Want, sum))
}

// isRight tells whether the file that is there may stay: it has the same bytes, or nobody knows which of the two is right
// and it is a whole deb. One with the same bytes gets the same time, so that the next run sees it at once.
func isRight(dir, src *os.File, o order) bool {
	f, err := openRegular(dir, string(o.Name))
	if err != nil {
		return false
	}
	defer f.Close()
	if same, err := sameBytes(f, src); err != nil || same {
		return err == nil && setMTime(f, o.MTime) == nil
	}
	st, err := f.Stat()
	if err != nil || o.Sure {
		return false
	}
	_, err = checkStructure(f, st.Size())
	return err == nil
}

func sameBytes(a, b *os.File) (bool, error) {
	sa, err := a.Stat()
	if err != nil {
		return false, err
	}
	sb, err := b.Stat()
	if err != nil || sa.Size() != sb.Size() {
		return false, err
	}
	const step = 128 << 10
	x, y := make([]byte, step), make([]byte, step)
	for at := int64(0); at < sa.Size(); at += step {
		n := int(min(step, sa.Size()-at))
		for _, r := range []struct {
			f   *os.File
			buf []byte
		}{{a, x[:n]}, {b, y[:n]}} {
			if _, err := r.f.ReadAt(r.buf, at); err != nil && err != io.EOF {
				return false, err
			}
		}
		if !bytes.Equal(x[:n], y[:n]) {
			return false, nil
		}
	}
	return true, nil
}

func setMTime(f *os.File, ns int64) error {
	ts := unix.NsecToTimespec(ns)
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, procPath(f), []unix.Timespec{ts, ts}, 0); err != nil {
		return &fs.PathError{Op: "utimensat", Path: f.Name(), Err: err}
	}
	return nil
}
