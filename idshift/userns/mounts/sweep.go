//go:build linux

package mounts

import (
	"errors"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// presetTargets are the targets that Sweep always looks at.
var presetTargets = []string{"dev/shm", "dev", "proc", "sys", resolvConf, policyRC}

// Sweep removes placeholders that a run left in the tree when its janitor was killed, or the power went: marked,
// empty, and locked by nobody. It looks at the presets' targets, at the given ones (of binds), and at the directories
// above them; so also for the half made, which have a temporary name. It returns how many it removed.
func Sweep(root *os.File, targets ...string) (removed int, err error) {
	names, parents := map[string]bool{}, map[string]bool{"": true}
	for _, t := range append(targets, presetTargets...) {
		w, err := walk(root, t, false, nil)
		if err != nil {
			if isErrno(err, unix.ENOTDIR, unix.ELOOP) { // no target can be there
				continue
			}
			return 0, err
		}
		for i := range w.names {
			name := path.Join(w.names[:i+1]...)
			names[name] = true
			parents[name] = i+1 < len(w.dirs)
		}
		w.close()
	}
	for p, isDir := range parents {
		if !isDir {
			continue
		}
		temps, err := temporaries(root, p)
		if err != nil {
			return 0, err
		}
		for _, t := range temps {
			names[t] = true
		}
	}
	var errs []error
	for _, n := range deepestFirst(names) {
		gone, err := sweepOne(root, n)
		if gone {
			removed++
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return removed, errors.Join(errs...)
}

// deepestFirst sorts names so that a directory comes after what is in it.
func deepestFirst(names map[string]bool) []string {
	var list []string
	for n := range names {
		list = append(list, n)
	}
	slices.Sort(list)
	slices.Reverse(list)
	return list
}

// temporaries lists half made placeholders in the directory dir.
func temporaries(root *os.File, dir string) ([]string, error) {
	d, err := openParent(root, path.Join(dir, "x"))
	if err != nil {
		if isErrno(err, unix.ENOENT, unix.ENOTDIR, unix.ELOOP) {
			return nil, nil
		}
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var temps []string
	for _, n := range names {
		if strings.HasPrefix(n, tempPrefix) {
			temps = append(temps, path.Join(dir, n))
		}
	}
	return temps, nil
}

// sweepOne removes what is at name if it is a placeholder in nobody's hands.
func sweepOne(root *os.File, name string) (removed bool, err error) {
	parent, err := openParent(root, name)
	if err != nil {
		if isErrno(err, unix.ENOENT) {
			return false, nil
		}
		return false, err
	}
	defer parent.Close()
	f, err := openReal(parent, path.Base(name))
	if err != nil {
		if isErrno(err, unix.ENOENT) {
			return false, nil
		}
		return false, err
	}
	defer f.Close()
	removed, err = removeLocked(root, name, f, time.Time{})
	if isErrno(err, unix.ENOTEMPTY, unix.EEXIST) { // it got content, or holds a placeholder in use
		return false, nil
	}
	return removed, err
}
