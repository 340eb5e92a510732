package userns

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/nsferry/nsferry/idshift"
)

// surroundings are told whether a namespace is needed or not: they explain what other checks find.
var surroundings = []func(x *exam) []Finding{checkNesting, checkSubIDs, checkModules}

// checkNesting tells in what kind of user namespace this process is. The kernel shows ids of the next outer namespace, which
// need not be the outermost.
func checkNesting(x *exam) []Finding {
	f := Finding{ID: "nesting", State: StateOK, What: "not in a user namespace"}
	own, err := x.sys.ownMapping()
	if err != nil {
		f.State, f.What, f.Evidence = StateNote, "whether this is a user namespace is unknown", err.Error()
		return []Finding{f}
	}
	engine := x.sys.container()
	f.Evidence = "uid_map " + own.UID.String() + ", gid_map " + own.GID.String()
	switch kind := nestingKind(own.UID, uint32(os.Geteuid())); {
	case kind == "" && engine != "":
		f.What = "in a rootful container (" + engine + "): its uid 0 is the machine's, and no user namespace is around it"
	case kind == "":
	case kind == singleID:
		f.State, f.What = StateNote, "in a user namespace with a single id: no rootfs has a place in it"
		f.Remedy = "leave that namespace (unshare -r, bwrap --unshare-user), or make it with a range: podman unshare, or nsferry run"
	default:
		f.What = "in " + kind
		if engine != "" {
			f.What += " (" + engine + ")"
		}
	}
	return []Finding{f}
}

const singleID = "single id"

// nestingKind names the kind of user namespace by its map; "" for the initial one, or one like it (rootful docker's "0 0
// 4294967295").
func nestingKind(m idshift.Map, euid uint32) string {
	ext := m.Extents()
	switch {
	case initial(m):
		return ""
	case len(ext) == 1 && ext[0].Count == 1:
		return singleID
	}
	zero, hasZero := m.ToOutside(0)
	own, hasOwn := m.ToOutside(euid)
	switch {
	case euid != 0 && hasOwn && own == 0 && len(ext) > 1:
		return "a namespace that keeps your id (podman --userns=keep-id, as kas uses it)"
	case hasZero && zero != 0 && len(ext) > 1 && ext[0].Inside == 0 && ext[0].Count == 1:
		return "a rootless container's namespace (docker-rootless, rootless podman): its uid 0 is the user who started it"
	case hasZero && zero != 0 && len(ext) == 1:
		return "a namespace of remapped ids (docker userns-remap, systemd-nspawn -U, nsferry run)"
	}
	return "a user namespace"
}

// container names the engine that has marked the root directory, or "".
func (s System) container() string {
	for _, mark := range []struct{ path, name string }{{".dockerenv", "docker"}, {"run/.containerenv", "podman"}, {"run/systemd/container", "systemd"}} {
		if _, err := os.Stat(filepath.Join(s.Root, mark.path)); err == nil {
			return mark.name
		}
	}
	return ""
}

// checkSubIDs tells what the caller has, and what is odd about it.
func checkSubIDs(x *exam) (all []Finding) {
	c, err := idshift.LookupCaller(x.sys.Sources)
	if err != nil {
		return nil // NewEnv says so
	}
	if len(c.UIDRanges) == 0 && len(c.GIDRanges) == 0 {
		return nil // NewEnv says so where it matters
	}
	source := "/etc/subuid and /etc/subgid"
	if c.Source != "" {
		source = c.Source + " (subid: in /etc/nsswitch.conf)"
	}
	f := Finding{ID: "subid.ranges", State: StateOK, What: "sub-ids of " + callerName(c) + " are found in " + source,
		Evidence: fmt.Sprintf("uids %s; gids %s", rangesText(c.UIDRanges), rangesText(c.GIDRanges))}
	if len(c.UIDRanges) > 1 || len(c.GIDRanges) > 1 {
		f.ID, f.State = "subid.several", StateNote
		f.What = "there are several ranges: nsferry uses all, mmdebstrap and sbuild know the first line only"
		f.Remedy = "for them, as root: make the first line of the user in /etc/subuid and /etc/subgid one of 65536 ids"
	}
	all = append(all, f)
	for _, note := range c.Notes {
		all = append(all, Finding{ID: "subid.overlap", State: StateNote, What: note,
			Remedy: fmt.Sprintf("as root: usermod --add-subuids %d-%d --add-subgids %d-%d %s, and take the user's line that is named here out of the file",
				c.FreeUID, uint64(c.FreeUID)+65535, c.FreeGID, uint64(c.FreeGID)+65535, callerName(c))})
	}
	return all
}

// checkModules tells which security modules may have a say. What cannot be read is unknown, which is not the same as none.
func checkModules(x *exam) []Finding {
	f := Finding{ID: "lsm", State: StateOK, What: "neither AppArmor nor SELinux is active"}
	list, err := os.ReadFile(filepath.Join(x.sys.Root, "sys/kernel/security/lsm"))
	label := x.sys.read("self/attr/current")
	f.Evidence = "label of this process: " + orNone(label)
	if err != nil {
		f.State, f.What = StateNote, "whether AppArmor or SELinux is active is unknown: the list of security modules cannot be read"
		f.Evidence += "; " + err.Error()
		f.Remedy = "to know, as root: mount -t securityfs securityfs /sys/kernel/security, then cat /sys/kernel/security/lsm"
		return []Finding{f}
	}
	f.Evidence += "; modules: " + strings.TrimSpace(string(list))
	for name := range strings.SplitSeq(strings.TrimSpace(string(list)), ",") {
		switch name {
		case "apparmor":
			f.What = "AppArmor is active"
			if label != "" && !strings.HasPrefix(label, "unconfined") {
				f.State, f.What = StateNote, "AppArmor confines this process"
				f.Remedy = "if something is refused, look for apparmor=\"DENIED\" in the kernel's log (dmesg, journalctl -k); aa-status lists profiles (Debian, Ubuntu)"
			}
		case "selinux":
			f.What = "SELinux is active"
			enforce, err := os.ReadFile(filepath.Join(x.sys.Root, "sys/fs/selinux/enforce"))
			switch {
			case err != nil:
				f.State, f.What = StateNote, "SELinux is active, and whether it enforces is unknown"
				f.Evidence += "; " + err.Error()
			case strings.TrimSpace(string(enforce)) == "1":
				f.State, f.What = StateNote, "SELinux is active and enforces"
			}
			f.Remedy = "if something is refused, as root: ausearch -m avc -ts recent (Fedora, RHEL)"
		}
	}
	return []Finding{f}
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
