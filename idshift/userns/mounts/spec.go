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
//	outer    Sweep, Plan
//	janitor  Make, WaitGone, Made.Remove
//	inner    Spec.Detach before the mount namespace is unshared, Setup after it
package mounts

import "os"

// Bind is one file, directory or socket of the outside that is to be seen inside.
type Bind struct {
	Source   *os.File // O_PATH is enough; owned by the caller
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

	legacy bool // tests: behave as if the kernel had none of the mount syscalls of 5.2 and later
}

// Result is what a successful Setup has to tell its caller.
type Result struct {
	Env   []string // variables to set for the command, KEY=VALUE
	Notes []string // what had to be done in a lesser way, and why; for the user's eyes
}

// Placeholder is a mount target that the tree lacks.
type Placeholder struct {
	Path string // clean, relative to the root, free of symlinks
	Dir  bool   // directory, else an empty regular file
}
