//go:build linux

package treetest

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/acl"
	"github.com/nsferry/nsferry/archive/listing"
)

// shortContent is the longest file, in bytes, whose content is dumped as text; longer ones are dumped as sha256.
const shortContent = 128

// Dump returns the tree in dir as nodes, "." first, in the order of listing.CompareNames. Ids are those the process sees.
// The first name of an inode in that order has its line, the others are hard links to it. It keeps one descriptor
// open for each level of the tree.
func Dump(dir string) ([]listing.Node, error) {
	root, err := openRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	d := dumper{seen: map[inode]string{}}
	if err := d.node(at{root, ".", "."}); err != nil {
		return nil, fmt.Errorf("dump %s: %w", dir, err)
	}
	return d.nodes, nil
}

type inode struct{ dev, ino uint64 }

type dumper struct {
	nodes []listing.Node
	seen  map[inode]string // first name of each inode that has several
}

// node dumps what is at a, and below it.
func (d *dumper) node(a at) error {
	st, err := a.stat()
	if err != nil {
		return err
	}
	n := listing.Node{Name: a.name, UID: st.Uid, GID: st.Gid, Mode: st.Mode & 0o7777,
		MTime: &listing.Time{Sec: st.Mtim.Sec, Nsec: uint32(st.Mtim.Nsec)}}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if st.Nlink > 1 && !isDir {
		id := inode{st.Dev, st.Ino}
		if first, again := d.seen[id]; again {
			d.nodes = append(d.nodes, listing.Node{Type: listing.Hardlink, Name: a.name, Target: first})
			return nil
		}
		d.seen[id] = a.name
	}
	if err := describe(a, st, &n); err != nil {
		return err
	}
	if err := readXattrs(a, &n); err != nil {
		return err
	}
	d.nodes = append(d.nodes, n)
	if isDir {
		return d.children(a)
	}
	return nil
}

func (d *dumper) children(a at) error {
	dir, err := a.open(unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, base := range names {
		name := base
		if a.name != "." {
			name = a.name + "/" + base
		}
		if err := d.node(at{dir, base, name}); err != nil {
			return err
		}
	}
	return nil
}

// describe fills in what the type of the inode asks for.
func describe(a at, st unix.Stat_t, n *listing.Node) error {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		n.Type = listing.Dir
	case unix.S_IFREG:
		n.Type = listing.File
		return readFile(a, n)
	case unix.S_IFLNK:
		n.Type, n.Mode = listing.Symlink, 0
		target, err := readlink(a)
		n.Target = target
		return err
	case unix.S_IFIFO:
		n.Type = listing.Fifo
	case unix.S_IFSOCK:
		n.Type = listing.Sock
	case unix.S_IFCHR:
		n.Type = listing.Char
	case unix.S_IFBLK:
		n.Type = listing.Block
	default:
		return fmt.Errorf("%s: unknown type, mode %#o", a.name, st.Mode)
	}
	n.Major, n.Minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	return nil
}

func readlink(a at) (string, error) {
	buf := make([]byte, 1<<16) // more than any filesystem's longest target, PATH_MAX
	k := 0
	err := a.call("readlinkat", func() (err error) {
		k, err = unix.Readlinkat(a.fd(), a.base, buf)
		return err
	})
	return string(buf[:max(k, 0)]), err
}

// readFile reads content and holes.
func readFile(a at, n *listing.Node) error {
	f, err := a.open(unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if n.Sparse, n.Size, err = holes(a, f); err != nil {
		return err
	}
	if n.Size <= shortContent {
		n.Content = make([]byte, n.Size)
		_, err = f.ReadAt(n.Content, 0)
		return err
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, n.Size)); err != nil {
		return err
	}
	n.SHA256 = hex.EncodeToString(h.Sum(nil))
	return nil
}

// holes returns the data segments of the file, nil when it is data throughout, and its size.
func holes(a at, f *os.File) (data []listing.Segment, size int64, err error) {
	if size, err = unix.Seek(int(f.Fd()), 0, io.SeekEnd); err != nil {
		return nil, 0, &os.PathError{Op: "lseek", Path: a.name, Err: err}
	}
	data = []listing.Segment{}
	for end := int64(0); end < size; {
		start, err := unix.Seek(int(f.Fd()), end, unix.SEEK_DATA)
		if isAny(err, unix.ENXIO) {
			return data, size, nil
		}
		if err == nil {
			end, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		}
		if err != nil {
			return nil, 0, &os.PathError{Op: "lseek", Path: a.name, Err: err}
		}
		data = append(data, listing.Segment{Offset: start, Length: end - start})
	}
	if size == 0 || len(data) == 1 && data[0].Length == size {
		return nil, size, nil
	}
	return data, size, nil
}

// readXattrs reads xattrs, capability and ACLs. A filesystem without xattrs has none.
func readXattrs(a at, n *listing.Node) error {
	names, err := growing(a, "llistxattr", func(buf []byte) (int, error) { return unix.Llistxattr(a.proc(), buf) })
	if isAny(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, key := range strings.Split(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		if key == "" {
			continue
		}
		value, err := growing(a, "lgetxattr "+key, func(buf []byte) (int, error) { return unix.Lgetxattr(a.proc(), key, buf) })
		if err != nil {
			return err
		}
		switch key {
		case "system.posix_acl_access":
			n.ACL, err = shortACL(value)
		case "system.posix_acl_default":
			n.Default, err = shortACL(value)
		case "security.capability":
			n.Cap = value
		default:
			n.Xattrs = append(n.Xattrs, listing.Xattr{Key: key, Value: value})
		}
		if err != nil {
			return fmt.Errorf("%s: %s: %w", a.name, key, err)
		}
	}
	slices.SortFunc(n.Xattrs, func(x, y listing.Xattr) int { return cmp.Compare(x.Key, y.Key) })
	return nil
}

func shortACL(value []byte) (string, error) {
	a, err := acl.Decode(value)
	return a.Short(), err
}

// growing calls read with a small buffer, and if that is too short with one that is large enough for any value or list
// (XATTR_SIZE_MAX, XATTR_LIST_MAX, xattr(7)).
func growing(a at, op string, read func([]byte) (int, error)) (value []byte, err error) {
	for _, size := range []int{1 << 10, 1 << 16} {
		buf := make([]byte, size)
		k := 0
		err = a.call(op, func() (err error) {
			k, err = read(buf)
			return err
		})
		if err == nil {
			return buf[:k], nil
		}
		if !isAny(err, unix.ERANGE) {
			break
		}
	}
	return nil, err
}
