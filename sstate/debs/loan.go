package debs

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/idshift/handoff"
	"github.com/nsferry/nsferry/idshift/userns"
)

// maxOpen is how many debs are open at once, and go to a half together; every process may open 1024 files.
const maxOpen = 500

// loan is one deb on its way into a rootfs.
type loan struct {
	Step
	file    *os.File // DL's
	stat    File
	order   order
	damaged error
	placed  *placed
}

// apply brings in what the plan says. The lists are looked up while DL's files are opened and, where their digests are not on record, read;
// a namespace is entered meanwhile, if the archives are not what they are to be.
func (m *importer) apply(ctx context.Context, e *userns.Env, plan []Step) error {
	var todo []Step
	for _, s := range plan {
		switch s.Action {
		case Same:
			m.sum.Same++
		case Leave:
			m.sum.Left++
		case Refuse:
			m.sum.Damaged = append(m.sum.Damaged, Refusal{s.File, s.Reason})
		default:
			todo = append(todo, s)
		}
	}
	if len(todo) == 0 {
		return nil
	}
	m.digests = openRecord(m.dl.dir)
	m.lookup = send(func() (Index, error) { return lookUp(ctx, m.rootfs, m.Lists, packageNames(todo)) })
	defer m.lookup.wait()
	for c := range slices.Chunk(todo, maxOpen) {
		if err := m.bring(ctx, e, c); err != nil {
			return err
		}
	}
	m.digests.save(m.there)
	return nil
}

// bring opens, checks and places some debs.
func (m *importer) bring(ctx context.Context, e *userns.Env, steps []Step) error {
	all := make([]loan, len(steps))
	defer func() {
		for _, l := range all {
			l.file.Close() // nil is an error that nobody needs
		}
	}()
	err := crew(ctx, workers(m.Workers), len(all), func(_ context.Context, i int, buf []byte) error {
		all[i].Step = steps[i]
		all[i].damaged = m.open(e, &all[i], buf)
		return nil
	})
	if err != nil {
		return err
	}
	index, err := m.lookup.wait()
	if err != nil {
		return err
	}
	err = crew(ctx, workers(m.Workers), len(all), func(_ context.Context, i int, buf []byte) error {
		if l := &all[i]; l.damaged == nil {
			l.damaged = m.check(l, index[l.pkg], buf)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if _, err := m.settling.wait(); err != nil {
		return err
	}
	m.link(all)
	if err := m.place(ctx, e, all); err != nil {
		return err
	}
	return m.count(all)
}

// open opens a deb of DL, and reads it if it will have to be, while nobody knows yet what the lists say.
func (m *importer) open(e *userns.Env, l *loan, buf []byte) (err error) {
	if l.file, err = openRegular(m.dl.dir, l.File); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(l.file.Fd()), &st); err != nil {
		return &fs.PathError{Op: "fstat", Path: l.File, Err: err}
	}
	l.stat = file(l.File, &st)
	l.order = order{Name: l.stat.Name, Hard: linkable(l.file, &st, e), Check: l.Action == Check, MTime: l.stat.MTime}
	if !m.lookup.over() && !m.copies(l) {
		_, err = m.digests.get(l.file, l.stat, buf)
	}
	return err
}

// copies tells whether a deb is going to be copied, so that it can be read and checked then. What could be a hard link has to be checked before,
// and so has what the half compares with another file.
func (m *importer) copies(l *loan) bool {
	return !l.order.Check && m.Link != LinkHard && (!l.order.Hard || m.Link != LinkSafe || l.stat.Dev != m.rootDev)
}

// check checks a deb, or leaves that to the half, by what the lists say.
func (m *importer) check(l *loan, sums []Sum, buf []byte) error {
	l.order.Sure = len(sums) > 0
	if _, known := m.digests.sum(l.stat); known || !l.order.Sure || !m.copies(l) || !hasSize(sums, l.stat.Size) {
		return checkFile(l.file, sums, m.digests, buf)
	}
	l.order.Hard, l.order.Want = false, sums
	return nil
}

// linkable tells whether a hard link in a rootfs leaves DL's file safe, and readable there. Foreign code runs in the plain map; so the
// owner must have no place in it, and nobody who has may write. The owner must be the caller, too: who may link a file of
// another's depends on fs.protected_hardlinks.
func linkable(f *os.File, st *unix.Stat_t, e *userns.Env) bool {
	if st.Uid != e.Caller.UID || st.Mode&0o6002 != 0 || st.Mode&0o004 == 0 {
		return false
	}
	if _, inside := e.Plain.UID.ToInside(st.Uid); inside {
		return false
	}
	if _, inside := e.Plain.GID.ToInside(st.Gid); inside && st.Mode&0o020 != 0 {
		return false
	}
	_, err := unix.Fgetxattr(int(f.Fd()), tree.XattrAccess, nil)
	return err == unix.ENODATA || err == unix.EOPNOTSUPP
}

// link makes the hard links that the caller may make himself, in archives that are open to him. The half makes the others, or knows why not.
func (m *importer) link(all []loan) {
	if m.rootfs.rest != "" || m.Link != LinkSafe && m.Link != LinkHard {
		return
	}
	dir, err := openArchives(m.rootfs.root)
	if err != nil {
		return
	}
	defer dir.Close()
	for i := range all {
		l := &all[i]
		if l.damaged == nil && l.order.Hard && !l.order.Check && linkInto(dir, l.file, l.File) == nil {
			l.placed = &placed{Method: hardLink}
		}
	}
}

// place has the half place what is left.
func (m *importer) place(ctx context.Context, e *userns.Env, all []loan) error {
	var left []*loan
	a := placeArgs{Rest: m.rootfs.rest, Owner: ownerIn(e), Link: m.Link, Workers: m.Workers}
	files := []*os.File{m.rootfs.root}
	for i := range all {
		if l := &all[i]; l.damaged == nil && l.placed == nil {
			left = append(left, l)
			a.Orders = append(a.Orders, l.order)
			files = append(files, l.file)
		}
	}
	if len(left) == 0 {
		return nil
	}
	answers, err := placeHalf.Run(ctx, e, a, nil, files...)
	for i := range answers {
		p, l := &answers[i], left[i]
		l.placed = p
		if p.Damaged {
			l.damaged = p.Problem.err()
		}
		if s := (Sum{Size: l.stat.Size}); copy(s.SHA256[:], p.SHA256) == len(s.SHA256) {
			m.digests.put(l.stat, s)
		}
	}
	return err
}

func (m *importer) count(all []loan) error {
	if m.sum.Methods == nil {
		m.sum.Methods = map[handoff.Method]int{}
	}
	for _, l := range all {
		if l.damaged != nil {
			m.sum.Damaged = append(m.sum.Damaged, Refusal{l.File, l.damaged.Error()})
			continue
		}
		switch err := l.placed.Problem.err(); {
		case fatal(err):
			return fmt.Errorf("%s: %w", l.File, err)
		case err != nil:
			m.sum.Refused = append(m.sum.Refused, Refusal{l.File, err.Error()})
		case l.placed.Method == kept:
			m.sum.Same++
		default:
			m.sum.Brought++
			m.sum.Bytes += l.Size
			m.sum.Methods[l.placed.Method]++
		}
	}
	if m.Progress != nil {
		m.Progress(m.sum.Bytes)
	}
	return nil
}
