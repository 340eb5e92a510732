//go:build linux

package mounts

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Setup mounts what s asks for, makes Root the root directory and drops all other mounts. The caller is uid 0 in
// the user namespace that owns its fresh mount namespace and its pid namespace (or is real root in fresh mount and
// pid namespaces), and serves no other thread: root and working directory change. Missing mount targets must have
// been made, see Make. After an error the namespace is in no defined state; the process should end.
//
// Files of s stay open; a detached Root or Source is used up. The caller owns Result.Hold.
func Setup(s Spec) (Result, error) {
	if err := s.check(); err != nil {
		return Result{}, err
	}
	defer unix.Umask(unix.Umask(0))
	m := &mounter{legacy: s.legacy, stage: "/", devs: map[uint64]bool{}}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return Result{}, &os.PathError{Op: "mount private", Path: "/", Err: err}
	}
	binds, err := localBinds(s.Binds)
	defer closeLocal(binds, s.Binds)
	if err != nil {
		return Result{}, err
	}
	if err := m.mountRoot(s.Root); err != nil {
		return Result{}, fmt.Errorf("rootfs: %w", err)
	}
	defer func() { m.root.Close() }()
	if s.Overlay != nil {
		if err := m.overlay(s.Overlay); err != nil {
			return Result{}, fmt.Errorf("rootfs: %w", err)
		}
	}
	if s.Private {
		if err := m.makeTargets(s); err != nil {
			return Result{}, err
		}
	}
	res, err := m.presets(&s)
	if err != nil {
		return Result{}, err
	}
	for _, b := range binds {
		if err := m.bind(b); err != nil {
			return Result{}, fmt.Errorf("bind %s: %w", b.Target, err)
		}
	}
	if s.Root != nil {
		if err := m.pivot(); err != nil {
			return Result{}, err
		}
	}
	if s.Chdir != "" {
		if err := os.Chdir(s.Chdir); err != nil {
			return Result{}, err
		}
	}
	res.Hold = append(m.held, s.Hold...)
	return res, nil
}

// makeTargets makes the mount targets that a private tree lacks. They are marked as for any run: an archive of the tree
// leaves them out.
func (m *mounter) makeTargets(s Spec) error {
	s.Root = m.root
	list, err := Plan(s)
	if err != nil {
		return err
	}
	made, err := Make(m.root, list)
	if err != nil {
		return err
	}
	for _, h := range made.held {
		m.held = append(m.held, h.file)
	}
	return made.root.Close()
}

// mountRoot mounts a private copy of dir within reach and remembers it as m.root; nil means the current root.
// A mount moved onto "/" is reached by its descriptor. mount(2) gives none, and a path does not see what lies on
// "/", so there another directory must serve; the pivot takes it away again.
func (m *mounter) mountRoot(dir *os.File) (err error) {
	if dir == nil {
		m.root, err = openPath("/")
		return err
	}
	if !m.legacy {
		m.root, err = rootTree(dir)
		if err == nil {
			return private(m.root)
		}
		if !isErrno(err, unix.ENOSYS, unix.EPERM) {
			return err
		}
		m.legacy = true
	}
	if m.stage, err = stageDir(""); err != nil {
		return err
	}
	base, err := openPath(m.stage)
	if err != nil {
		return err
	}
	defer base.Close()
	if err := m.attach(dir, base, true); err != nil {
		return err
	}
	if m.root, err = openPath(m.stage); err != nil {
		return err
	}
	return private(m.root)
}

// localBinds looks up by path, while nothing is mounted over it yet, what another mount namespace's source is
// here. Detached mounts have no path and stay as they are; so does what cannot be found: attach says why.
func localBinds(binds []Bind) ([]Bind, error) {
	local := slices.Clone(binds)
	for i, b := range binds {
		ours, err := mountedHere(b.Source)
		if err != nil {
			return local, err
		}
		if ours {
			continue
		}
		if here, err := reopen(b.Source); err == nil {
			local[i].Source = here
		}
	}
	return local, nil
}

// closeLocal closes the files that localBinds opened.
func closeLocal(local, binds []Bind) {
	for i := range local {
		if local[i].Source != binds[i].Source {
			local[i].Source.Close()
		}
	}
}

// rootTree mounts a copy of dir, or dir itself when it is a detached mount, onto "/" and returns it.
func rootTree(dir *os.File) (*os.File, error) {
	base, err := openPath("/")
	if err != nil {
		return nil, err
	}
	defer base.Close()
	ours, err := mountedHere(dir)
	if err != nil {
		return nil, err
	}
	if !ours {
		moveErr := moveMount(dir, base)
		if moveErr == nil {
			return openAt(dir, ".", unix.O_PATH|unix.O_DIRECTORY, dir.Name())
		}
		if dir, err = reopen(dir); err != nil {
			return nil, errors.Join(err, moveErr)
		}
		defer dir.Close()
	}
	tree, err := openTree(dir, true)
	if err != nil {
		return nil, err
	}
	if err := moveMount(tree, base); err != nil {
		tree.Close()
		return nil, err
	}
	return tree, nil
}

// stageDir finds a directory of the old root that is not needed by path any more, other than taken.
func stageDir(taken string) (string, error) {
	for _, d := range []string{"/mnt", "/tmp", "/run", "/var", "/etc", "/usr"} {
		if fi, err := os.Lstat(d); err == nil && fi.IsDir() && d != taken {
			return d, nil
		}
	}
	return "", errors.New("no directory to mount on: the host has none of /mnt /tmp /run /var /etc /usr")
}

// bind mounts one bind on its target.
func (m *mounter) bind(b Bind) error {
	dst, err := m.target(b.Target)
	if isErrno(err, unix.ENOENT) {
		isDir, dirErr := isDirectory(b.Source)
		if dirErr != nil {
			return dirErr
		}
		if err = m.makeInDev(b.Target, isDir); err != nil {
			return err
		}
		dst, err = m.target(b.Target)
	}
	if err != nil {
		return err
	}
	defer dst.Close()
	if err := m.hold(dst); err != nil {
		return err
	}
	if err := m.attach(b.Source, dst, b.Rec); err != nil {
		return err
	}
	top, err := m.inRoot(m.root, b.Target, false)
	if err != nil {
		return err
	}
	defer top.Close()
	if err := private(top); err != nil {
		return err
	}
	if b.ReadOnly {
		return m.readOnly(top)
	}
	return nil
}

// target opens an existing mount target, following symlinks within the root; the root itself is none.
func (m *mounter) target(name string) (*os.File, error) {
	f, err := m.inRoot(m.root, name, false)
	if err != nil {
		return nil, err
	}
	same, err := sameFile(f, m.root)
	if err == nil && same {
		err = &os.PathError{Op: "mount", Path: name, Err: errors.New("would cover the root directory")}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// pivot makes m.root the root of the mount namespace and drops everything else, as pivot_root(2) describes
// under pivot_root(".", ".").
func (m *mounter) pivot() error {
	if err := unix.Fchdir(int(m.root.Fd())); err != nil {
		return &os.PathError{Op: "fchdir", Path: "rootfs", Err: err}
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		if err == unix.EINVAL {
			return fmt.Errorf("pivot_root: %w: the current root is no mount point (a chroot, or an initramfs)", err)
		}
		return os.NewSyscallError("pivot_root", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return &os.PathError{Op: "umount", Path: "old root", Err: err}
	}
	return os.Chdir("/")
}
