//go:build linux

package mounts

import (
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// files binds the preset files over those of the tree, or over their placeholders. They come from a scratch tmpfs,
// mounted where the pivot takes it away; it is not noexec, because policy-rc.d is a script.
func (m *mounter) files(s *Spec) error {
	if s.ResolvConf == nil && !s.Apt {
		return nil
	}
	dir, err := stageDir(m.stage)
	if err != nil {
		return err
	}
	if err := unix.Mount("nsferry", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755,size=1m"); err != nil {
		return &os.PathError{Op: "mount tmpfs", Path: dir, Err: err}
	}
	if s.ResolvConf != nil {
		if err := m.file(dir, resolvConf, s.ResolvConf, 0o644); err != nil {
			return fmt.Errorf("/%s: %w", resolvConf, err)
		}
	}
	if s.Apt {
		if err := m.file(dir, policyRC, []byte(policyText), 0o755); err != nil {
			return fmt.Errorf("/%s: %w", policyRC, err)
		}
	}
	return nil
}

// file binds one file with the given content onto name. A symlink there is covered itself: its target may be
// missing, or a file that others share.
func (m *mounter) file(scratch, name string, content []byte, mode uint32) error {
	dst, err := m.inRoot(m.root, name, true)
	if err != nil {
		return err
	}
	defer dst.Close()
	if err := m.hold(dst); err != nil {
		return err
	}
	src := path.Join(scratch, path.Base(name))
	if err := os.WriteFile(src, content, 0o600); err != nil {
		return err
	}
	if err := os.Chmod(src, os.FileMode(mode)); err != nil {
		return err
	}
	f, err := openPath(src)
	if err != nil {
		return err
	}
	defer f.Close()
	return m.attach(f, dst, false)
}

// makeFile creates a file in the private /dev.
func (m *mounter) makeFile(name, content string, mode uint32) error {
	if err := m.makeInDev(name, false); err != nil {
		return err
	}
	f, err := m.inRoot(m.root, name, true)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.WriteFile(self(f), []byte(content), 0o600); err != nil {
		return err
	}
	return os.Chmod(self(f), os.FileMode(mode))
}
