package grant

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/nsferry/nsferry/acl"
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
	"golang.org/x/sys/unix"
)

// Grant makes each directory that is missing (mkdir -p) and lets inner root and the also-ids read, write and search it.
// Everything that can be refused is refused before the first change to a directory; the ACL comes last, and is read back.
func Grant(ctx context.Context, e *userns.Env, dirs []string, o Options) (Report, error) {
	who, err := grantees(e, o.AlsoIDs)
	if err != nil {
		return Report{}, err
	}
	st, err := openStore()
	if err != nil {
		return Report{}, err
	}
	defer st.close()
	s := &session{env: e, store: st}
	for _, dir := range dirs {
		path, err := resolve(dir)
		if err == nil {
			err = s.grant(ctx, path, who, o)
		}
		if err != nil {
			return s.report, fmt.Errorf("grant %s: %w", dir, err)
		}
	}
	return s.report, nil
}

// grant does one directory. path is absolute and without symlinks.
func (s *session) grant(ctx context.Context, path string, who []Grantee, o Options) error {
	if o.Default {
		if err := inheritable(path, o.Force); err != nil {
			return err
		}
	}
	missing, nearest := split(path)
	above, err := s.closed(nearest, path, who)
	if err != nil {
		return err
	}
	if err := s.permitted(above, o.Traverse); err != nil {
		return err
	}
	if err := s.suitable(nearest, who, o); err != nil {
		return err
	}
	for len(above) > 0 {
		var uses []Use
		dir := above[0].dir
		for ; len(above) > 0 && above[0].dir == dir; above = above[1:] {
			uses = append(uses, Use{For: path, Inside: above[0].who.Inside, UID: above[0].who.UID, Perm: acl.PermExecute})
		}
		if err := s.enter(ctx, dir, uses); err != nil {
			return err
		}
	}
	if err := s.join(nearest, path); err != nil {
		return err
	}
	for i, dir := range missing {
		if err := s.make(ctx, dir, path, who, i == len(missing)-1); err != nil {
			return err
		}
	}
	return s.open(ctx, path, who, o)
}

// split tells which directories of path are missing, from above, and the last one that is there.
func split(path string) (missing []string, nearest string) {
	nearest = path
	for nearest != "/" {
		if _, err := os.Lstat(nearest); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		missing = append(missing, nearest)
		nearest = filepath.Dir(nearest)
	}
	slices.Reverse(missing)
	return missing, nearest
}

// join notes that path needs the directories above it that other grants have made, so that they go with the last one.
func (s *session) join(nearest, path string) error {
	for _, dir := range chain(nearest) {
		for _, r := range s.store.records {
			if r.Path != dir || !r.Made || dir == path {
				continue
			}
			r.add(Use{For: path})
			if err := s.store.put(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// make makes one missing directory: of mode 0777 less the umask, as mkdir(1) does, and without ACLs inherited. On the way to
// the last one the grantees get their way through.
func (s *session) make(ctx context.Context, dir, path string, who []Grantee, last bool) error {
	if err := os.Mkdir(dir, 0o777); err != nil {
		return err
	}
	d, err := openDirectory(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	before := d.now
	if before.Access != nil || before.Default != nil { // of a directory above; the umask was not used then (umask(2))
		before.Mode, before.Access, before.Default = before.Mode&^0o777|0o777&^ferry.Umask(), nil, nil
	}
	if before.Mode&0o700 != 0o700 { // mkdir -p adds these where it has to go on
		before.Mode |= 0o700
	}
	r := &record{Path: dir, ID: d.id, Made: true, Uses: []Use{{For: path}}, Before: before, After: before}
	if !last {
		for _, w := range who {
			if !reaches(before, w, s.env) {
				r.add(Use{For: path, Inside: w.Inside, UID: w.UID, Perm: acl.PermExecute})
			}
		}
		if !d.now.noACLs {
			r.After = before.granted(r.Uses)
		}
	}
	if err := s.store.put(r); err != nil {
		return err
	}
	if err := d.write(ctx, s.env, r.After); err != nil {
		return err
	}
	s.report.add(dir, "made", "")
	return nil
}

// open gives the grantees the directory itself.
func (s *session) open(ctx context.Context, path string, who []Grantee, o Options) error {
	d, err := openDirectory(path)
	if err != nil {
		return err
	}
	defer d.Close()
	if d.now.noACLs {
		return s.take(ctx, d, who)
	}
	var uses []Use
	for _, w := range who {
		uses = append(uses, Use{For: path, Inside: w.Inside, UID: w.UID, Perm: permAll, Default: o.Default})
	}
	return s.change(ctx, d, uses, "granted")
}

// enter adds uses to a directory above.
func (s *session) enter(ctx context.Context, dir string, uses []Use) error {
	d, err := openDirectory(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return s.change(ctx, d, uses, "search granted")
}

// change adds uses to the directory's record and makes it so.
func (s *session) change(ctx context.Context, d *directory, uses []Use, what string) error {
	r := s.store.find(d.id, d.path)
	if r == nil {
		r = &record{Path: d.path, ID: d.id, Before: d.now, After: d.now}
	} else {
		r.Before, _ = r.undone(d.now)
	}
	for _, u := range uses {
		r.add(u)
	}
	r.After = r.Before.granted(r.Uses)
	if r.After.equal(d.now) {
		what = "already " + what
	} else if err := keepsSetgid(s.env, d); err != nil {
		return err
	}
	if err := s.store.put(r); err != nil {
		return err
	}
	if err := d.write(ctx, s.env, r.After); err != nil {
		return err
	}
	s.report.add(d.path, what, d.now.effective().Short())
	return nil
}

// suitable refuses, before anything is made, a filesystem without ACLs, unless inner root may be the owner instead.
func (s *session) suitable(nearest string, who []Grantee, o Options) error {
	d, err := openDirectory(nearest)
	if err != nil {
		return err
	}
	defer d.Close()
	switch {
	case !d.now.noACLs:
		return nil
	case !o.OrTake:
		return fmt.Errorf("the filesystem of %s keeps no ACLs; with --or-take inner root becomes the owner instead, or mount it with ACLs (option acl)", nearest)
	case o.Default || len(who) > 1:
		return fmt.Errorf("the filesystem of %s keeps no ACLs, and an owner can stand neither for --default nor for --also-id", nearest)
	}
	return nil
}

// take makes inner root the owner where the filesystem keeps no ACLs.
func (s *session) take(ctx context.Context, d *directory, who []Grantee) error {
	if d.now.UID == who[0].UID {
		s.report.add(d.path, "already inner root's", "")
		return nil
	}
	r := s.store.find(d.id, d.path)
	if r == nil {
		r = &record{Path: d.path, ID: d.id, Before: d.now}
	} else {
		r.Before, _ = r.undone(d.now)
	}
	r.Taken = true
	r.add(Use{For: d.path, UID: who[0].UID})
	r.After = r.Before.taken(who[0].UID)
	if err := s.store.put(r); err != nil {
		return err
	}
	if err := d.write(ctx, s.env, r.After); err != nil {
		return err
	}
	s.report.add(d.path, fmt.Sprintf("taken: its owner is now inner root (%d outside), for the filesystem keeps no ACLs", who[0].UID), "")
	return nil
}

// keepsSetgid refuses what would lose a setgid bit: the kernel clears it when the ACL is set by somebody who is not in the
// directory's group (posix_acl_update_mode in fs/posix_acl.c).
func keepsSetgid(e *userns.Env, d *directory) error {
	if d.now.Mode&unix.S_ISGID == 0 || e.Direct || d.now.UID != uint32(os.Getuid()) {
		return nil
	}
	groups, err := os.Getgroups()
	if err != nil || d.now.GID == uint32(os.Getgid()) || slices.Contains(groups, int(d.now.GID)) {
		return err
	}
	return fmt.Errorf("%s is setgid for group %d, which you are not in; setting an ACL would clear the bit", d.path, d.now.GID)
}
