package userns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// toolCheck looks for newuidmap or newgidmap with the privilege that it needs to write mapFile: the setuid bit, or the
// capability in its file capabilities.
func toolCheck(mapFile string, capability int) func(x *exam) Finding {
	tool := mapTool(mapFile)
	return func(x *exam) Finding {
		f := Finding{ID: tool, State: StateOK, What: tool + " is installed and privileged"}
		if x.writesMaps() {
			f.What = tool + " is not needed: this process may write maps itself"
			return f
		}
		path := x.sys.find(tool)
		if path == "" {
			return Finding{ID: tool + ".missing", State: StateProblem, What: tool + " is not installed",
				Evidence: "searched " + x.sys.Path, Remedy: "as root: apt-get install uidmap (Debian, Ubuntu), dnf install shadow-utils (Fedora)"}
		}
		how, err := privilege(path, capability)
		f.Evidence = path + ": " + how
		if err != nil {
			return Finding{ID: tool + ".privilege", State: StateProblem, What: tool + " has no privilege: " + err.Error(),
				Evidence: path, Remedy: fmt.Sprintf("as root: chown root:root %s && chmod 4755 %[1]s, and no nosuid on its filesystem", path)}
		}
		return f
	}
}

// privilege tells how the program at path gets the capability when an ordinary user runs it.
func privilege(path string, capability int) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: path, Err: err}
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return "", &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	if fs.Flags&unix.ST_NOSUID != 0 {
		return "", errors.New("its filesystem is mounted nosuid")
	}
	if st.Mode&unix.S_ISUID != 0 {
		if st.Uid != 0 {
			return "", fmt.Errorf("it is setuid for uid %d instead of root", st.Uid)
		}
		return "setuid root", nil
	}
	// struct vfs_cap_data (capabilities(7), linux/capability.h): u32 magic and effective bit, u32 permitted 0–31, …
	var xattr [24]byte
	n, err := unix.Getxattr(path, "security.capability", xattr[:])
	if err != nil || n < 8 {
		return "", errors.New("neither setuid root nor file capabilities")
	}
	if binary.LittleEndian.Uint32(xattr[4:])&(1<<capability) == 0 || xattr[0]&1 == 0 {
		return "", errors.New("its file capabilities lack the one it needs")
	}
	return "file capabilities", nil
}
