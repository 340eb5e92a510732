package idshift

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestAccounts(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	asked := map[string]int{}
	src := Sources{
		Passwd:   write("passwd", "root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\nbad line\n#c:x:7:7::/:\n+nis:x:8:8::/:\nbig:x:4294967296:1::/:\njoe:x:1000:1000::/:\njoe:x:1001:1::/:\n"),
		Group:    write("group", "root:x:0:\nstaff:x:50:joe,root\n"),
		NSSwitch: write("nsswitch.conf", "passwd: files systemd sss\ngroup: files systemd\n"),
		Run: func(name string, args ...string) ([]byte, error) {
			asked[args[0]+" "+args[1]]++
			if args[1] == "ldap" || args[1] == "5000" {
				return []byte("ldap:x:5000:5000::/:\n"), nil
			}
			return nil, errors.New("exit status 2")
		},
	}
	a, err := LoadAccounts(src)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]uint32{"root": 0, "toor": 0, "joe": 1000, "ldap": 5000} {
		if id, ok := a.UserID(name); !ok || id != want {
			t.Errorf("%s: %d, %v", name, id, ok)
		}
	}
	for id, want := range map[uint32]string{0: "root", 1000: "joe", 5000: "ldap"} {
		if name, ok := a.UserName(id); !ok || name != want {
			t.Errorf("%d: %q, %v", id, name, ok)
		}
	}
	for _, name := range []string{"big", "#c", "+nis", "nosuch", "nosuch", "", "-s"} {
		if id, ok := a.UserID(name); ok {
			t.Errorf("%q is %d", name, id)
		}
	}
	if id, ok := a.GroupID("staff"); !ok || id != 50 {
		t.Errorf("staff: %d, %v", id, ok)
	}
	if name, ok := a.GroupName(51); ok {
		t.Errorf("group 51 is %q", name)
	}
	if asked["passwd nosuch"] != 1 || asked["passwd -s"] != 0 || asked["group 51"] != 0 {
		t.Errorf("getent was asked %v", asked)
	}
	none := filepath.Join(dir, "none")
	if a, err = LoadAccounts(Sources{Passwd: none, Group: none, NSSwitch: none}); err != nil {
		t.Fatal(err)
	}
	if _, ok := a.UserID("root"); ok {
		t.Error("root without a passwd file")
	}
}
