//go:build linux

package mounts

import (
	"context"
	"errors"
	"fmt"
	"os"

	inodes "github.com/nsferry/nsferry/archive/tree"

	"golang.org/x/sys/unix"
)

// Overlay says where the changes to Root go instead of into Root (Documentation/filesystems/overlayfs.rst of the kernel).
// Nothing is ever written to Root, which must not change meanwhile.
type Overlay struct {
	// Scratch is an empty directory of uid 0's, which takes what is changed; nil is a tmpfs that goes with the run.
	Scratch *os.File
	// Size bounds that tmpfs, as tmpfs(5) has it; empty is its default.
	Size string
	// Links are the files with several names, which only together are one inode. An overlay would give each name an inode of its
	// own when it is changed; so they are copied into the layer of changes beforehand.
	Links []Linked
	// Layers is a socket to which Setup sends both layers, for Take and Merge; nil: nobody wants them.
	Layers *os.File
}

// Linked is one inode of the tree at Root, by all its names there. Names are bytes, which JSON has no strings for.
type Linked [][]byte

// ErrNoOverlay is an overlay that cannot be mounted here; the tree itself is as it was. The chain says why.
var ErrNoOverlay = errors.New("no overlay can be mounted")

// overlay lays o over m.root, and makes the result m.root.
func (m *mounter) overlay(o *Overlay) error {
	if m.legacy {
		return fmt.Errorf("%w: the kernel has no move_mount(2), or a filter denies it", ErrNoOverlay)
	}
	lower := m.root
	base, err := m.scratch(o)
	if err != nil {
		return err
	}
	defer base.Close()
	upper, err := layers(base)
	if err != nil {
		return err
	}
	defer upper.Close()
	if err := seed(lower, upper, o.Links); err != nil {
		return err
	}
	merged, err := mountOverlay(lower, base, "work")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoOverlay, err)
	}
	if o.Layers != nil {
		err = handOver(o.Layers, lower, base)
	}
	// The overlay has mounts of its own of both. To the command they must not show: it could write to them.
	for _, f := range []*os.File{base, lower} {
		if umountErr := unix.Unmount(self(f), unix.MNT_DETACH); umountErr != nil {
			err = errors.Join(err, &os.PathError{Op: "umount", Path: f.Name(), Err: umountErr})
		}
	}
	if err == nil {
		err = overRoot(merged)
	}
	if err != nil {
		return errors.Join(err, merged.Close())
	}
	m.root = merged
	return lower.Close()
}

// scratch puts the directory for the layer of changes within reach.
func (m *mounter) scratch(o *Overlay) (*os.File, error) {
	if o.Scratch != nil {
		dir, err := rootTree(o.Scratch)
		if err != nil {
			return nil, fmt.Errorf("layer of changes: %w", err)
		}
		return dir, private(dir)
	}
	options := []option{{"mode", "700"}}
	if o.Size != "" {
		options = append(options, option{"size", o.Size})
	}
	dir, err := newMount("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, options)
	if err == nil {
		err = overRoot(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("layer of changes: %w", err)
	}
	return dir, nil
}

// layers makes the two directories that an overlay needs, and returns the one for the changes. An overlay keeps its own notes in
// extended attributes; without these it would mount and fail later, at the first directory that is removed and made again.
func layers(base *os.File) (*os.File, error) {
	for _, name := range []string{"upper", "work"} {
		if err := unix.Mkdirat(int(base.Fd()), name, 0o700); err != nil {
			return nil, &os.PathError{Op: "mkdirat", Path: name, Err: err}
		}
	}
	upper, err := openAt(base, "upper", unix.O_RDONLY|unix.O_DIRECTORY, "upper")
	if err != nil {
		return nil, err
	}
	const probe = "user.nsferry.probe"
	err = unix.Fsetxattr(int(upper.Fd()), probe, []byte("1"), 0)
	if err == nil {
		err = unix.Fremovexattr(int(upper.Fd()), probe)
	}
	if err != nil {
		upper.Close()
		return nil, fmt.Errorf("%w: %w", ErrNoOverlay, &os.PathError{Op: "setxattr", Path: "the layer of changes", Err: err})
	}
	return upper, nil
}

// seed gives the layer of changes its root, which is what the merged tree's will look like, and the inodes with several names.
func seed(lower, upper *os.File, links []Linked) (err error) {
	ctx := context.Background()
	from, err := openAt(lower, ".", unix.O_RDONLY|unix.O_DIRECTORY, lower.Name())
	if err != nil {
		return err
	}
	defer from.Close()
	b, err := inodes.NewBuilder(upper, inodes.BuildOptions{Workers: 1})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	c := inodes.NewCopier(from, b)
	if err := c.Root(ctx); err != nil {
		return err
	}
	for _, l := range links {
		names := make([]string, len(l))
		for i, name := range l {
			names[i] = string(name)
		}
		if err := c.Linked(ctx, names); err != nil {
			return fmt.Errorf("files with several names: %w", err)
		}
	}
	return nil
}

// mountOverlay lays base's layer of changes over lower. The kernel gets the directories by descriptor, so that it sees no name
// that a comma or colon could be in. Userxattr, the only way in a user namespace, is also taken as real root: the same
// tree shows the same. Volatile: nobody needs on the disk what is thrown away, and fsync(2) becomes free.
func mountOverlay(lower, base *os.File, work string) (*os.File, error) {
	return newMount("overlay", 0, []option{
		{"lowerdir", self(lower)}, {"upperdir", self(base) + "/upper"}, {"workdir", self(base) + "/" + work},
		{"userxattr", ""}, {"volatile", ""},
	})
}

// option is one of a filesystem's; a flag has no value.
type option struct{ key, value string }

// newMount makes a filesystem and returns a detached mount of it (fsopen(2), Linux 5.2).
func newMount(fstype string, attrs int, options []option) (*os.File, error) {
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fsopen %s: %w", fstype, err)
	}
	defer unix.Close(fs)
	for _, o := range options {
		if o.value == "" {
			err = unix.FsconfigSetFlag(fs, o.key)
		} else {
			err = unix.FsconfigSetString(fs, o.key, o.value)
		}
		if err != nil {
			return nil, explain(fs, fmt.Errorf("%s option %s: %w", fstype, o.key, err))
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, explain(fs, fmt.Errorf("mount %s: %w", fstype, err))
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return nil, fmt.Errorf("fsmount %s: %w", fstype, err)
	}
	return os.NewFile(uintptr(fd), fstype), nil
}

// overRoot puts a detached mount over all that is mounted at "/".
func overRoot(tree *os.File) error {
	base, err := openPath("/")
	if err != nil {
		return err
	}
	defer base.Close()
	return moveMount(tree, base)
}

// explain adds what the kernel has said about a filesystem that it refuses to mount.
func explain(fs int, err error) error {
	buf := make([]byte, 512)
	for {
		n, readErr := unix.Read(fs, buf)
		if readErr != nil || n < 3 { // "e " before an error
			return err
		}
		if buf[0] == 'e' {
			return fmt.Errorf("%w (%s)", err, buf[2:n])
		}
	}
}

// handOver sends detached mounts of both layers through a socket. They live as long as somebody has them open.
func handOver(socket, lower, base *os.File) error {
	var fds []int
	for _, f := range []*os.File{lower, base} {
		alone, err := openTree(f, false)
		if err != nil {
			return err
		}
		defer alone.Close()
		fds = append(fds, int(alone.Fd()))
	}
	if err := unix.Sendmsg(int(socket.Fd()), []byte{1}, unix.UnixRights(fds...), nil, 0); err != nil {
		return os.NewSyscallError("sendmsg", err)
	}
	return nil
}

// Take receives what Setup has sent through the other end of Overlay.Layers. The caller closes the files.
func Take(socket *os.File) (lower, changes *os.File, err error) {
	oob := make([]byte, unix.CmsgSpace(2*4))
	_, n, _, _, err := unix.Recvmsg(int(socket.Fd()), make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return nil, nil, os.NewSyscallError("recvmsg", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return nil, nil, fmt.Errorf("layers of an overlay: %w", errors.Join(err, unix.EBADMSG))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 2 {
		return nil, nil, fmt.Errorf("layers of an overlay: %w", errors.Join(err, unix.EBADMSG))
	}
	return os.NewFile(uintptr(fds[0]), "lower layer"), os.NewFile(uintptr(fds[1]), "layer of changes"), nil
}

// Merge mounts the layers that Take has received once more and returns the root, for a process with a mount namespace of its own,
// which only reads. In the overlay that the command saw, two names of one inode may differ in their inode numbers, for the
// kernel remembers which of them came from below; in a new one they do not. It is not mounted read-only, for then nobody could tell
// a real nobody from an id that is not mapped (tree.Entry.OwnerIsMapped). The caller closes root.
func Merge(lower, changes *os.File) (root *os.File, err error) {
	for _, f := range []*os.File{lower, changes} {
		if err := overRoot(f); err != nil {
			return nil, err
		}
	}
	// A volatile overlay forbids to use its work directory again.
	const work = "work-again"
	if err := unix.Mkdirat(int(changes.Fd()), work, 0o700); err != nil {
		return nil, &os.PathError{Op: "mkdirat", Path: work, Err: err}
	}
	mnt, err := mountOverlay(lower, changes, work)
	if err != nil {
		return nil, err
	}
	defer mnt.Close()
	return openAt(mnt, ".", unix.O_RDONLY|unix.O_DIRECTORY, "merged tree")
}
