package userns

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/nsferry/nsferry/idshift"
)

// System is where facts about the machine come from, so that tests can show another machine. The zero value is this one.
type System struct {
	Proc    string          // mount point of proc; "/proc"
	Root    string          // where marks of container engines and /sys are; "/"
	Path    string          // search path for newuidmap and newgidmap; $PATH
	Sources idshift.Sources // user and sub-id files
}

func (s System) withDefaults() System {
	if s.Proc == "" {
		s.Proc = "/proc"
	}
	if s.Root == "" {
		s.Root = "/"
	}
	if s.Path == "" {
		s.Path = os.Getenv("PATH")
	}
	if s.Path == "" {
		s.Path = "/usr/local/bin:/usr/bin:/bin"
	}
	return s
}

// ownMapping is the map of the user namespace that this process is in.
func (s System) ownMapping() (idshift.Mapping, error) {
	var m idshift.Mapping
	for _, side := range []struct {
		name string
		dst  *idshift.Map
	}{{"uid_map", &m.UID}, {"gid_map", &m.GID}} {
		path := filepath.Join(s.Proc, "self", side.name)
		f, err := os.Open(path)
		if err != nil {
			return m, &EnvError{ID: "proc", What: "own id map", Err: err, Remedy: "mount proc at /proc"}
		}
		*side.dst, err = idshift.ParseProcMap(f)
		f.Close()
		if err != nil {
			return m, fmt.Errorf("%s: %w", path, err)
		}
	}
	return m, nil
}

// find returns the first executable of that name on s.Path, or "".
func (s System) find(name string) string {
	for _, dir := range filepath.SplitList(s.Path) {
		if !filepath.IsAbs(dir) {
			continue // never run a privileged helper from the working directory
		}
		p := filepath.Join(dir, name)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p
		}
	}
	return ""
}

// status returns a field of /proc/self/status, without surrounding blanks, or "".
func (s System) status(field string) string {
	text, err := os.ReadFile(filepath.Join(s.Proc, "self/status"))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// read returns what a file below /proc says, without surrounding blanks, or "".
func (s System) read(name string) string {
	text, err := os.ReadFile(filepath.Join(s.Proc, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(strings.TrimRight(string(text), "\x00"))
}

// sysctl returns the value of a sysctl given as a path below /proc/sys, or "" where the kernel has none.
func (s System) sysctl(name string) string { return s.read(filepath.Join("sys", name)) }
