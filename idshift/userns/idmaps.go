package userns

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/nsferry/nsferry/idshift"
	"golang.org/x/sys/unix"
)

// writeMaps writes both id maps of the user namespace that process pid is in. newuidmap and newgidmap run side by side:
// each costs an exec. The error is a *spawnError with step "uid_map" or "gid_map": one, for both fail of the same cause.
func (e *Env) writeMaps(pid int, m idshift.Mapping) error {
	write := e.runMapTool
	if e.sys.mayWriteMaps() {
		write = e.writeMapFile
	}
	gid := make(chan error, 1)
	go func() { gid <- write("gid_map", pid, m.GID) }()
	uidErr, gidErr := write("uid_map", pid, m.UID), <-gid
	if uidErr != nil {
		return uidErr
	}
	return gidErr
}

// mayWriteMaps tells whether this process may map any ids: it holds CAP_SETUID and CAP_SETGID in its own user
// namespace (user_namespaces(7)), which for us means effectively.
func (s System) mayWriteMaps() bool {
	eff, err := strconv.ParseUint(s.status("CapEff"), 16, 64)
	const need = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID
	return err == nil && eff&need == need
}

// writeMapFile writes the map as the kernel wants it: in one write, all extents (user_namespaces(7)).
func (e *Env) writeMapFile(name string, pid int, m idshift.Map) error {
	var text bytes.Buffer
	for _, x := range m.Extents() {
		fmt.Fprintf(&text, "%d %d %d\n", x.Inside, x.Outside, x.Count)
	}
	path := filepath.Join(e.sys.Proc, strconv.Itoa(pid), name)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return &spawnError{step: name, err: err}
	}
	defer f.Close()
	if _, err := f.Write(text.Bytes()); err != nil {
		return &spawnError{step: name, err: err, output: strings.TrimSpace(strings.ReplaceAll(text.String(), "\n", ", "))}
	}
	return nil
}

// mapTool is the setuid program that writes a map file for us.
func mapTool(mapFile string) string {
	if mapFile == "gid_map" {
		return "newgidmap"
	}
	return "newuidmap"
}

// runMapTool has newuidmap(1) or newgidmap(1) write the map. They check it against the sub-id files.
func (e *Env) runMapTool(name string, pid int, m idshift.Map) error {
	path := e.sys.find(mapTool(name))
	if path == "" {
		return &spawnError{step: name, err: &fs.PathError{Op: "find", Path: mapTool(name), Err: syscall.ENOENT}}
	}
	cmd := exec.Command(path, append([]string{strconv.Itoa(pid)}, m.Args()...)...)
	cmd.Env = []string{"LC_ALL=C"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return &spawnError{step: name, err: fmt.Errorf("%s: %w", path, err), output: strings.TrimSpace(string(out))}
	}
	return nil
}
