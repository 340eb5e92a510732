//go:build linux

// Package mounts gives a rootfs the mounts that a command in it expects, and keeps one promise: nothing it
// mounts or creates outlives the run, and no name inside the rootfs is ever followed out of it.
//
// Everything is done by file descriptor, because the directories above a rootfs may be closed to inner root,
// and because the rootfs is hostile. The mounts live in a private mount namespace and go with it. Mount
// targets which the tree lacks are made as placeholders by a process that outlives the run (the janitor) and
// are removed by it.
//
// The order of a run:
//
//	outer    opens everything: OpenBind
//	janitor  Sweep, Plan, then Janitor: Make, wait for the end of the run, Made.Remove
//	inner    Spec.Detach before the mount namespace is unshared, Setup after it, Result.Hold kept until the end
//
// What a killed janitor leaves is found by the next Sweep, by its mark: an xattr, or where the filesystem has no
// user xattrs a modification time. A filesystem with neither xattrs nor nanoseconds, or without flock, takes no
// placeholders: Make fails there, and the directories have to be made by hand.
package mounts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Bind is one file, directory or socket of the outside that is to be seen inside.
type Bind struct {
	Source   *os.File // O_PATH is enough; owned by the caller
	Dir      *os.File // directory that holds Source, for Detach when Source is none itself; nil: found by path
	Target   string   // path in the rootfs (without Root: of the host), resolved without leaving it
	ReadOnly bool     // read-only including all submounts
	Rec      bool     // with the submounts of Source; without it only where the kernel allows to leave them out
}

// Spec says what is to be mounted. Binds come last and in the given order, so that later ones may lie in
// earlier ones or in a preset.
type Spec struct {
	Root       *os.File // directory to become the root; nil keeps the caller's root
	Dev        bool     // private /dev with null, zero, full, random, urandom, tty, ptmx, pts, and fd links
	Shm        bool     // private /dev/shm, mode 1777
	Proc       bool     // /proc of the current pid namespace
	Sys        bool     // the host's /sys, read-only
	ResolvConf []byte   // content to be seen as /etc/resolv.conf; nil leaves the rootfs's own
	Apt        bool     // APT_CONFIG with sandbox user root (needs Dev), and a policy-rc.d that starts no service
	Binds      []Bind
	Chdir      string // working directory after Setup; empty is "/" with Root and unchanged without

	// Overlay, if not nil, takes the changes that would go to the tree at Root.
	Overlay *Overlay
	// Private says that the tree, as the command sees it, goes with the run: Setup makes the missing mount targets itself, and
	// no janitor is needed for them.
	Private bool
	// Hold are files that come back in Result.Hold: locks of the caller's that shall live as long as the run.
	Hold []*os.File

	legacy bool // tests: behave as if the kernel had none of the mount syscalls of 5.2 and later
}

// Result is what a successful Setup has to tell its caller.
type Result struct {
	Env   []string // variables to set for the command, KEY=VALUE
	Notes []string // what had to be done in a lesser way, and why; for the user's eyes

	// Hold is to be kept open by the run's pid 1 as long as it lives: Spec.Hold, and the shared locks on the placeholders
	// mounted on. They protect them from the next run's Sweep, should the janitor have been killed.
	Hold []*os.File
}

// Placeholder is a mount target that the tree lacks.
type Placeholder struct {
	Path string // clean, relative to the root, free of symlinks
	Dir  bool   // directory, else an empty regular file
}

// OpenBind opens source, a path of the outside (symlinks are followed), to be bound on target with all submounts.
// The caller closes the Bind.
func OpenBind(source, target string, readOnly bool) (Bind, error) {
	fd, err := unix.Open(source, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return Bind{}, &os.PathError{Op: "open", Path: source, Err: err}
	}
	b := Bind{Source: os.NewFile(uintptr(fd), source), Target: target, ReadOnly: readOnly, Rec: true}
	isDir, err := isDirectory(b.Source)
	if err == nil && !isDir {
		b.Dir, err = parentOf(b.Source)
	}
	if err != nil {
		b.Close()
		return Bind{}, err
	}
	return b, nil
}

// Close closes the files of b.
func (b Bind) Close() error {
	var err error
	if b.Dir != nil {
		err = b.Dir.Close()
	}
	return errors.Join(err, b.Source.Close())
}

// check refuses what cannot be meant.
func (s *Spec) check() error {
	if s.Root == nil && (s.Dev || s.Shm || s.Sys || s.Apt || s.ResolvConf != nil) {
		return errors.New("mounts: without a root only /proc and binds are mounted")
	}
	if s.Root == nil && (s.Overlay != nil || s.Private) || s.Overlay != nil && !s.Private {
		return errors.New("mounts: an overlay lies over a root, and is private")
	}
	if s.Apt && !s.Dev {
		return errors.New("mounts: apt's configuration lies in the private /dev, which is not asked for")
	}
	for _, b := range s.Binds {
		if b.Source == nil {
			return fmt.Errorf("mounts: bind %s has no source", b.Target)
		}
		if s.Root == nil && !filepath.IsAbs(b.Target) {
			return fmt.Errorf("mounts: bind %s: without a root the target must be absolute", b.Target)
		}
	}
	return nil
}
