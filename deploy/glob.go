package deploy

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/archive/tree"
)

// maxMatches bounds what a pattern may stand for on its way, in a tree that may be hostile.
const maxMatches = 10000

// meta tells whether a component of a pattern stands for more than one name.
func meta(part string) bool { return strings.ContainsAny(part, `*?[`) }

// literal is the name that a component without meta means: a backslash takes the meaning from what follows it.
func literal(part string) string {
	var b strings.Builder
	for i := 0; i < len(part); i++ {
		if part[i] == '\\' && i+1 < len(part) {
			i++
		}
		b.WriteByte(part[i])
	}
	return b.String()
}

// components splits a pattern at its slashes, and checks it.
func components(pattern string) (parts []string, err error) {
	for part := range strings.SplitSeq(pattern, "/") {
		if part == "" || part == "." {
			continue
		}
		if _, err := path.Match(part, ""); err != nil {
			return nil, fmt.Errorf("%s: %w", pattern, err)
		}
		parts = append(parts, part)
	}
	if len(parts) == 0 {
		return nil, fmt.Errorf("%q is not the name of a file", pattern)
	}
	return parts, nil
}

// matches tells whether a name is meant by a component with meta. As in a shell, a leading dot has to be named.
func matches(part, name string) bool {
	if strings.HasPrefix(name, ".") && !strings.HasPrefix(strings.TrimPrefix(part, `\`), ".") {
		return false
	}
	ok, err := path.Match(part, name)
	return ok && err == nil
}

// expand returns the files that a pattern stands for, sorted, directories left out. Without meta that is the pattern,
// whether there is such a file or not.
func (s *site) expand(pattern string) ([]string, error) {
	parts, err := components(pattern)
	if err != nil {
		return nil, err
	}
	found, wild := []string{""}, false
	for _, part := range parts {
		if !meta(part) {
			for i := range found {
				found[i] = join(found[i], literal(part))
			}
			continue
		}
		if found, err = s.step(found, part, wild); err != nil {
			return nil, err
		}
		wild = true
	}
	if !wild {
		return found, nil
	}
	found = slices.DeleteFunc(found, func(name string) bool { return !s.isFile(name) })
	slices.Sort(found)
	return found, nil
}

// step replaces directories by the names in them that part matches. One that is not there is an error only where it was
// named and not found by a pattern.
func (s *site) step(dirs []string, part string, wild bool) (next []string, err error) {
	for _, dir := range dirs {
		names, err := s.readDir(dir)
		if err != nil {
			if wild && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)) {
				continue
			}
			return nil, err
		}
		for _, name := range names {
			if matches(part, name) {
				next = append(next, join(dir, name))
			}
		}
		if len(next) > maxMatches {
			return nil, fmt.Errorf("%s matches more than %d names", part, maxMatches)
		}
	}
	return next, nil
}

func (s *site) readDir(dir string) ([]string, error) {
	fd, err := s.openDir(dir)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return tree.ReadNames(fd)
}

// join adds a name to a path in the site, which is "" at its root. Names hold no slash, and ".." has to stay.
func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}
