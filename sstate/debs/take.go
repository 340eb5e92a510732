package debs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/idshift/handoff"
)

// debMode is the mode of a deb: apt's own, and readable for inner ids that it does not belong to.
const debMode = 0o644

// take is one deb on its way into DL.
type take struct {
	Step
	pending *handoff.Pending
	sum     Sum   // of the copy
	closed  bool  // only inner root can read it
	err     error // it is refused
	local   bool
	skip    bool // not listed, and that is to be skipped
}

// takeAll copies, checks and publishes a chunk of debs.
func (x *exporter) takeAll(ctx context.Context, steps []Step) (err error) {
	all := make([]take, len(steps))
	defer func() {
		for i := range all {
			if all[i].pending != nil {
				err = errors.Join(err, all[i].pending.Abort()) // no effect once committed
			}
		}
	}()
	err = crew(ctx, workers(x.Workers), len(all), func(ctx context.Context, i int, buf []byte) error {
		all[i].Step = steps[i]
		return x.take(ctx, &all[i], buf)
	})
	if err != nil {
		return err
	}
	if err := x.takeInside(ctx, all); err != nil {
		return err
	}
	if err := x.sealAll(ctx, all); err != nil {
		return err
	}
	return x.commit(ctx, all)
}

// take copies one deb, hashes what it writes, and judges it by that, so that the data are read once. A deb that the caller may not read is
// left for takeInside. An error is one of the whole export.
func (x *exporter) take(ctx context.Context, t *take, buf []byte) (err error) {
	if x.prejudge(t); t.done() {
		return nil
	}
	o := handoff.Options{Mode: debMode, Overwrite: handoff.First, ModTime: time.Unix(0, t.from.MTime)}
	if t.Action == Check {
		o.Overwrite = handoff.Replace
	}
	if t.pending, err = handoff.NewPending(x.dl.dir, t.File, o); err != nil {
		return err
	}
	if t.closed = x.dir == nil; t.closed {
		return nil
	}
	t.err = fill(ctx, x.dir, x.source(t), t.pending.File(), buf, &t.sum)
	switch {
	case fatal(t.err):
		return t.err
	case denied(t.err):
		t.err, t.closed = nil, true
	case t.err == nil:
		if t.err = x.judge(t); !t.done() {
			t.pending.Written()
		}
	}
	return nil
}

// takeInside does the same with those that only inner root can read. What it has written is read again here, and hashed.
func (x *exporter) takeInside(ctx context.Context, all []take) error {
	var closed []*take
	args := fillArgs{Rest: x.rootfs.rest}
	var files []*os.File
	for i := range all {
		if t := &all[i]; t.closed {
			closed = append(closed, t)
			args.Files = append(args.Files, x.source(t))
			files = append(files, t.pending.File())
		}
	}
	if len(closed) == 0 {
		return nil
	}
	problems, err := inside(ctx, x.rootfs, fillHalf, args, files...)
	if err != nil {
		return err
	}
	return crew(ctx, workers(x.Workers), len(closed), func(_ context.Context, i int, buf []byte) error {
		t := closed[i]
		if t.err = problems[i].err(); t.err != nil {
			if fatal(t.err) {
				return t.err
			}
			return nil
		}
		if t.sum, t.err = digest(t.pending.File(), buf); t.err == nil {
			t.err = x.judge(t)
		}
		return nil
	})
}

// done tells whether a deb's fate is decided, and is not to be published.
func (t *take) done() bool { return t.err != nil || t.local || t.skip }

// prejudge decides what can be decided without a copy: by the size, or because nothing could be compared with it.
func (x *exporter) prejudge(t *take) {
	if x.local.maybe(t.pkg, t.Size) {
		return
	}
	sums := x.index[t.pkg]
	switch {
	case len(sums) > 0 && !hasSize(sums, t.Size):
		t.err = judge(sums, Sum{Size: t.Size})
	case len(sums) > 0:
	case x.Unlisted == FailUnlisted:
		t.err = errUnlisted
	case x.Unlisted == SkipUnlisted:
		t.skip = true
	}
}

var errUnlisted = errors.New("not in any list")

// source is what has to be copied of a deb. It must not have holes if no list bounds its size: it could be a hole of terabytes.
func (x *exporter) source(t *take) source {
	return source{Name: t.from.Name, Size: t.from.Size, Dense: len(x.index[t.pkg]) == 0}
}

// judge decides by the bytes of our copy, which nobody else can change.
func (x *exporter) judge(t *take) (err error) {
	if t.local, err = x.local.has(t.pkg, t.sum); err != nil || t.local {
		return err
	}
	if sums := x.index[t.pkg]; len(sums) > 0 {
		return judge(sums, t.sum)
	}
	switch x.Unlisted {
	case FailUnlisted:
		return errUnlisted
	case SkipUnlisted:
		t.skip = true
		return nil
	}
	return claims(t.pending.File(), t.pkg, t.sum.Size)
}

// sealAll puts on the disk what is right.
func (x *exporter) sealAll(ctx context.Context, all []take) error {
	return crew(ctx, workers(x.Workers), len(all), func(_ context.Context, i int, _ []byte) error {
		if t := &all[i]; !t.done() {
			return x.seal(t)
		}
		return nil
	})
}

// seal gives the copy its mode and the time of the original, by which later runs know it, and puts it on the disk.
func (x *exporter) seal(t *take) error {
	if err := t.pending.Seal(); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(t.pending.File().Fd()), &st); err != nil {
		return &fs.PathError{Op: "fstat", Path: t.File, Err: err}
	}
	x.digests.put(file(t.File, &st), t.sum)
	return nil
}

// commit publishes what has been found right, and counts.
func (x *exporter) commit(ctx context.Context, all []take) error {
	var ready []*handoff.Pending
	for i := range all {
		if t := &all[i]; !t.done() {
			ready = append(ready, t.pending)
		}
	}
	if len(ready) > 0 {
		if err := x.publish(ctx, func() error { return handoff.CommitAll(ready, nil) }); err != nil {
			return err
		}
	}
	for i := range all {
		x.count(&all[i])
	}
	if x.Progress != nil {
		x.Progress(x.sum.Bytes)
	}
	return nil
}

func (x *exporter) count(t *take) {
	switch {
	case t.err != nil:
		x.refuse(t.Step, t.err)
	case t.local:
		x.sum.Local++
	case t.skip:
		x.sum.Unlisted = append(x.sum.Unlisted, t.File)
	case !t.pending.Published(): // somebody else was first
		x.sum.Same++
	default:
		x.sum.Copied++
		x.sum.Bytes += t.Size
		if t.Action == Check {
			x.sum.Replaced++
		}
	}
}

// checkFile checks an open deb: against sums, or, when there are none, that it is whole. known saves reading it again.
func checkFile(f *os.File, sums []Sum, known *record, buf []byte) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &fs.PathError{Op: "fstat", Path: f.Name(), Err: err}
	}
	if len(sums) == 0 {
		_, err := checkStructure(f, st.Size)
		return err
	}
	if !hasSize(sums, st.Size) {
		return damaged(judge(sums, Sum{Size: st.Size}))
	}
	got, err := known.get(f, file("", &st), buf)
	if err != nil {
		return err
	}
	return damaged(judge(sums, got))
}

func damaged(err error) error {
	if err != nil {
		err = fmt.Errorf("%w: %w", errDamaged, err)
	}
	return err
}
