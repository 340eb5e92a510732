package facl

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/nsferry/nsferry/acl"
	"golang.org/x/sys/unix"
)

// Job is what is left to do about one file, or about a tree, that the process has no right to. It goes through JSON to a
// process that has, which calls Do. Ids in it are those of the process that made it.
type Job struct {
	Path      string // for messages and output
	Listed    bool   // the file itself is done, its entries are not
	Recursive bool
	OneFS     bool
	Set       *setJob
	Restore   *block
	Get       *getJob
}

// setJob is what Set does with a file.
type setJob struct {
	Changes []change
	Rule    maskRule
	Test    bool
}

// getJob is what Get prints of a file.
type getJob struct {
	Access, Default               bool
	OmitHeader, SkipBase, Tabular bool
	Numeric, Absolute             bool
	Effective                     effective
}

// unmappedError is an id that does not exist for the process that may do a job.
type unmappedError struct {
	group bool
	id    uint32
}

func (e *unmappedError) Error() string {
	kind := "uid"
	if e.group {
		kind = "gid"
	}
	return fmt.Sprintf("operation not permitted, and %s %d is not in the map of the namespace where it would be (--inside takes inner ids)", kind, e.id)
}

// Do does a job on name in the directory at, and returns its exit status. here gives the ids of this process for those of
// the one that made the job; e.IDs, if not nil, translates between this process and texts. A name that is a symlink is an
// error: this process may be able to do what the other's user never meant.
func Do(j Job, at *os.File, name string, e IO, here func(group bool, id uint32) (uint32, bool)) int {
	e.Denied = nil
	s := newSession(e)
	s.walk = walkMode{recursive: j.Recursive, links: noLinks, oneFS: j.OneFS}
	s.listed = j.Listed
	refuse := func(f *file, err error) error {
		if err == nil && f == nil {
			return &os.PathError{Op: "openat", Path: j.Path, Err: unix.ELOOP}
		}
		return err
	}
	if g := j.Get; g != nil {
		get := &getter{session: s, out: bufio.NewWriter(e.Stdout), access: g.Access, def: g.Default, omitHeader: g.OmitHeader, skipBase: g.SkipBase,
			tabular: g.Tabular, numeric: g.Numeric, absolute: g.Absolute, absoluteWarned: true, effective: g.Effective}
		status := s.jobNode(at, name, j.Path, func(path string, f *file, err error) int { return get.visit(path, f, refuse(f, err)) })
		if err := get.out.Flush(); err != nil {
			return get.complain(j.Path, err)
		}
		return status
	}
	set := &setter{session: s}
	list := []*[]change{}
	if j.Set != nil {
		set.rule, set.test, set.changes = j.Set.Rule, j.Set.Test, j.Set.Changes
		list = append(list, &set.changes)
	}
	if j.Restore != nil {
		list = append(list, &j.Restore.Entries)
	}
	for _, l := range list {
		if err := translate(*l, here); err != nil {
			return set.complain(j.Path, err)
		}
	}
	return s.jobNode(at, name, j.Path, func(path string, f *file, err error) int {
		if err = refuse(f, err); err == nil && j.Restore != nil {
			return set.put(f, *j.Restore)
		}
		return set.visit(path, f, err)
	})
}

// Restorable tells whether here knows all ids that a backup has for a file; a job of another kind always is. Without the
// right to all of it the one who made the job does what he can.
func (j Job) Restorable(here func(group bool, id uint32) (uint32, bool)) bool {
	return j.Restore == nil || translate(slices.Clone(j.Restore.Entries), here) == nil
}

// translate gives changes the ids of this process.
func translate(changes []change, here func(group bool, id uint32) (uint32, bool)) error {
	for i := range changes {
		e := &changes[i].Entry
		if e.Tag != acl.User && e.Tag != acl.Group {
			continue
		}
		id, ok := here(e.Tag == acl.Group, e.ID)
		if !ok {
			return &unmappedError{e.Tag == acl.Group, e.ID}
		}
		e.ID = id
	}
	return nil
}

// jobNode is node for the top of a job.
func (s *session) jobNode(at *os.File, name, path string, visit visitor) int {
	dir := unix.AT_FDCWD
	if at != nil {
		dir = int(at.Fd())
	}
	f, link, err := s.open(dir, name, path, true)
	if err != nil || link {
		return visit(path, nil, err)
	}
	f.close()
	return s.node(dir, name, path, nil, visit)
}

// denied tells whether an error is one that another process might not get, and that there is such a process.
func (s *session) denied(err error) bool {
	return s.Denied != nil && s.walk.links != allLinks && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM))
}
