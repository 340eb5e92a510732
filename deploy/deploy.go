// Package deploy hands single files of a rootfs to the outer user: no output has a name before all outputs are on the disk, and
// each is the caller's from birth.
//
// The inner half opens the sources, once and without following a link, and passes the open files out (docs/DEPLOY.md). All
// the rest happens outside, with the caller's own rights: an open file can be read, and cloned, whoever owns it.
package deploy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/nsferry/nsferry/idshift/handoff"
	"github.com/nsferry/nsferry/idshift/userns"
)

// Options say how outputs are made. The zero value copies one file for each source and replaces nothing.
type Options struct {
	From       string // rootfs that the sources are in; "": they are paths of the caller's
	All        bool   // a source may stand for any number of files, not for exactly one
	Mode       uint32 // of the outputs, 0777 at most; 0 is 0644 less the umask
	ClampMTime *int64 // seconds; no output has a later modification time
	Give       bool   // no copies: the files themselves become the caller's and move to dest, on the same filesystem
	Replace    bool   // outputs may exist, and are replaced when all new ones are whole
	Symlink    string // name beside the output that is made to point to it, last
	Sum        bool   // NAME.sha256 beside each output, as sha256sum(1) writes it
	Map        bool   // NAME.bmap beside each output
	Compress   Compression
	Level      int // of compression; 0 is its usual one
	Workers    int
	Expect     Expectation
	Progress   func(done, total int64) // bytes of all sources; may be nil
}

// Expectation is what the one source is known to be. A source that is not is no output.
type Expectation struct {
	Size   *int64
	SHA256 string // 64 hex digits; "" for unknown
}

// Delivered is one output.
type Delivered struct {
	Source string `json:"source"`
	Output string `json:"output"`
	Method string `json:"method"` // the rung of the ladder that it took, "stream", "give", or the kind of compression
	Bytes  int64  `json:"bytes"`  // of the source
	Holes  int64  `json:"holes"`  // of these
	Stored int64  `json:"stored"` // size of the output
	SHA256 string `json:"sha256,omitempty"`
}

// Summary is what was done.
type Summary struct {
	Outputs []Delivered `json:"outputs"`
	Extra   []string    `json:"extra,omitempty"` // sums and maps
	Symlink string      `json:"symlink,omitempty"`
}

// Halves is the table of this package's inner halves, for userns.Main.
func Halves() []userns.Registered { return []userns.Registered{openHalf, giveHalf, dropHalf} }

// Files deploys the files that the sources stand for to dest: a directory, or the name of the only output.
func Files(ctx context.Context, e *userns.Env, sources []string, dest string, o Options) (sum Summary, err error) {
	if err := o.check(len(sources)); err != nil {
		return sum, err
	}
	s, err := find(ctx, e, sources, o)
	if err != nil {
		return sum, err
	}
	defer s.close()
	set, err := newOutputs(dest, o)
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, set.abort()) }() // no effect once committed
	for _, f := range s.found {
		if err := o.Expect.checkSize(f.size); err != nil {
			return sum, fmt.Errorf("%s: %w", f.path, err)
		}
		if err := set.add(f, o.clamped(f.mtime)); err != nil {
			return sum, err
		}
	}
	if !o.Give {
		if err := s.copy(ctx, set, o); err != nil {
			return sum, err
		}
		return set.commit(ctx)
	}
	return s.give(ctx, e, set, o)
}

// copy fills the outputs.
func (s *search) copy(ctx context.Context, set *outputs, o Options) error {
	total, before := int64(0), int64(0)
	for _, f := range s.found {
		total += f.size
	}
	for i, f := range s.found {
		one := o
		if o.Progress != nil {
			one.Progress = func(done, _ int64) { o.Progress(before+done, total) }
		}
		err := set.fill(ctx, i, func(out *os.File, w *watcher) (Delivered, error) { return copyFile(ctx, out, f.file, w, one) })
		if err != nil {
			return err
		}
		before += f.size
	}
	return nil
}

// check refuses what cannot be meant.
func (o *Options) check(sources int) error {
	one := sources == 1 && !o.All
	switch {
	case o.Give && o.Compress != "":
		return &userns.UsageError{What: "what is given is not compressed"}
	case o.Mode&^0o777 != 0:
		return &userns.UsageError{What: fmt.Sprintf("mode %04o: an output cannot be setuid, setgid or sticky", o.Mode)}
	case (o.Expect.Size != nil || o.Expect.SHA256 != "") && !one:
		return &userns.UsageError{What: "an expected size or digest is that of a single source"}
	case o.Symlink != "" && !one:
		return &userns.UsageError{What: "a symbolic link can point to a single output"}
	case strings.Contains(o.Symlink, "/"):
		return &userns.UsageError{What: o.Symlink + ": the symbolic link is made beside the output, and is given by its name alone"}
	}
	return o.Expect.check()
}

// clamped is the modification time of an output.
func (o *Options) clamped(t time.Time) time.Time {
	if c := o.ClampMTime; c != nil && t.After(time.Unix(*c, 0)) {
		return time.Unix(*c, 0)
	}
	return t
}

// copyFile makes f, which is empty, what src is.
func copyFile(ctx context.Context, f, src *os.File, w *watcher, o Options) (Delivered, error) {
	if o.Compress != "" {
		return compressFile(ctx, f, src, w, o)
	}
	l := handoff.Ladder{Progress: handoff.WriteOut(f, o.Progress), See: w.eye(ctx)}
	res, err := handoff.Transfer(ctx, f, src, l)
	if err != nil {
		return Delivered{}, err
	}
	if res.Method == handoff.Reflink && l.See != nil { // what was cloned is summed, whatever the source has become since
		if _, err := handoff.Scan(ctx, f, l.See, o.Progress); err != nil {
			return Delivered{}, err
		}
	}
	d := Delivered{Method: string(res.Method), Bytes: res.Bytes, Holes: res.Holes, Stored: res.Bytes}
	d.SHA256, err = w.finish(ctx, res.Bytes)
	return d, err
}
