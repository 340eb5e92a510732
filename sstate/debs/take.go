package debs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/idshift/handoff"
)

// debMode is the mode of a deb: apt's own, and readable for inner ids that it does not belong to.
const debMode = 0o644

// take is one deb on its way into DL.
type take struct {
	Step
	pending *handoff.Pending
	sum     Sum
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
	for i, s := range steps {
		all[i].Step = s
		if x.prejudge(&all[i]); all[i].done() {
			continue
		}
		o := handoff.Options{Mode: debMode, Overwrite: handoff.First}
		if s.Action == Check {
			o.Overwrite = handoff.Replace
		}
		if all[i].pending, err = handoff.NewPending(x.dl.dir, s.File, o); err != nil {
			return err
		}
	}
	if err := x.fillAll(ctx, all); err != nil {
		return err
	}
	if err := x.judgeAll(ctx, all); err != nil {
		return err
	}
	return x.commit(ctx, all)
}

// done tells whether a deb's fate is decided, and is not to be published.
func (t *take) done() bool { return t.err != nil || t.local || t.skip }

// prejudge decides what can be decided without a copy: by the size, or because nothing could be compared with it.
func (x *exporter) prejudge(t *take) {
	if x.local.maybe(t.pkg) {
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

// fillAll fills the pending files: what the caller may read he reads himself, the rest inner root does.
func (x *exporter) fillAll(ctx context.Context, all []take) error {
	var group errgroup.Group
	group.SetLimit(workers(x.Workers))
	for i := range all {
		if t := &all[i]; !t.done() {
			group.Go(func() error {
				t.err = fs.ErrPermission
				if x.dir != nil {
					t.err = fill(ctx, x.dir, t.File, t.pending.File(), x.dense(t))
				}
				if fatal(t.err) {
					return t.err
				}
				return nil
			})
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	var closed []*take
	args := fillArgs{Rest: x.rootfs.rest}
	var files []*os.File
	for i := range all {
		if t := &all[i]; t.pending != nil && denied(t.err) {
			closed = append(closed, t)
			args.Names = append(args.Names, bytesName(t.File))
			args.Dense = append(args.Dense, x.dense(t))
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
	for i, t := range closed {
		if t.err = problems[i].err(); fatal(t.err) {
			return t.err
		}
	}
	return nil
}

// dense tells whether a deb must not have holes: no list bounds the size of what none knows, and it could be a hole of terabytes.
func (x *exporter) dense(t *take) bool { return len(x.index[t.pkg]) == 0 }

// judgeAll checks what has been copied, and puts on the disk what is right.
func (x *exporter) judgeAll(ctx context.Context, all []take) error {
	var group errgroup.Group
	group.SetLimit(workers(x.Workers))
	for i := range all {
		if t := &all[i]; !t.done() {
			group.Go(func() error {
				if err := ctx.Err(); err != nil {
					return err
				}
				if t.err = x.judge(t); t.done() {
					return nil
				}
				return x.seal(t)
			})
		}
	}
	return group.Wait()
}

// judge decides by the bytes of our copy, which nobody else can change.
func (x *exporter) judge(t *take) error {
	f := t.pending.File()
	got, err := digest(f)
	if err != nil {
		return err
	}
	if t.local, err = x.local.has(t.pkg, got); err != nil || t.local {
		return err
	}
	t.sum = got
	if sums := x.index[t.pkg]; len(sums) > 0 {
		return judge(sums, got)
	}
	switch x.Unlisted {
	case FailUnlisted:
		return errUnlisted
	case SkipUnlisted:
		t.skip = true
		return nil
	}
	return claims(f, t.pkg, got.Size)
}

// seal gives the copy the time of the original, by which later runs know it, and puts it on the disk.
func (x *exporter) seal(t *take) error {
	f := t.pending.File()
	if err := setMTime(f, t.from.MTime); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &fs.PathError{Op: "fstat", Path: t.File, Err: err}
	}
	x.digests.put(file(t.File, &st), t.sum)
	return t.pending.Seal()
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
func checkFile(f *os.File, sums []Sum, known *record) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &fs.PathError{Op: "fstat", Path: f.Name(), Err: err}
	}
	if len(sums) > 0 {
		if got, ok := known.sum(file("", &st)); ok {
			return damaged(judge(sums, got))
		}
	}
	if len(sums) == 0 {
		_, err := checkStructure(f, st.Size)
		return err
	}
	if !hasSize(sums, st.Size) {
		return damaged(judge(sums, Sum{Size: st.Size}))
	}
	got, err := digest(f)
	if err != nil {
		return err
	}
	known.put(file("", &st), got)
	return damaged(judge(sums, got))
}

func damaged(err error) error {
	if err != nil {
		err = fmt.Errorf("%w: %w", errDamaged, err)
	}
	return err
}
