package archive

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestDebianNames holds the tables against the package that they are from.
func TestDebianNames(t *testing.T) {
	for file, lookup := range map[string]func(string) (uint32, error){
		"passwd.master": debianNames{}.User,
		"group.master":  debianNames{}.Group,
	} {
		f, err := os.Open("/usr/share/base-passwd/" + file)
		if errors.Is(err, fs.ErrNotExist) {
			t.Skip("not a Debian system: no base-passwd") //nolint:forbidigo // CI is one
		}
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			fields := strings.Split(s.Text(), ":")
			if fields[0] == "_apt" { // fixed since bookworm only
				continue
			}
			id, err := lookup(fields[0])
			if err != nil || strconv.FormatUint(uint64(id), 10) != fields[2] {
				t.Errorf("%s: %s is %s; got %d, %v", file, fields[0], fields[2], id, err)
			}
		}
	}
	if _, err := (debianNames{}).Group("systemd-journal"); err == nil || !strings.Contains(err.Error(), "--xattrs none") {
		t.Errorf("a name without a fixed id: %v", err)
	}
}
