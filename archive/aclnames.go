package archive

import "fmt"

// debianNames resolves the names of ACL entries, which GNU tar writes even with --numeric-owner. A name says which id the
// machine that made the archive had for it, so only those can be trusted that have one id on every Debian system:
// Debian Policy 9.2.2, "globally allocated by the Debian project", package base-passwd.
type debianNames struct{}

func (debianNames) User(name string) (uint32, error) { return fixedID(fixedUsers, "user", name) }

func (debianNames) Group(name string) (uint32, error) { return fixedID(fixedGroups, "group", name) }

func fixedID(table map[string]uint32, kind, name string) (uint32, error) {
	if id, ok := table[name]; ok {
		return id, nil
	}
	return 0, fmt.Errorf("%s %q has no fixed id, and what id the archive's maker had for it cannot be known; make the archive with ids (bsdtar or nsferry pack), or leave ACLs out with --xattrs none", kind, name)
}

// fixedBoth are accounts whose user and group have one name and id.
var fixedBoth = map[string]uint32{
	"root": 0, "daemon": 1, "bin": 2, "sys": 3, "lp": 7, "mail": 8, "news": 9, "uucp": 10, "proxy": 13,
	"www-data": 33, "backup": 34, "list": 38, "irc": 39,
}

var fixedUsers = with(fixedBoth, map[string]uint32{"sync": 4, "games": 5, "man": 6, "nobody": overflowID})

var fixedGroups = with(fixedBoth, map[string]uint32{
	"adm": 4, "tty": 5, "disk": 6, "man": 12, "kmem": 15, "dialout": 20, "fax": 21, "voice": 22, "cdrom": 24, "floppy": 25,
	"tape": 26, "sudo": 27, "audio": 29, "dip": 30, "operator": 37, "src": 40, "shadow": 42, "utmp": 43, "video": 44,
	"sasl": 45, "plugdev": 46, "staff": 50, "games": 60, "users": 100, "nogroup": overflowID,
})

func with(a, b map[string]uint32) map[string]uint32 {
	all := make(map[string]uint32, len(a)+len(b))
	for _, m := range [2]map[string]uint32{a, b} {
		for k, v := range m {
			all[k] = v
		}
	}
	return all
}
