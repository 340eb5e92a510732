//go:build linux

// Package treetest makes trees from text and text from trees, so that a test states a tree and reads one; what is
// built and dumped again is the same text.
//
// It shares no code with package archive/tree, whose oracle it is. The grammar is that of package archive/listing
// and docs/TREE.md.
package treetest

import (
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/acl"
	"github.com/nsferry/nsferry/archive/listing"
)

// Build makes the nodes in the directory dir, which exists. Parents come before what is in them, and inodes before
// their hard links. A node named "." gives dir itself its metadata. Everything is made as the line says or is an error,
// also an owner, device or xattr that the running user may not make; without root, lines name the own ids.
func Build(dir string, nodes []listing.Node) error {
	root, err := openRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, n := range nodes {
		if err := buildOne(root, n, func(a at) error { return create(root, a, n) }); err != nil {
			return fmt.Errorf("build: %w", err)
		}
	}
	// Directories get their metadata when they are filled, the deepest first: modes that lock the builder out, default
	// ACLs and mtimes must not meet what is still to be made.
	dirs := slices.DeleteFunc(slices.Clone(nodes), func(n listing.Node) bool { return n.Type != listing.Dir })
	slices.SortFunc(dirs, func(a, b listing.Node) int { return listing.CompareNames(b.Name, a.Name) })
	for _, n := range dirs {
		if err := buildOne(root, n, func(a at) error { return decorate(a, n) }); err != nil {
			return fmt.Errorf("build: %w", err)
		}
	}
	return nil
}

// buildOne locates the node's place and runs step there.
func buildOne(root *os.File, n listing.Node, step func(at) error) error {
	if n.Type == listing.Dir && n.Name == "." {
		return step(at{root, ".", "."})
	}
	a, err := locate(root, n.Name)
	if err != nil {
		return err
	}
	defer a.release(root)
	return step(a)
}

// create makes the inode, and for all but directories gives it its metadata.
func create(root *os.File, a at, n listing.Node) error {
	var err error
	switch n.Type {
	case listing.Dir:
		if n.Name == "." {
			return nil
		}
		return a.call("mkdirat", func() error { return unix.Mkdirat(a.fd(), a.base, 0o700) })
	case listing.Hardlink:
		return link(root, a, n.Target)
	case listing.File:
		err = createFile(a, n)
	case listing.Symlink:
		err = a.call("symlinkat", func() error { return unix.Symlinkat(n.Target, a.fd(), a.base) })
	default:
		err = mknod(a, n)
	}
	if err != nil {
		return err
	}
	return decorate(a, n)
}

func link(root *os.File, a at, target string) error {
	t, err := locate(root, target)
	if err != nil {
		return err
	}
	defer t.release(root)
	return a.call("linkat", func() error { return unix.Linkat(t.fd(), t.base, a.fd(), a.base, 0) })
}

func mknod(a at, n listing.Node) error {
	types := map[listing.Type]uint32{
		listing.Fifo: unix.S_IFIFO, listing.Sock: unix.S_IFSOCK, listing.Char: unix.S_IFCHR, listing.Block: unix.S_IFBLK,
	}
	dev := unix.Mkdev(n.Major, n.Minor)
	return a.call("mknodat", func() error { return unix.Mknodat(a.fd(), a.base, types[n.Type]|0o600, int(dev)) })
}

// createFile writes the data segments and leaves the rest as holes.
func createFile(a at, n listing.Node) (err error) {
	f, err := a.open(unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	if !told(n) {
		return fmt.Errorf("file %s: its line gives a size but no content", n.Name)
	}
	buf := make([]byte, 1<<16)
	for _, s := range segmentsOf(n) {
		for off := s.Offset; off < s.Offset+s.Length; {
			part := buf[:min(int64(len(buf)), s.Offset+s.Length-off)]
			contentAt(n, part, off)
			if _, err := f.WriteAt(part, off); err != nil {
				return err
			}
			off += int64(len(part))
		}
	}
	return f.Truncate(n.Size)
}

// decorate sets owner, mode, xattrs, capability, ACLs and time, in the order in which none undoes another: chown drops
// setuid bits and capabilities, chmod cuts ACL masks.
func decorate(a at, n listing.Node) error {
	err := a.call("fchownat", func() error {
		return unix.Fchownat(a.fd(), a.base, int(n.UID), int(n.GID), unix.AT_SYMLINK_NOFOLLOW)
	})
	if err != nil {
		return err
	}
	if n.Type != listing.Symlink {
		if err := setMode(a, n); err != nil {
			return err
		}
	}
	xattrs := n.Xattrs
	if n.Cap != nil {
		xattrs = append(slices.Clip(xattrs), listing.Xattr{Key: "security.capability", Value: n.Cap})
	}
	for _, x := range xattrs {
		err := a.call("lsetxattr "+x.Key, func() error { return unix.Lsetxattr(a.proc(), x.Key, x.Value, 0) })
		if err != nil {
			return err
		}
	}
	if err := setACLs(a, n); err != nil {
		return err
	}
	if n.MTime == nil {
		return nil
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: n.MTime.Sec, Nsec: int64(n.MTime.Nsec)}}
	return a.call("utimensat", func() error {
		return unix.UtimesNanoAt(a.fd(), a.base, times, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// setMode sets the mode and checks it, for the kernel drops a setgid bit silently.
func setMode(a at, n listing.Node) error {
	f, err := a.open(unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	// An O_PATH descriptor keeps a swapped name out; chmod by its magic link reaches that inode only.
	err = a.call("chmod", func() error { return unix.Chmod("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), n.Mode) })
	if err != nil {
		return err
	}
	st, err := a.stat()
	if err == nil && st.Mode&0o7777 != n.Mode {
		err = fmt.Errorf("%s: mode %03o became %03o", n.Name, n.Mode, st.Mode&0o7777)
	}
	return err
}

// setACLs sets what the line tells, and takes off what the inode inherited where it tells nothing.
func setACLs(a at, n listing.Node) error {
	if n.Type == listing.Symlink {
		return nil
	}
	if err := setACL(a, "system.posix_acl_access", n.ACL, n.Mode); err != nil {
		return err
	}
	if n.Type == listing.Dir {
		if err := setACL(a, "system.posix_acl_default", n.Default, n.Mode); err != nil {
			return err
		}
	}
	return setMode(a, n) // taking off an inherited ACL shows the mode that was under it
}

func setACL(a at, key, text string, mode uint32) error {
	if text == "" {
		err := a.call("lremovexattr "+key, func() error { return unix.Lremovexattr(a.proc(), key) })
		if isAny(err, unix.ENODATA, unix.EOPNOTSUPP) {
			return nil
		}
		return err
	}
	parsed, err := acl.Parse(text, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", a.name, err)
	}
	if key == "system.posix_acl_access" && parsed.Mode() != mode&0o777 {
		return fmt.Errorf("%s: mode %03o contradicts acl=%s", a.name, mode, text)
	}
	return a.call("lsetxattr "+key, func() error { return unix.Lsetxattr(a.proc(), key, parsed.Encode(), 0) })
}
