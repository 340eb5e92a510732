package idshift

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// Sources is what LookupCaller asks. The zero value is this system and this process.
type Sources struct {
	// Passwd, Group, SubUID, SubGID and NSSwitch are file names; empty ones are the usual files in /etc.
	Passwd, Group, SubUID, SubGID, NSSwitch string
	// IDs returns the caller's real uid and gid; nil means those of this process.
	IDs func() (uid, gid uint32)
	// Run runs a program (getsubids, getent) and returns its standard output; nil means os/exec. An error that wraps
	// exec.ErrNotFound or fs.ErrNotExist says that the program is not installed.
	Run func(name string, args ...string) ([]byte, error)
}

// withDefaults fills in what is not set.
func (s Sources) withDefaults() Sources {
	for _, f := range []struct {
		path  *string
		usual string
	}{
		{&s.Passwd, "/etc/passwd"}, {&s.Group, "/etc/group"}, {&s.SubUID, UID.file()}, {&s.SubGID, GID.file()}, {&s.NSSwitch, "/etc/nsswitch.conf"},
	} {
		if *f.path == "" {
			*f.path = f.usual
		}
	}
	if s.IDs == nil {
		s.IDs = func() (uint32, uint32) { return uint32(os.Getuid()), uint32(os.Getgid()) }
	}
	if s.Run == nil {
		s.Run = func(name string, args ...string) ([]byte, error) { return exec.Command(name, args...).Output() }
	}
	return s
}

// LookupCaller finds out who runs this process and which sub-ids he has. The user is looked up by real uid in the passwd
// file (no LOGNAME, tty or cgo), then by getent where nsswitch.conf names more sources; a uid that nobody knows, as in
// containers, still has its numeric sub-id lines. Sub-ids come from the two files, by name and by uid, or from getsubids(1)
// when nsswitch.conf's "subid" line names another source. Having none is no error here, but one of Plan.
func LookupCaller(src Sources) (Caller, error) {
	src = src.withDefaults()
	c := Caller{}
	c.UID, c.GID = src.IDs()
	nss, err := readNSSwitch(src.NSSwitch)
	if err != nil {
		return Caller{}, err
	}
	names, err := src.names(c.UID, nss["passwd"])
	if err != nil {
		return Caller{}, err
	}
	if len(names) > 0 {
		c.Name = names[0]
	}
	// libsubid uses the first source only (getsubids(1), nsswitch.conf's "subid").
	if s := nss["subid"]; len(s) > 0 && s[0] != "files" {
		c.Source = s[0]
		return c, src.getsubids(&c)
	}
	owners := append(names, strconv.FormatUint(uint64(c.UID), 10))
	if c.UIDRanges, c.FreeUID, err = c.fromFile(src.SubUID, owners); err != nil {
		return Caller{}, err
	}
	if c.GIDRanges, c.FreeGID, err = c.fromFile(src.SubGID, owners); err != nil {
		return Caller{}, err
	}
	return c, nil
}

// fromFile reads the caller's ranges from one sub-id file and adds to the notes. A file that is not there has no lines.
func (c *Caller) fromFile(path string, owners []string) (ranges []Range, free uint32, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	lines, err := parseSubIDs(f)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", path, err)
	}
	ranges, notes, err := own(path, lines, owners)
	c.Notes = append(c.Notes, notes...)
	return ranges, freeID(lines), err
}

// names returns the user's login names, the one that passwd lists first in front. More than one name for a uid is legal,
// and newuidmap takes the lines of each.
func (s Sources) names(uid uint32, sources []string) ([]string, error) {
	f, err := os.Open(s.Passwd)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	if err == nil {
		defer f.Close()
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			names = appendName(names, lines.Text(), uid)
		}
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Passwd, err)
		}
	}
	if len(names) > 0 || !slices.ContainsFunc(sources, func(s string) bool { return s != "files" && s != "compat" }) {
		return names, nil
	}
	// A user of a directory service. getent exits with 2 when there is no such user either, and may not be installed.
	out, err := s.Run("getent", "passwd", strconv.FormatUint(uint64(uid), 10))
	var exit *exec.ExitError
	switch {
	case err == nil:
		return appendName(nil, strings.TrimSuffix(string(out), "\n"), uid), nil
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist), errors.As(err, &exit) && exit.ExitCode() == 2:
		return nil, nil
	}
	return nil, fmt.Errorf("look up uid %d: getent: %w", uid, err)
}

// appendName adds the name of a passwd(5) line if its uid is the given one.
func appendName(names []string, line string, uid uint32) []string {
	f := strings.Split(line, ":")
	if len(f) < 4 || f[0] == "" || f[0][0] == '#' {
		return names
	}
	if id, err := parseID(f[2]); err != nil || id != uid || slices.Contains(names, f[0]) {
		return names
	}
	return append(names, f[0])
}
