package userns

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// check is one prerequisite. It can explain a failure of the named steps.
type check struct {
	steps string // space separated
	run   func(x *exam) Finding
}

func (c check) explains(step string) bool {
	for s := range strings.FieldsSeq(c.steps) {
		if s == step {
			return true
		}
	}
	return false
}

// inside names the steps that a process takes when it is already in the new namespace.
const inside = " setgroups setresgid setresuid capset mount"

// checks is in the order in which causes hide each other.
var checks = []check{
	{"clone", limitCheck("userns.sysctl.max", "user")},
	{"clone unshare", limitCheck("userns.sysctl.mnt", "mnt")},
	{"clone", limitCheck("userns.sysctl.pid", "pid")},
	{"clone unshare", checkLimitReached},
	{"clone", checkDebianClone},
	{"clone uid_map gid_map" + inside, checkAppArmor},
	{"clone", checkSysAdmin},
	{"clone unshare", checkSeccomp},
	{"clone", checkChroot},
	{"clone", checkProcessLimit},
	{"uid_map gid_map", checkNoNewPrivs},
	{"uid_map", toolCheck("uid_map", unix.CAP_SETUID)},
	{"gid_map", toolCheck("gid_map", unix.CAP_SETGID)},
	{"uid_map gid_map", checkRanges},
	{"uid_map gid_map", checkRootMap},
}

// limitCheck looks at user.max_*_namespaces (namespaces(7)): 0 forbids.
func limitCheck(id, kind string) func(x *exam) Finding {
	return func(x *exam) Finding {
		name := "user.max_" + kind + "_namespaces"
		v := x.sys.sysctl("user/max_" + kind + "_namespaces")
		f := Finding{ID: id, State: StateOK, What: name + " allows namespaces", Evidence: name + " = " + v}
		switch {
		case v == "":
			f.State, f.What, f.Evidence = StateNote, name+" does not exist", "kernel without this kind of namespace, or proc hidden"
			if kind == "user" && x.failed("clone", syscall.EINVAL, syscall.ENOSYS) {
				f.State, f.Remedy = StateProblem, "use a kernel built with CONFIG_USER_NS"
			}
		case v == "0":
			f.State, f.What = StateProblem, name+" forbids "+kind+" namespaces"
			f.Remedy = persist(name, "15000")
		}
		return f
	}
}

// checkLimitReached: ENOSPC says that a limit above 0 is used up, here or in an outer namespace, or that 32 user
// namespaces are nested already (clone(2); EUSERS before Linux 4.9).
func checkLimitReached(x *exam) Finding {
	f := Finding{ID: "userns.limit", State: StateOK, What: "the limits of namespaces are not reached"}
	if x.failed("clone", syscall.ENOSPC, syscall.EUSERS) || x.failed("unshare", syscall.ENOSPC) {
		f.State, f.What = StateProblem, "the limit of namespaces, or of 32 nested ones, is reached"
		f.Remedy = "end other sandboxes of this user, or, as root of the outermost namespace: sysctl -w user.max_user_namespaces=100000"
	}
	return f
}

// persist words a sysctl that root has to set, for now and for later.
func persist(name, value string) string {
	return fmt.Sprintf("as root: echo '%s = %s' > /etc/sysctl.d/50-nsferry.conf && sysctl --system", name, value)
}

// checkDebianClone looks at a sysctl that only Debian's and Arch's hardened kernels have.
func checkDebianClone(x *exam) Finding {
	const name = "kernel.unprivileged_userns_clone"
	f := Finding{ID: "userns.sysctl.clone", State: StateOK, What: "ordinary users may make user namespaces"}
	switch x.sys.sysctl("kernel/unprivileged_userns_clone") {
	case "":
		f.Evidence = name + " does not exist here"
	case "0":
		f.Evidence = name + " = 0"
		f.State, f.What, f.Remedy = StateProblem, "this kernel lets only root make user namespaces", persist(name, "1")
		if os.Geteuid() == 0 && x.fail == nil {
			f.State = StateNote
		}
	default:
		f.Evidence = name + " = 1"
	}
	return f
}

// checkAppArmor looks at Ubuntu's restriction (since 23.10): an unconfined program without a profile that allows userns gets a
// namespace in which it has no capabilities, or none at all.
func checkAppArmor(x *exam) Finding {
	const name = "kernel.apparmor_restrict_unprivileged_userns"
	f := Finding{ID: "userns.apparmor", State: StateOK, What: "AppArmor does not restrict user namespaces"}
	v := x.sys.sysctl("kernel/apparmor_restrict_unprivileged_userns")
	if v == "" || v == "0" {
		f.Evidence = name + " is not set"
		return f
	}
	f.State, f.What, f.Evidence = StateNote, "AppArmor restricts user namespaces to programs with a profile", name+" = "+v
	if x.failed("", syscall.EPERM, syscall.EACCES) {
		exe, err := os.Executable()
		if err != nil {
			exe = "/usr/local/bin/nsferry"
		}
		f.State = StateProblem
		f.Remedy = "as root: printf 'abi <abi/4.0>,\\ninclude <tunables/global>\\nprofile nsferry " + exe +
			" flags=(unconfined) {\\n  userns,\\n}\\n' > /etc/apparmor.d/nsferry && apparmor_parser -r /etc/apparmor.d/nsferry" +
			"\n  or, for all programs: " + persist(name, "0")
	}
	return f
}

// checkSysAdmin: root makes mount namespaces without a user namespace only with CAP_SYS_ADMIN, which containers lack by
// default (clone(2)).
func checkSysAdmin(x *exam) Finding {
	f := Finding{ID: "root.sysadmin", State: StateOK, What: "this process may make namespaces"}
	eff, err := strconv.ParseUint(x.sys.status("CapEff"), 16, 64)
	if err == nil && x.env != nil && x.env.Direct && eff&(1<<unix.CAP_SYS_ADMIN) == 0 {
		f.State, f.What, f.Evidence = StateNote, "root without CAP_SYS_ADMIN cannot mount", "CapEff: "+x.sys.status("CapEff")
		if x.failed("clone", syscall.EPERM) {
			f.State = StateProblem
			f.Remedy = "start the container with --cap-add SYS_ADMIN --security-opt seccomp=unconfined, or run nsferry as an ordinary user with sub-ids"
		}
	}
	return f
}

// checkSeccomp looks for a system call filter, as container engines install it.
func checkSeccomp(x *exam) Finding {
	f := Finding{ID: "userns.seccomp", State: StateOK, What: "no system call filter is active"}
	if x.sys.status("Seccomp") != "2" {
		return f
	}
	f.State, f.What, f.Evidence = StateNote, "a system call filter is active", "Seccomp: 2 in /proc/self/status"
	if x.failed("clone", syscall.EPERM, syscall.ENOSYS) || x.failed("unshare", syscall.EPERM, syscall.ENOSYS) {
		f.State, f.What = StateProblem, "a system call filter forbids user namespaces"
		f.Remedy = "start the container with --security-opt seccomp=unconfined (docker, podman), or with a profile that allows clone, unshare, mount and setns"
	}
	return f
}

// checkChroot: clone(2) refuses a user namespace to a process whose root is not its mount namespace's root. A chroot into a
// plain directory shows as a mount table without "/".
func checkChroot(x *exam) Finding {
	f := Finding{ID: "userns.chroot", State: StateOK, What: "the process is not in a chroot"}
	table, err := os.ReadFile(filepath.Join(x.sys.Proc, "self/mountinfo"))
	if err != nil {
		f.State, f.What, f.Evidence = StateNote, "the mount table cannot be read", err.Error()
		return f
	}
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); len(fields) > 4 && fields[4] == "/" {
			return f
		}
	}
	f.State, f.What, f.Evidence = StateNote, "the process is in a chroot", "no / in /proc/self/mountinfo"
	if x.failed("clone", syscall.EPERM) {
		f.State = StateProblem
		f.Remedy = "run nsferry outside the chroot, or enter the directory by pivot_root (nsferry run --rootfs, bwrap, systemd-nspawn)"
	}
	return f
}

func checkProcessLimit(x *exam) Finding {
	f := Finding{ID: "userns.processes", State: StateOK, What: "processes can be started"}
	if x.failed("clone", syscall.EAGAIN, syscall.ENOMEM) {
		f.State, f.What = StateProblem, "no more processes can be started"
		f.Remedy = "raise the limit of processes (ulimit -u, or TasksMax= and pids.max of the unit or container), or free memory"
	}
	return f
}

// checkNoNewPrivs: the setuid bit and file capabilities of newuidmap have no effect then (prctl(2)).
func checkNoNewPrivs(x *exam) Finding {
	f := Finding{ID: "userns.nnp", State: StateOK, What: "setuid programs work"}
	if x.sys.status("NoNewPrivs") != "1" {
		return f
	}
	f.Evidence = "NoNewPrivs: 1 in /proc/self/status"
	if x.writesMaps() {
		f.What = "no_new_privs is set, and setuid programs are not needed"
		return f
	}
	f.State, f.What = StateProblem, "no_new_privs is set: newuidmap and newgidmap cannot gain their privilege"
	f.Remedy = "start nsferry outside of what set it (NoNewPrivileges= of a systemd unit, setpriv --no-new-privs, --security-opt no-new-privileges)"
	return f
}
