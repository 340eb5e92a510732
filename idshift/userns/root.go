package userns

import (
	"errors"
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// step is one thing to do, with the name that diagnosis knows it by.
type step struct {
	name string
	do   func() error
}

// privateMounts keeps later mounts from showing outside, and outside ones from showing here (mount_namespaces(7)).
func privateMounts() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }

// becomeRoot makes a freshly cloned process, whose maps are written, uid 0 of its namespace. The ambient capabilities go, and
// for foreign code the caller's groups: only a half may need them, where a directory is open to the caller by a
// group that has no place in the map, so that inner root has no power over it. More steps follow, in order. It returns the step
// that the kernel refused, or nil.
func becomeRoot(start startMessage, more ...step) *setupFailure {
	steps := []step{}
	if start.UserNS {
		// syscall, not unix: these act on every thread of the process.
		if start.Init != nil {
			steps = append(steps, step{"setgroups", func() error { return syscall.Setgroups([]int{}) }})
		}
		steps = append(steps,
			step{"setresgid", func() error { return syscall.Setresgid(0, 0, 0) }},
			step{"setresuid", func() error { return syscall.Setresuid(0, 0, 0) }},
			// Ambient capabilities were for our own exec. A foreign command that gives up uid 0 must lose them.
			step{"capset", dropInheritable})
	}
	// A change of credentials has cleared both (prctl(2)).
	if !start.Outlives {
		steps = append(steps, step{"pdeathsig", func() error { return onAllThreads(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL)) }})
	}
	steps = append(steps, step{"dumpable", func() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) }})
	for _, s := range append(steps, more...) {
		if err := s.do(); err != nil {
			var errno syscall.Errno
			errors.As(err, &errno)
			return &setupFailure{Step: s.name, Errno: errno}
		}
	}
	return nil
}

// onAllThreads calls prctl(option, arg) on every thread of the process: both settings it is used for belong to a thread.
func onAllThreads(option, arg uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, option, arg, 0)
	if errno == syscall.ENOTSUP { // a binary with cgo, which only the race detector makes
		_, _, errno = syscall.RawSyscall(unix.SYS_PRCTL, option, arg, 0)
	}
	if errno != 0 {
		return errno
	}
	return nil
}

// dropInheritable clears the inheritable capability set of all threads, and with it the ambient one (capabilities(7)).
func dropInheritable() error {
	hdr := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := &[2]unix.CapUserData{}
	if err := unix.Capget(hdr, &data[0]); err != nil {
		return err
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(hdr)), uintptr(unsafe.Pointer(data)), 0)
	if errno == syscall.ENOTSUP {
		return unix.Capset(hdr, &data[0])
	}
	if errno != 0 {
		return errno
	}
	return nil
}

// closeStray closes every inherited descriptor from first on: a lock of the caller's would live on in us. Descriptors
// that this process opened itself are close-on-exec, which no inherited one can be.
func closeStray(first int) error {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil || fd < first {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
	return nil
}
