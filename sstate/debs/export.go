package debs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/sstate/lock"
)

// Unlisted says what Export does with debs that no list knows.
type Unlisted string

// The policies.
const (
	SkipUnlisted Unlisted = "skip" // leave them, and say how many
	KeepUnlisted Unlisted = "keep" // take those that are whole, and are what their names say
	FailUnlisted Unlisted = "fail" // refuse them
)

// ExportOptions say how Export goes about it. The zero value checks against the lists of the rootfs and skips what they do not know.
type ExportOptions struct {
	Unlisted   Unlisted
	LocalRepos []string     // directories whose packages are not exported
	Lists      string       // a directory of Packages files to trust in place of the rootfs's own
	KeepMode   bool         // leave the archives as open as Import made them
	DryRun     bool         // only plan
	Workers    int          //
	Note       func(string) // told what is waited for; may be nil
	Progress   func(done int64)
}

// Exported is what Export did, or in a dry run what it would do as far as names and sizes tell.
type Exported struct {
	DryRun   bool      `json:"dry_run,omitempty"`
	Copied   int       `json:"copied"`
	Replaced int       `json:"replaced,omitempty"` // of the copied: in place of a damaged file
	Same     int       `json:"same"`
	Local    int       `json:"local,omitempty"`    // of a local repository
	Unlisted []string  `json:"unlisted,omitempty"` // skipped
	Refused  []Refusal `json:"refused,omitempty"`
	Bytes    int64     `json:"bytes"` // copied
	Plan     []Step    `json:"plan,omitempty"`
}

// String is the summary in one line.
func (s Exported) String() string {
	verb := "exported"
	if s.DryRun {
		verb = "would export"
	}
	text := fmt.Sprintf("%s %d debs, %d bytes; %d were there already", verb, s.Copied, s.Bytes, s.Same)
	if s.Replaced > 0 {
		text += fmt.Sprintf("; %d replaced damaged ones", s.Replaced)
	}
	if s.Local > 0 {
		text += fmt.Sprintf("; %d are of a local repository", s.Local)
	}
	return text
}

// Export takes the debs in apt's archives of the rootfs at root into the cache at dl, which is made if it is missing. Each is
// copied, checked against the lists by size and SHA256, and only then gets its name. What is wrong with a deb is no reason not to
// take the others: all refusals come in one *RefusedError, with a valid summary.
func Export(ctx context.Context, env EnvFunc, root, dl string, o ExportOptions) (sum Exported, err error) {
	x, err := newExporter(ctx, env, root, dl, o)
	if err != nil {
		return sum, fmt.Errorf("export %s: %w", root, err)
	}
	defer func() { err = errors.Join(err, x.close()) }()
	plan := planExport(x.archives, x.there)
	if o.DryRun {
		return x.dry(plan), nil
	}
	if err := x.apply(ctx, plan); err != nil {
		return x.sum, fmt.Errorf("export %s: %w", root, err)
	}
	if err := x.restoreMode(ctx); err != nil {
		return x.sum, fmt.Errorf("export %s: %w", root, err)
	}
	if len(x.sum.Refused) > 0 {
		return x.sum, &RefusedError{"export " + root, len(plan), x.sum.Refused}
	}
	return x.sum, nil
}

// exporter is one Export.
type exporter struct {
	ExportOptions
	rootfs   *rootfs
	dl       *cache
	archives Listing
	there    Listing  // DL
	dir      *os.File // the archives, if the caller may read them
	index    Index
	digests  *record
	local    *localRepos
	sum      Exported
}

func newExporter(ctx context.Context, env EnvFunc, root, dl string, o ExportOptions) (_ *exporter, err error) {
	x := &exporter{ExportOptions: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, x.close())
		}
	}()
	switch o.Unlisted {
	case "":
		x.Unlisted = SkipUnlisted
	case SkipUnlisted, KeepUnlisted, FailUnlisted:
	default:
		return nil, fmt.Errorf("no such policy for unlisted debs: %q", o.Unlisted)
	}
	if x.rootfs, err = openRootfs(root, env); err != nil {
		return nil, err
	}
	if x.dl, err = openCache(dl, o.Note); err != nil {
		return nil, err
	}
	if x.archives, _, x.there, err = listBoth(ctx, x.rootfs, x.dl); err != nil {
		return nil, err
	}
	return x, nil
}

func (x *exporter) close() (err error) {
	if x.rootfs != nil {
		err = x.rootfs.Close()
	}
	if x.dl != nil {
		err = errors.Join(err, x.dl.Close())
	}
	if x.dir != nil {
		err = errors.Join(err, x.dir.Close())
	}
	return err
}

func (x *exporter) dry(plan []Step) Exported {
	sum := Exported{DryRun: true, Plan: plan}
	for _, s := range plan {
		switch s.Action {
		case Copy:
			sum.Copied++
			sum.Bytes += s.Size
		case Same:
			sum.Same++
		case Refuse:
			sum.Refused = append(sum.Refused, Refusal{s.File, s.Reason})
		}
	}
	return sum
}

// apply carries out the plan.
func (x *exporter) apply(ctx context.Context, plan []Step) error {
	var todo []Step
	for _, s := range plan {
		switch s.Action {
		case Same:
			x.sum.Same++
		case Refuse:
			x.refuse(s, errors.New(s.Reason))
		default:
			todo = append(todo, s)
		}
	}
	if len(todo) == 0 {
		return nil
	}
	if err := x.prepare(ctx, todo); err != nil {
		return err
	}
	todo = slices.DeleteFunc(todo, func(s Step) bool { return s.Action == Check && x.rightInCache(s) })
	for len(todo) > 0 {
		n := chunk(todo)
		if err := x.takeAll(ctx, todo[:n]); err != nil {
			return err
		}
		todo = todo[n:]
	}
	x.digests.save(x.there)
	return nil
}

// chunk says how many steps go together: few enough open files, and few enough bytes that a kill does not undo much.
func chunk(steps []Step) int {
	const most, bytes = 64, 256 << 20
	n, sum := 0, int64(0)
	for n < len(steps) && n < most && (n == 0 || sum+steps[n].Size <= bytes) {
		sum += steps[n].Size
		n++
	}
	return n
}

// prepare gets what it takes to judge the debs of todo.
func (x *exporter) prepare(ctx context.Context, todo []Step) error {
	if err := x.dl.make(); err != nil {
		return err
	}
	x.digests = openRecord(x.dl.dir)
	var err error
	if x.index, err = lookUp(ctx, x.rootfs, x.Lists, packageNames(todo)); err != nil {
		return err
	}
	if x.local, err = findLocal(x.LocalRepos); err != nil {
		return err
	}
	if x.rootfs.rest == "" {
		if x.dir, err = openArchives(x.rootfs.root); denied(err) {
			return nil
		}
	}
	return err
}

// rightInCache tells whether what DL has under the step's name is a right deb, so that nothing has to be done.
func (x *exporter) rightInCache(s Step) bool {
	f, err := openRegular(x.dl.dir, s.File)
	if err != nil {
		return false // vanished or replaced; taking the deb says more
	}
	defer f.Close()
	if checkFile(f, x.index[s.pkg], x.digests, make([]byte, bufSize)) != nil {
		return false
	}
	x.sum.Same++
	return true
}

func (x *exporter) refuse(s Step, err error) {
	x.sum.Refused = append(x.sum.Refused, Refusal{s.File, err.Error()})
}

// restoreMode makes the archives what they are in a fresh Debian: the modes that Import gives are for the time of a build.
func (x *exporter) restoreMode(ctx context.Context) error {
	a := x.archives
	if x.KeepMode || !a.Exists || a.Dir.Mode&0o1022 == 0 && !a.ACL {
		return nil
	}
	e, err := x.rootfs.env()
	if err != nil {
		return err
	}
	_, err = settleHalf.Run(ctx, e, settleArgs{Rest: x.rootfs.rest, Owner: ownerIn(e), Mode: archivesMode}, nil, x.rootfs.root)
	return err
}

// publish gives finished files their names, in one moment under the lock.
func (x *exporter) publish(ctx context.Context, commit func() error) error {
	return x.dl.locked(ctx, lock.Options{Mode: lockMode(x.dl.dir)}, commit)
}

// lockMode lets those lock DL who may write to it.
func lockMode(dl *os.File) os.FileMode {
	var st unix.Stat_t
	if unix.Fstat(int(dl.Fd()), &st) == nil && st.Mode&0o020 != 0 {
		return 0o664
	}
	return 0o644
}
