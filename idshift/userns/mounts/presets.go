//go:build linux

package mounts

import (
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	resolvConf = "etc/resolv.conf"
	policyRC   = "usr/sbin/policy-rc.d"

	// aptConf lies in the private /dev, so no file of the tree is touched.
	aptConf = "/dev/.nsferry/apt.conf"

	// aptText: apt drops to user _apt by default, which fails where that id is not mapped, and cannot read what
	// only root may (apt.conf(5), APT::Sandbox::User).
	aptText = "APT::Sandbox::User \"root\";\n"

	// policyText forbids every action of invoke-rc.d and deb-systemd-invoke (policy-rc.d(8): 101).
	policyText = "#!/bin/sh\nexit 101\n"
)

// presets mounts everything but the binds.
func (m *mounter) presets(s *Spec) (res Result, err error) {
	if s.Proc {
		if res.Notes, err = m.proc(); err != nil {
			return res, fmt.Errorf("/proc: %w", err)
		}
	}
	if s.Sys {
		if err := m.sys(); err != nil {
			return res, fmt.Errorf("/sys: %w", err)
		}
	}
	if s.Dev {
		if err := m.dev(); err != nil {
			return res, fmt.Errorf("/dev: %w", err)
		}
	}
	if s.Shm {
		if err := m.shm(); err != nil {
			return res, fmt.Errorf("/dev/shm: %w", err)
		}
	}
	if s.Apt {
		if err := m.makeFile(aptConf, aptText, 0o644); err != nil {
			return res, fmt.Errorf("apt: %w", err)
		}
		res.Env = append(res.Env, "APT_CONFIG="+aptConf)
	}
	if err := m.files(s); err != nil {
		return res, err
	}
	return res, nil
}

// preset opens the directory of a preset, which must not be a symlink: no sane rootfs has one there.
func (m *mounter) preset(name string) (*os.File, error) {
	f, err := m.inRoot(m.root, name, true)
	if err != nil {
		return nil, err
	}
	isDir, err := isDirectory(f)
	if err == nil && !isDir {
		err = &os.PathError{Op: "mount", Path: "/" + name, Err: unix.ENOTDIR}
	}
	if err == nil {
		err = m.hold(f)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// proc mounts the proc of the current pid namespace. The kernel refuses that where the one we see is partly
// covered, as in containers that mask files in it. Their users need a /proc nevertheless: they get the one there
// is, with everything that covers it, and a note. In it /proc/self is right, but other pids are the outer ones.
func (m *mounter) proc() (notes []string, err error) {
	dst, err := m.preset("proc")
	if err != nil {
		return nil, err
	}
	defer dst.Close()
	err = mountAt("proc", dst, "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	if !isErrno(err, unix.EPERM) {
		return nil, err
	}
	if err := m.bindOuter("/proc", "proc", dst); err != nil {
		return nil, err
	}
	return []string{"/proc is the enclosing one and shows its process ids, because the kernel refuses a new one " +
		"where the existing is partly masked (a container; start it with podman --security-opt unmask=ALL, docker --security-opt systempaths=unconfined)"}, nil
}

// sys shows the host's sysfs, read-only. A new one would need a network namespace.
func (m *mounter) sys() error {
	dst, err := m.preset("sys")
	if err != nil {
		return err
	}
	defer dst.Close()
	if err := m.bindOuter("/sys", "sys", dst); err != nil {
		return err
	}
	top, err := m.preset("sys")
	if err != nil {
		return err
	}
	defer top.Close()
	return m.readOnly(top)
}

// bindOuter binds a directory of the old root, with all that is mounted there, onto dst, found at name.
func (m *mounter) bindOuter(outer, name string, dst *os.File) error {
	src, err := openPath(outer)
	if err != nil {
		return err
	}
	defer src.Close()
	if err := m.attach(src, dst, true); err != nil {
		return err
	}
	top, err := m.inRoot(m.root, name, true)
	if err != nil {
		return err
	}
	defer top.Close()
	return private(top)
}

// shm mounts a private /dev/shm. In the private /dev its directory exists already.
func (m *mounter) shm() error {
	dst, err := m.preset("dev/shm")
	if err != nil {
		return err
	}
	defer dst.Close()
	if err := mountAt("shm", dst, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"); err != nil {
		return err
	}
	top, err := m.preset("dev/shm")
	if err != nil {
		return err
	}
	defer top.Close()
	return m.remember(top)
}

// makeInDev creates a missing mount target with its parents, if it lies in the private /dev or in its shm. In the
// tree itself nothing is created here: that would survive.
func (m *mounter) makeInDev(name string, dir bool) error {
	p, err := walk(m.root, name, false, nil)
	if err != nil {
		return err
	}
	defer p.close()
	parent := p.dirs[len(p.dirs)-1]
	if ours, err := m.inPrivateDev(parent); err != nil {
		return err
	} else if !ours || len(p.rest) == 0 {
		return &os.PathError{Op: "mount", Path: path.Join("/", name), Err: unix.ENOENT}
	}
	at := self(parent)
	for i, c := range p.rest {
		at = path.Join(at, c)
		if i < len(p.rest)-1 || dir {
			err = os.Mkdir(at, 0o755)
		} else {
			err = os.WriteFile(at, nil, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// inPrivateDev tells whether dir lies in a tmpfs that was mounted by dev or shm.
func (m *mounter) inPrivateDev(dir *os.File) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return false, &os.PathError{Op: "fstat", Path: dir.Name(), Err: err}
	}
	return m.devs[st.Dev], nil
}

// mapped tells whether a gid exists in the current user namespace, by its line in /proc/self/gid_map.
func mapped(gid uint32) (bool, error) {
	text, err := os.ReadFile("/proc/self/gid_map")
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(text)) {
		var inside, outside, count uint64
		if _, err := fmt.Sscan(line, &inside, &outside, &count); err != nil {
			return false, fmt.Errorf("/proc/self/gid_map: %w", err)
		}
		if uint64(gid) >= inside && uint64(gid) < inside+count {
			return true, nil
		}
	}
	return false, nil
}
