package idshift

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// Accounts are the users and groups of a machine: the lines of passwd and group, and, where nsswitch.conf names more
// sources and getent is there, what getent knows. As for libc, the first line with a name or an id counts. What was
// asked of getent is kept. An Accounts must not be used concurrently.
type Accounts struct {
	src          Sources
	users, group accountTable
}

// accountTable is one file.
type accountTable struct {
	database string
	ids      map[string]uint32
	names    map[uint32]string
	more     bool            // getent may know more than the file
	asked    map[string]bool // of getent
}

// LoadAccounts reads both files, of which one that does not exist has no lines.
func LoadAccounts(src Sources) (*Accounts, error) {
	src = src.withDefaults()
	nss, err := readNSSwitch(src.NSSwitch)
	if err != nil {
		return nil, err
	}
	a := &Accounts{src: src}
	for _, f := range []struct {
		to             *accountTable
		database, path string
	}{{&a.users, "passwd", src.Passwd}, {&a.group, "group", src.Group}} {
		*f.to = accountTable{database: f.database, ids: map[string]uint32{}, names: map[uint32]string{}, asked: map[string]bool{}}
		f.to.more = slices.ContainsFunc(nss[f.database], func(s string) bool { return s != "files" && s != "compat" && s != "systemd" })
		if err := f.to.load(f.path); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// load reads a file.
func (t *accountTable) load(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20) // a group may have very many members
	for lines.Scan() {
		t.add(lines.Text())
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// add takes one line of passwd(5) or group(5): name, password, id, more. Other lines are passed over, as by libc.
func (t *accountTable) add(line string) {
	f := strings.SplitN(line, ":", 4)
	if len(f) < 4 || f[0] == "" || strings.ContainsAny(f[0][:1], "#+-") {
		return
	}
	id, err := parseID(f[2])
	if err != nil {
		return
	}
	if _, ok := t.ids[f[0]]; !ok {
		t.ids[f[0]] = id
	}
	if _, ok := t.names[id]; !ok {
		t.names[id] = f[0]
	}
}

// ask asks getent for a name or a number, once.
func (a *Accounts) ask(t *accountTable, key string) {
	if !t.more || t.asked[key] || key == "" || key[0] == '-' {
		return
	}
	t.asked[key] = true
	if out, err := a.src.Run("getent", t.database, key); err == nil {
		t.add(strings.TrimSuffix(string(out), "\n"))
	}
}

func (a *Accounts) id(t *accountTable, name string) (uint32, bool) {
	id, ok := t.ids[name]
	if !ok {
		a.ask(t, name)
		id, ok = t.ids[name]
	}
	return id, ok
}

func (a *Accounts) name(t *accountTable, id uint32) (string, bool) {
	name, ok := t.names[id]
	if !ok {
		a.ask(t, fmt.Sprint(id))
		name, ok = t.names[id]
	}
	return name, ok
}

// UserID returns the uid of a login name.
func (a *Accounts) UserID(name string) (uint32, bool) { return a.id(&a.users, name) }

// GroupID returns the gid of a group's name.
func (a *Accounts) GroupID(name string) (uint32, bool) { return a.id(&a.group, name) }

// UserName returns the login name of a uid.
func (a *Accounts) UserName(id uint32) (string, bool) { return a.name(&a.users, id) }

// GroupName returns the name of a gid.
func (a *Accounts) GroupName(id uint32) (string, bool) { return a.name(&a.group, id) }
