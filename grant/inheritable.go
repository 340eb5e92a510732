package grant

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// lookDepth is how far below a directory a rootfs or package is looked for: DL_DIR/deb/CODENAME/X.deb,
// WORKDIR/BUILD/rootfs. lookMost bounds the directories that are read.
const (
	lookDepth = 3
	lookMost  = 2000
)

// inheritable refuses a default ACL where it does harm. Above a rootfs everything made in the tree would carry an entry that
// cp -a cannot keep and tar --acls loses inside; in a directory of Debian packages inner root could rewrite the
// packages that are put there later, after their hashes were checked.
func inheritable(path string, force []Force) error {
	if !slices.Contains(force, ForceInheritable) {
		for _, dir := range chain(path) {
			if isRootfs(dir) {
				return rootfsRefusal(path, "it is in the rootfs "+dir)
			}
		}
	}
	debs := !slices.Contains(force, ForceDebs)
	if debs && (filepath.Base(path) == "deb" || filepath.Base(filepath.Dir(path)) == "deb") {
		return debsRefusal("its name says that it is a cache of Debian packages")
	}
	l := look{debs: debs, rootfs: !slices.Contains(force, ForceInheritable)}
	switch what := l.below(path, lookDepth); {
	case what == "":
		return nil
	case strings.HasSuffix(what, ".deb"):
		return debsRefusal(what + " is in it")
	default:
		return rootfsRefusal(path, what)
	}
}

func rootfsRefusal(path, why string) error {
	return fmt.Errorf("a default ACL on %s is refused, for %s: what is made in the rootfs would inherit entries that make cp -a fail "+
		"and that archives lose; leave out --default, or force it by --force=%s", path, why, ForceInheritable)
}

func debsRefusal(why string) error {
	return fmt.Errorf("a default ACL is refused, for %s: inner root could rewrite packages after their hashes were checked; "+
		"leave out --default, or force it by --force=%s", why, ForceDebs)
}

// look is a bounded search.
type look struct {
	debs, rootfs bool
	read         int
}

// below returns the first thing under dir that speaks against a default ACL: a package, or a sentence about a rootfs.
func (l *look) below(dir string, depth int) string {
	if l.read++; l.read > lookMost {
		return ""
	}
	if l.rootfs && isRootfs(dir) {
		return dir + " is a rootfs"
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		if l.rootfs && os.IsPermission(err) {
			return dir + " is closed to you and may be a rootfs"
		}
		return "" // it does not exist yet
	}
	for _, e := range entries {
		switch name := filepath.Join(dir, e.Name()); {
		case !e.IsDir() && l.debs && strings.HasSuffix(e.Name(), ".deb"):
			return name
		case e.IsDir() && depth > 1:
			if what := l.below(name, depth-1); what != "" {
				return what
			}
		}
	}
	return ""
}

// isRootfs tells whether the directory at path looks like the root of a system, other than the one that this process runs
// in: it has etc and usr, and var or bin.
func isRootfs(path string) bool {
	if filepath.Clean(path) == "/" {
		return false
	}
	has := func(name string) bool {
		_, err := os.Lstat(filepath.Join(path, name))
		return err == nil
	}
	return has("etc") && has("usr") && (has("var") || has("bin"))
}
