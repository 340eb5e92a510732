//go:build linux

// Package debs carries Debian packages between a cache directory of the caller's and the rootfs trees that use them, and no
// file gets a name in the cache before it is whole, the caller's own, and what the lists say it is.
//
// The cache, DL, is a flat directory of files named as apt names them; see docs/DEBS.md. Import lends it to apt inside a rootfs, Export
// takes what apt has downloaded, Prune and Verify look after it. Each is a pure plan from two listings and then its
// application, so that a dry run is the plan itself.
//
// What is in a rootfs may be changed by others at any time: by programs that run there, and, as apt's archives are often
// writable for all, by other users of the machine. So files there are opened without following anything, copied into an
// inode that is the caller's from the beginning, and what is looked at is that copy.
//
// The outer process does as the caller what he may do himself, and enters a namespace only for the rest. DL's lock is held
// for moments: while DL is listed, and while finished files get their names.
package debs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/idshift/userns"
)

// Halves is the table of this package's inner halves, for userns.Main.
func Halves() []userns.Registered {
	return []userns.Registered{listHalf, listsHalf, closureHalf, fillHalf, placeHalf, settleHalf, installedHalf}
}

// EnvFunc decides how inner halves run. It is asked only when something has to be done that the caller himself may not do.
type EnvFunc func() (*userns.Env, error)

// Refusal is a file that was not taken, and why.
type Refusal struct {
	File   string `json:"file"`
	Reason string `json:"reason"`
}

// String is for one line.
func (r Refusal) String() string { return fmt.Sprintf("%q: %s", r.File, r.Reason) }

// RefusedError is the error of a flow that did all it could and had to refuse files.
type RefusedError struct {
	Where string // "export rootfs"
	Of    int    // how many files it was about
	All   []Refusal
}

// Error names the first ten.
func (e *RefusedError) Error() string {
	text := fmt.Sprintf("%s: refused %d of %d files", e.Where, len(e.All), e.Of)
	for i, r := range e.All {
		if i == 10 {
			return fmt.Sprintf("%s\n  and %d more; --json has all", text, len(e.All)-i)
		}
		text += "\n  " + r.String()
	}
	return text
}

// rootfs is a tree that a flow works on.
type rootfs struct {
	path string
	root *os.File // as far as the caller may go
	rest string   // from there
	env  EnvFunc
}

func openRootfs(path string, env EnvFunc) (*rootfs, error) {
	root, rest, err := userns.OpenTree(path)
	if err != nil {
		return nil, err
	}
	return &rootfs{path: path, root: root, rest: rest, env: env}, nil
}

// device is where the rootfs is, as far as the caller may go.
func (r *rootfs) device() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(r.root.Fd()), &st); err != nil {
		return 0, &fs.PathError{Op: "fstat", Path: r.path, Err: err}
	}
	return st.Dev, nil
}

func (r *rootfs) Close() error { return r.root.Close() }

// ask runs a half that only reads: as the caller, and inside where that is denied. It tells which.
func ask[A, R any](ctx context.Context, r *rootfs, h userns.Half[A, R], args A) (result R, entered bool, err error) {
	result, err = h.Func(ctx, &userns.Inner{Files: []*os.File{r.root}}, args)
	if !denied(err) {
		return result, false, err
	}
	result, err = inside(ctx, r, h, args)
	return result, true, err
}

// inside runs a half in the namespace; the rootfs is its first file.
func inside[A, R any](ctx context.Context, r *rootfs, h userns.Half[A, R], args A, files ...*os.File) (R, error) {
	e, err := r.env()
	if err != nil {
		var none R
		return none, err
	}
	return h.Run(ctx, e, args, nil, append([]*os.File{r.root}, files...)...)
}

// denied tells errors that more rights would mend.
func denied(err error) bool { return errors.Is(err, fs.ErrPermission) }

// fatal tells errors of the side that is written to, after which the next file would fare no better.
func fatal(err error) bool {
	for _, no := range [...]error{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EMFILE, unix.ENFILE, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

func workers(n int) int {
	if n > 0 {
		return n
	}
	return runtime.GOMAXPROCS(0)
}

func procPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }
