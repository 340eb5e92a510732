package archive

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/nsferry/nsferry/archive/tarfmt"
)

// maxDepth bounds how deep a tree is: every level that leads to an entry takes memory.
const maxDepth = 16384

// quote is a name for messages, which are not the place for megabytes.
func quote(name string) string {
	const most = 512
	if len(name) > most {
		return fmt.Sprintf("%q… (%d bytes)", name[:most], len(name))
	}
	return strconv.Quote(name)
}

// entryPath turns an entry's name into a path below the root: "." or a clean relative one. Leading "/" and "./" mean
// the root, as for every tar; ".." never occurs in a rootfs and is refused, top is a directory to strip.
func entryPath(name, top string) (string, error) {
	if strings.IndexByte(name, 0) >= 0 {
		return "", fmt.Errorf("entry %s: the name holds a NUL", quote(name))
	}
	kept := make([]string, 0, 16)
	for part := range strings.SplitSeq(name, "/") {
		switch part {
		case "", ".":
			continue
		case "..":
			return "", fmt.Errorf("entry %s: %w", quote(name), ErrOutside)
		}
		if len(part) > 255 {
			return "", fmt.Errorf("entry %s: a component is longer than 255 bytes", quote(name))
		}
		if len(kept) == maxDepth {
			return "", fmt.Errorf("entry %s: the name has more than %d components", quote(name), maxDepth)
		}
		kept = append(kept, part)
	}
	if top != "" {
		if len(kept) == 0 || kept[0] != top {
			return "", fmt.Errorf("entry %s is not below %q, the archive's single top directory", quote(name), top)
		}
		kept = kept[1:]
	}
	if name == "" {
		return "", errors.New("an entry has an empty name")
	}
	if len(kept) == 0 {
		return ".", nil
	}
	return strings.Join(kept, "/"), nil
}

// storedName is how an entry of ours is named (FORMAT §1).
func storedName(path string, typ tarfmt.Type) string {
	switch {
	case path == ".":
		return "./"
	case typ == tarfmt.Dir:
		return "./" + path + "/"
	}
	return "./" + path
}

// ErrOutside is a name that leads out of the tree.
var ErrOutside = errors.New(`the name has a ".." component and would lead outside the tree`)

// topDir is the name that a lone top directory has in archives made for a cache (FACTS §4, sstate before June).
const topDir = "rootfs"

// Excludes are patterns for paths below the root, anchored there: path.Match per component, so that "*" does not
// match a "/". What matches is left out with all that is in it; "dir/*" keeps the directory itself.
type Excludes []string

// Check reports a malformed pattern.
func (x Excludes) Check() error {
	for _, p := range x {
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("exclude pattern %q: %w", p, err)
		}
	}
	return nil
}

// match tells whether name (clean, relative) itself matches a pattern.
func (x Excludes) match(name string) bool {
	for _, p := range x {
		if ok, _ := path.Match(strings.TrimPrefix(strings.TrimPrefix(strings.TrimSuffix(p, "/"), "."), "/"), name); ok {
			return true
		}
	}
	return false
}

// matchAbove tells whether name or a directory that it is in matches: for streams, where a directory's
// entries come one by one.
func (x Excludes) matchAbove(name string) bool {
	if len(x) == 0 {
		return false
	}
	for i := range len(name) {
		if name[i] == '/' && x.match(name[:i]) {
			return true
		}
	}
	return x.match(name)
}
