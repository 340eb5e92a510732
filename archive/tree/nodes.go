package tree

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir makes the directory at path, or takes one that is there already; its metadata is applied when it is complete.
func (b *Builder) Dir(ctx context.Context, path string, m Meta) error {
	path = clean(path)
	if path == "." {
		b.popTo(1)
		if err := b.setMeta(b.stack[0].node, m); err != nil {
			return err
		}
		return b.failure()
	}
	n, base, err := b.begin(ctx, path)
	if err != nil {
		return err
	}
	kept := false
	err = retry(func() error { return unix.Mkdirat(n.fd, base, 0o700) })
	if errors.Is(err, unix.EEXIST) {
		kept, err = b.keepDir(n, base, path)
	}
	if err != nil {
		return pathError("mkdirat", path, err)
	}
	fd, err := openAt(n.fd, base, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return pathError("openat", path, err)
	}
	if kept {
		if err := dropAttributes(fd); err != nil {
			unix.Close(fd)
			return pathError("fremovexattr", path, err)
		}
	}
	made, err := b.push(fd, path)
	if err != nil {
		return err
	}
	return b.setMeta(made, m)
}

// maxPending bounds the attributes of directories that are not finished. All xattrs of a Debian tree are some kilobytes.
const maxPending = 32 << 20

func (b *Builder) setMeta(n *dirNode, m Meta) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n.meta != nil {
		b.pending -= n.meta.weight()
	}
	n.meta = &m
	b.pending += m.weight()
	if b.pending > maxPending {
		return fmt.Errorf("%s: this directory and those above it have more than %d MiB of attributes", n.path(), maxPending>>20)
	}
	return nil
}

// dropAttributes removes what an earlier entry has given a directory that now gets other metadata: the last entry counts.
func dropAttributes(fd int) error {
	keys, err := xattrKeysOf(fd)
	if err != nil {
		return err
	}
	for _, key := range keys {
		if key != XattrAccess && key != XattrDefault && !strings.HasPrefix(key, "user.") {
			continue // those of others, as a security module's label
		}
		if err := dropXattr(fd, key); err != nil {
			return err
		}
	}
	return nil
}

// keepDir leaves a directory that is there; anything else, also a symlink to a directory, is replaced by a new one.
func (b *Builder) keepDir(n *dirNode, base, path string) (kept bool, err error) {
	st, err := statAt(n.fd, base)
	if err != nil {
		return false, err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return true, nil
	}
	if err := replace(n.fd, base, path); err != nil {
		return false, err
	}
	return false, retry(func() error { return unix.Mkdirat(n.fd, base, 0o700) })
}

// Symlink makes a symlink at path; the target is any bytes but NUL, and is not looked at.
func (b *Builder) Symlink(ctx context.Context, path, target string, m Meta) error {
	return b.special(ctx, path, "symlinkat", m, true, func(dir int, base string) error {
		return unix.Symlinkat(target, dir, base)
	})
}

// Node makes a fifo, a device or a whiteout (mknod(2)); mode holds the type bits (S_IFMT) only.
func (b *Builder) Node(ctx context.Context, path string, mode uint32, major, minor uint32, m Meta) error {
	return b.special(ctx, path, "mknodat", m, false, func(dir int, base string) error {
		return unix.Mknodat(dir, base, mode|0o600, int(unix.Mkdev(major, minor)))
	})
}

func (b *Builder) special(ctx context.Context, path, op string, m Meta, isLink bool, mk func(dir int, base string) error) error {
	n, base, err := b.begin(ctx, path)
	if err != nil {
		return err
	}
	if err := create(n.fd, base, op, path, func() error { return mk(n.fd, base) }); err != nil {
		return err
	}
	return applyAt(n.fd, base, path, &m, isLink, b.born(n))
}

// ErrLinkToSelf is a hard link whose target is the link itself: following it would first remove the inode.
var ErrLinkToSelf = errors.New("hard link to itself")

// Link makes path another name of the inode at target (both within the root). The inode may be of any type but a
// directory.
func (b *Builder) Link(ctx context.Context, path, target string) error {
	n, base, err := b.begin(ctx, path)
	if err != nil {
		return err
	}
	dir, name, err := b.root.OpenParent(target)
	if err != nil {
		return pathError("linkat", path, fmt.Errorf("target %q: %w", target, err))
	}
	defer unix.Close(dir)
	st, err := fstat(dir)
	if err != nil {
		return pathError("fstat", target, err)
	}
	from := place{inode{uint64(st.Dev), st.Ino}, name}
	if from == (place{n.id, base}) {
		return pathError("linkat", path, ErrLinkToSelf)
	}
	b.wait(from)
	old, err := statAt(dir, name)
	if err != nil {
		return pathError("linkat", path, fmt.Errorf("target %q: %w", target, err))
	}
	if now, err := statAt(n.fd, base); err == nil && now.Ino == old.Ino && now.Dev == old.Dev {
		return nil // they are one already
	}
	return create(n.fd, base, "linkat", path, func() error { return unix.Linkat(dir, name, n.fd, base, 0) })
}
