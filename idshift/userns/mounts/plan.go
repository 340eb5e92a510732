//go:build linux

package mounts

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// cover is a mount that later targets may lie in.
type cover struct {
	path   string   // as place.path
	source *os.File // what is seen there; nil for a preset
	free   bool     // Setup itself may create targets there
}

// planner collects the placeholders that a Spec needs.
type planner struct {
	root   *os.File
	covers []cover
	list   []Placeholder
}

// Plan lists the mount targets that the tree at Root lacks, parents first, and those that are placeholders of
// another run, which must be shared lest that run's end takes our mounts away. It changes nothing and may run on
// either side of the namespace border, wherever Root can be searched.
//
// A target inside an earlier bind must exist in that bind's source: nothing is ever created there.
func Plan(s Spec) ([]Placeholder, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	p := &planner{root: s.Root}
	if s.Root == nil {
		var err error
		if p.root, err = openPath("/"); err != nil {
			return nil, err
		}
		defer p.root.Close()
	}
	if err := p.presets(&s); err != nil {
		return nil, err
	}
	for _, b := range s.Binds {
		isDir, err := isDirectory(b.Source)
		if err != nil {
			return nil, err
		}
		at, err := p.want(b.Target, isDir, false)
		if err != nil {
			return nil, fmt.Errorf("bind %s: %w", b.Target, err)
		}
		if at == "" {
			return nil, fmt.Errorf("bind %s: would cover the root directory", b.Target)
		}
		p.covers = append(p.covers, cover{path: at, source: b.Source})
	}
	return p.list, nil
}

// presets plans in the order in which Setup mounts.
func (p *planner) presets(s *Spec) error {
	for _, d := range []struct {
		on   bool
		name string
		free bool
	}{{s.Proc, "proc", false}, {s.Sys, "sys", false}, {s.Dev, "dev", true}, {s.Shm, "dev/shm", true}} {
		if !d.on {
			continue
		}
		at, err := p.want(d.name, true, true)
		if err != nil {
			return fmt.Errorf("/%s: %w", d.name, err)
		}
		p.covers = append(p.covers, cover{path: at, free: d.free})
	}
	for _, f := range []struct {
		on   bool
		name string
	}{{s.ResolvConf != nil, resolvConf}, {s.Apt, policyRC}} {
		if !f.on {
			continue
		}
		at, err := p.want(f.name, false, true)
		if err != nil {
			return fmt.Errorf("/%s: %w", f.name, err)
		}
		p.covers = append(p.covers, cover{path: at})
	}
	return nil
}

// want plans one target and returns where it is, free of symlinks.
func (p *planner) want(target string, dir, nofollow bool) (at string, err error) {
	w, err := walk(p.root, target, nofollow, func(at string) bool { return p.cover(at) != nil })
	if err != nil {
		return "", err
	}
	defer w.close()
	at = w.full()
	if c := p.cover(at); c != nil {
		if c.free || c.source == nil {
			return at, nil // Setup creates it, or tells that /proc or /sys lacks it
		}
		return at, inSource(c, strings.TrimPrefix(strings.TrimPrefix(at, c.path), "/"))
	}
	if len(w.rest) == 0 && at != "" {
		if err := sameKind(w, dir); err != nil {
			return "", err
		}
	}
	for i := range w.names {
		f := w.leaf
		if i+1 < len(w.dirs) {
			f = w.dirs[i+1]
		}
		if shared, err := IsPlaceholder(f); err != nil {
			return "", err
		} else if shared {
			p.add(Placeholder{Path: path.Join(w.names[:i+1]...), Dir: f != w.leaf})
		}
	}
	for i := range w.rest {
		p.add(Placeholder{
			Path: path.Join(w.path(), path.Join(w.rest[:i+1]...)),
			Dir:  i < len(w.rest)-1 || dir,
		})
	}
	return at, nil
}

// add appends what is not there yet.
func (p *planner) add(h Placeholder) {
	if !slices.Contains(p.list, h) {
		p.list = append(p.list, h)
	}
}

// cover returns the last mount that at lies on or in.
func (p *planner) cover(at string) *cover {
	for i := len(p.covers) - 1; i >= 0; i-- {
		c := &p.covers[i]
		if at == c.path || strings.HasPrefix(at, c.path+"/") {
			return c
		}
	}
	return nil
}

// sameKind refuses to mount a directory on a file and the other way round.
func sameKind(w *place, dir bool) error {
	if dir == (w.leaf == nil) {
		return nil
	}
	no := unix.ENOTDIR
	if !dir {
		no = unix.EISDIR
	}
	return &os.PathError{Op: "mount", Path: path.Join("/", w.full()), Err: no}
}

// inSource checks that a target exists in the source of the bind that covers it.
func inSource(c *cover, rest string) error {
	isDir, err := isDirectory(c.source)
	if err != nil || rest == "" {
		return err
	}
	if !isDir {
		return &os.PathError{Op: "mount", Path: path.Join("/", c.path, rest), Err: unix.ENOTDIR}
	}
	w, err := walk(c.source, rest, false, nil)
	if err != nil {
		return err
	}
	defer w.close()
	if len(w.rest) > 0 {
		return errors.Join(fmt.Errorf("create it in %s: it lies in the bind on /%s, where none is made",
			c.source.Name(), c.path), &os.PathError{Op: "mount", Path: path.Join("/", c.path, rest), Err: unix.ENOENT})
	}
	return nil
}
