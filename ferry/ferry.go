// Package ferry takes whole trees across the border: each flow is an outer half, which opens every path that the caller
// owns, and an inner half, which only sees open files and never an output path. Nothing has its final name before it is
// whole.
//
// The halves run in the handoff map (DESIGN §1): there uid 0 may read, write and remove what the caller owns and what
// his whole sub-id range owns. Which ids belong into a tree is decided by the plain map all the same.
package ferry

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/idshift/userns"
)

// Halves is the table of this package's inner halves, for userns.Main.
func Halves() []userns.Registered {
	return []userns.Registered{packHalf, packMergedHalf, unpackHalf, refreshHalf, listHalf, removeHalf, examineHalf, faclHalf, overlayHalf}
}

// Workers returns n, or one worker for each processor when n is 0.
func Workers(n int) int {
	if n > 0 {
		return n
	}
	return runtime.GOMAXPROCS(0)
}

// ids says how the halves of e see ids.
func ids(e *userns.Env) archive.IDs {
	return archive.IDs{Plain: e.Plain, Arithmetic: e.Arithmetic()}
}

// Privileged tells whether device nodes can be made: only by real root.
func Privileged(e *userns.Env) bool { return e.Mode == userns.ModeRoot && !e.Nested }

// Progress is told how many bytes are done; both ends of the border call it so.
type Progress func(done int64)

// raw returns the function that userns calls for each report, nil when nobody listens.
func (p Progress) raw() func(json.RawMessage) {
	if p == nil {
		return nil
	}
	return func(m json.RawMessage) {
		var n int64
		if json.Unmarshal(m, &n) == nil {
			p(n)
		}
	}
}

// report returns what a half calls to report how far it is: not more often than every step bytes.
func report(in *userns.Inner) func(int64) {
	const step = 8 << 20
	next := int64(0)
	return func(n int64) {
		if n >= next {
			next = n + step
			in.Progress(n)
		}
	}
}

// OpenParent opens the directory that the last component of path is in, as far as the caller may.
func OpenParent(path string) (parent *os.File, rest, name string, err error) {
	if path == "" { // Clean would make it the working directory
		return nil, "", "", &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	path = filepath.Clean(path)
	name = filepath.Base(path)
	if name == "." || name == ".." || name == "/" {
		if path, err = filepath.Abs(path); err != nil {
			return nil, "", "", err
		}
		name = filepath.Base(path)
	}
	parent, rest, err = userns.OpenTree(filepath.Dir(path))
	return parent, rest, name, err
}

// Umask returns the process's file mode creation mask. Linux tells it in /proc (proc(5), since 4.7) without a
// moment in which it is another.
func Umask() uint32 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0o022
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "Umask:"); ok {
			if n, err := strconv.ParseUint(strings.TrimSpace(v), 8, 12); err == nil {
				return uint32(n)
			}
		}
	}
	return 0o022
}

// StateHome is $XDG_STATE_HOME/nsferry (XDG base directory specification).
func StateHome() (string, error) {
	base := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(base) { // "all paths must be absolute; otherwise ignore"
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("%w; set XDG_STATE_HOME", err)
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, "nsferry"), nil
}
