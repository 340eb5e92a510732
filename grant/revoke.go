package grant

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/nsferry/nsferry/idshift/userns"
	"golang.org/x/sys/unix"
)

// Revoke takes the grants of the directories back: each, and each directory above that was opened for it, is again what it was,
// unless somebody has changed it since; then only the grant's entries go. Directories that Grant made go if they are
// empty. It goes on after an error.
func Revoke(ctx context.Context, e *userns.Env, dirs []string) (Report, error) {
	st, err := openStore()
	if err != nil {
		return Report{}, err
	}
	defer st.close()
	s := &session{env: e, store: st}
	var errs []error
	for _, dir := range dirs {
		path, err := resolve(dir)
		if err == nil {
			err = s.revoke(ctx, path)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("revoke %s: %w", dir, err))
		}
	}
	return s.report, errors.Join(errs...)
}

// revoke drops every use for path, the deepest directory first.
func (s *session) revoke(ctx context.Context, path string) error {
	target := path
	if d, err := openDirectory(path); err == nil { // it may have been renamed since
		if r := s.store.find(d.id, path); r != nil {
			target = r.Path
		}
		d.Close()
	}
	var concerned []*record
	for _, r := range s.store.records {
		if len(r.usesOf(target)) > 0 {
			concerned = append(concerned, r)
		}
	}
	if len(concerned) == 0 {
		s.report.add(path, "was never granted, or is revoked already", "")
		return nil
	}
	slices.SortFunc(concerned, func(a, b *record) int {
		return strings.Count(b.Path, "/") - strings.Count(a.Path, "/")
	})
	var errs []error
	for _, r := range concerned {
		at := r.Path
		if at == target {
			at = path
		}
		errs = append(errs, s.restore(ctx, r, at, target))
	}
	return errors.Join(errs...)
}

// restore takes the uses for the grant of target out of the directory at path.
func (s *session) restore(ctx context.Context, r *record, path, target string) error {
	d, err := openDirectory(path)
	if errors.Is(err, fs.ErrNotExist) {
		s.report.add(path, "is gone", "")
		return s.store.remove(r)
	}
	if err != nil {
		return err
	}
	defer d.Close()
	if !r.ID.same(d.id, r.Path == path) {
		s.report.add(path, "is another directory than the one that was granted; left alone", "")
		return s.store.remove(r)
	}
	before, changed := r.undone(d.now)
	left := *r
	left.Uses = slices.Clone(r.Uses)
	left.drop(target)
	left.Before = before
	left.After = before.granted(left.Uses)
	if len(left.Uses) == 0 && r.Made {
		if err := unix.Rmdir(path); err == nil {
			s.report.add(path, "removed", "")
			return s.store.remove(r)
		} else if !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
			return &os.PathError{Op: "rmdir", Path: path, Err: err}
		}
	}
	// Killed after this, the record still tells what to go back to.
	if err := d.write(ctx, s.env, left.After); err != nil {
		return err
	}
	what := "restored"
	switch {
	case changed:
		what = "changed since it was granted; the grant's entries were taken out, the rest stays"
	case len(left.Uses) > 0:
		what = "other grants still need it"
	}
	s.report.add(path, what, d.now.effective().Short())
	if len(left.Uses) == 0 {
		return s.store.remove(r)
	}
	*r = left
	return s.store.put(r)
}
