package audit

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"github.com/nsferry/nsferry/acl"
	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/idshift"
	"github.com/nsferry/nsferry/idshift/userns/mounts"
	"golang.org/x/sys/unix"
)

// examine tells what is wrong with one entry. Only what depends on the name, and not on the inode, is looked at again for
// further names of one inode.
func (w *walker) examine(e *tree.Entry, f facts, up level, here *level, first bool) error {
	if e.Type() == unix.S_IFREG && e.Stat.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
		if err := w.setid(e, f, up); err != nil {
			return err
		}
	}
	if !first {
		if id := (inode{e.Device(), e.Stat.Ino}); here.rootfs >= 0 && w.seen[id] < 0 { // its first name was in none
			w.seen[id] = here.rootfs
			w.callers(e, f, here)
		}
		return nil
	}
	if w.leftover(e) {
		return nil
	}
	w.owner(e, f, here)
	if e.Type() == unix.S_IFLNK {
		return nil
	}
	if err := w.acls(e, here); err != nil {
		return err
	}
	switch e.Type() {
	case unix.S_IFDIR:
		w.worldWritable(e, here)
		return w.stub(e, here)
	case unix.S_IFREG:
		if e.Stat.Size == 0 {
			return w.stub(e, here)
		}
		return w.capability(e, f, here)
	}
	return nil
}

// owner looks at whose the inode is.
func (w *walker) owner(e *tree.Entry, f facts, here *level) {
	path := w.abs(e.Path)
	if f.class == Foreign || f.gclass == Foreign {
		which := "owner and group are"
		switch {
		case f.gclass != Foreign:
			which = "its owner is"
		case f.class != Foreign:
			which = "its group is"
		}
		w.tell(Finding{"owner.foreign", Problem, path, which + " in no range of yours", "neither you nor inner root can change or remove it",
			fmt.Sprintf("as root: chown -h %d:%d %s", w.rootOf(here, idshift.UID), w.rootOf(here, idshift.GID), quote(path))})
		return
	}
	w.callers(e, f, here)
}

// callers tells of what is the caller's own in a rootfs.
func (w *walker) callers(e *tree.Entry, f facts, here *level) {
	if here.rootfs < 0 || w.report.Trees[here.rootfs].Model == "caller" || w.isPlain(w.Ids.Caller[idshift.UID]) {
		return
	}
	if f.class == Caller {
		path := w.abs(e.Path)
		w.tell(Finding{"owner.caller", Problem, path, "it belongs to you, within a rootfs", "inside it has no owner: it shows as nobody, and an archive cannot hold it",
			"nsferry take " + quote(path)})
	}
}

func (w *walker) isPlain(uid uint32) bool {
	_, ok := w.Ids.Plain.UID.ToInside(uid)
	return ok
}

// rootOf is inner root's outside id in the tree that here is in.
func (w *walker) rootOf(here *level, k idshift.Kind) uint32 {
	if here.rootfs >= 0 && w.report.Trees[here.rootfs].Model == "caller" {
		return w.Ids.Caller[k]
	}
	id, _ := w.Ids.Plain.Of(k).ToOutside(0)
	return id
}

// setid looks for what hands an id of the range to whoever runs it.
func (w *walker) setid(e *tree.Entry, f facts, up level) error {
	a, err := access(e)
	if err != nil {
		return err
	}
	if !up.open || !w.othersMay(a, f, acl.PermExecute) {
		return nil
	}
	bits, whose := "setuid", fmt.Sprintf("uid %d", f.uid)
	switch mode := e.Stat.Mode & (unix.S_ISUID | unix.S_ISGID); {
	case mode == unix.S_ISGID && e.Stat.Mode&0o010 == 0:
		return nil // without group execute the bit means something else (inode(7))
	case mode == unix.S_ISGID:
		bits, whose = "setgid", fmt.Sprintf("gid %d", f.gid)
	case mode != unix.S_ISUID:
		whose += fmt.Sprintf(" and gid %d", f.gid)
	}
	w.tell(Finding{"setid.reachable", Problem, w.abs(e.Path), "a " + bits + " file that other users of this machine can run",
		"it gives them " + whose + ", and with it all that belongs to that id, in every tree", "chmod " + w.closed + " " + quote(w.Dir)})
	return nil
}

// worldWritable looks for directories in which everybody may replace what others have made.
func (w *walker) worldWritable(e *tree.Entry, here *level) {
	if e.Stat.Mode&0o002 == 0 || e.Stat.Mode&unix.S_ISVTX != 0 {
		return
	}
	w.tell(Finding{"mode.world", Problem, w.abs(e.Path), fmt.Sprintf("everybody may write to the directory (mode %04o), and it is not sticky", e.Stat.Mode&0o7777),
		"any user, in the product too, may replace what is in it", w.inTree(e.Path, here, "chmod o-w")})
}

// inTree words a command on path: in its rootfs, where no directory above is in the way.
func (w *walker) inTree(path string, here *level, command string) string {
	abs := w.abs(path)
	if here.rootfs < 0 {
		return "nsferry run -- " + command + " " + quote(abs)
	}
	root := w.report.Trees[here.rootfs].Path
	return fmt.Sprintf("nsferry run --rootfs %s -- %s %s", quote(root), command, quote("/"+strings.TrimPrefix(strings.TrimPrefix(abs, root), "/")))
}

// acls looks for entries that name somebody who does not exist inside.
func (w *walker) acls(e *tree.Entry, here *level) error {
	for _, kind := range []acl.Kind{acl.Access, acl.Default} {
		if kind == acl.Default && e.Type() != unix.S_IFDIR {
			continue
		}
		a, err := readACL(e, kind)
		if err != nil {
			return err
		}
		for _, n := range a {
			if n.Tag == acl.User || n.Tag == acl.Group {
				w.named(e, here, kind, n)
			}
		}
	}
	return nil
}

// named looks at one entry for a user or group.
func (w *walker) named(e *tree.Entry, here *level, kind acl.Kind, n acl.Entry) {
	path, k := w.abs(e.Path), idshift.UID
	if n.Tag == acl.Group {
		k = idshift.GID
	}
	id, class := acl.Undefined, Foreign
	if n.ID != acl.Undefined {
		id = w.Ids.outside(k, n.ID)
		class = w.Ids.class(k, id)
	}
	drop := "nsferry acl set -b"
	if kind == acl.Default {
		drop = "nsferry acl set -k"
	}
	inTree := here.rootfs >= 0
	switch {
	case class == Foreign && inTree:
		w.tell(Finding{"acl.foreign", Problem, path, fmt.Sprintf("its %s ACL names a %s that is in no range of yours", kind, n.Tag), "it cannot be archived, nor set again inside", drop + " " + quote(path)})
	case class == Caller && inTree && w.report.Trees[here.rootfs].Model != "caller" && !w.isPlain(w.Ids.Caller[0]):
		w.tell(Finding{"acl.caller", Problem, path, fmt.Sprintf("its %s ACL names you (%s %d)", kind, n.Tag, id), "inside nobody has this id: cp -a fails, and archives lose the entry", drop + " " + quote(path)})
	case kind == acl.Default && !inTree && class != Foreign:
		here.spread = &Finding{"acl.inheritable", Problem, path, fmt.Sprintf("its default ACL names %s %d, and a rootfs is below it", n.Tag, id),
			"what is made in the directory inherits the entry, the next rootfs too", "nsferry acl set -k " + quote(path)}
	}
}

// capability looks for capabilities that another user namespace's root has given.
func (w *walker) capability(e *tree.Entry, f facts, here *level) error {
	value, err := e.Xattr(tree.XattrCapability)
	if err == nil && value == nil {
		return nil
	}
	path := w.abs(e.Path)
	foreign := func(whose string) {
		w.tell(Finding{"capability.foreign", Problem, path, "its capabilities count for " + whose, "inside it has none: the program will not work",
			w.inTree(e.Path, here, "setcap -r") + ", and set them again inside"})
	}
	if errors.Is(err, unix.EOVERFLOW) {
		foreign("the root of a range that is not yours")
		return nil
	}
	if err != nil {
		return err
	}
	c, err := idshift.ParseCapability(value)
	if err != nil {
		w.tell(Finding{"capability.damaged", Problem, path, err.Error(), "the kernel takes it for none", w.inTree(e.Path, here, "setcap -r")})
		return nil
	}
	if c.Namespaced && w.Ids.outside(idshift.UID, c.RootID) != w.rootOf(here, idshift.UID) {
		foreign(fmt.Sprintf("a root with outside id %d, and this tree's is %d", w.Ids.outside(idshift.UID, c.RootID), w.rootOf(here, idshift.UID)))
	}
	return nil
}

// stub looks for what was made for a mount and never taken away.
func (w *walker) stub(e *tree.Entry, here *level) error {
	how := unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(e.Dir, e.Base, how, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", e.Path, err)
	}
	file := newFile(fd, e.Path)
	defer file.Close()
	is, err := mounts.IsPlaceholder(file)
	if err != nil || !is {
		return err
	}
	clean := "nsferry rm " + quote(w.abs(e.Path))
	if here.rootfs >= 0 {
		clean = "nsferry run --rootfs " + quote(w.report.Trees[here.rootfs].Path) + " -- true"
	}
	w.tell(Finding{"mount.stub", Note, w.abs(e.Path), "it was made for a mount, by a run that is killed or still there", "archives leave it out; other tools take it for part of the tree", clean})
	return nil
}

// leftoverKind is one kind of what somebody has not finished with, or was killed over.
type leftoverKind struct {
	id, what string
	name     *regexp.Regexp
}

// leftovers are the kinds. They are made when they are asked for: compiling them would cost every start of the program, on both sides of the border.
var leftovers = sync.OnceValue(func() []leftoverKind {
	return []leftoverKind{
		{"leftover.partial", "an unfinished file or tree of nsferry's", regexp.MustCompile(`^\..+\.partial-[0-9a-zA-Z]{4,16}$`)},
		{"leftover.sbuild", "a chroot that sbuild has left", regexp.MustCompile(`^tmp\.sbuild\.[0-9A-Za-z_]+$`)},
		{"leftover.mmdebstrap", "a chroot that mmdebstrap has left", regexp.MustCompile(`^mmdebstrap\.[0-9A-Za-z_]{8,}$`)},
	}
})

// leftover tells of such a name, and keeps what is below it out of all findings.
func (w *walker) leftover(e *tree.Entry) bool {
	name := filepath.Base(w.abs(e.Path))
	for _, l := range leftovers() {
		if !l.name.MatchString(name) {
			continue
		}
		if e.Type() == unix.S_IFDIR {
			w.quiet = e.Path
		}
		f := Finding{l.id, Problem, w.abs(e.Path), l.what, "it takes room, and rm cannot remove what your sub-ids own", "nsferry rm " + quote(w.abs(e.Path))}
		if busy(e) {
			f.Severity, f.What, f.Why, f.Mend = Note, l.what+", which a process is at work on", "it goes when that is done", "wait"
		}
		w.tell(f)
		return true
	}
	return false
}
