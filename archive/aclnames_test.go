package archive

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/tier"
)

// TestDebianNames holds the tables against the package that they are from.
func TestDebianNames(t *testing.T) {
	for file, lookup := range map[string]func(string) (uint32, error){
		"passwd.master": debianNames{}.User,
		"group.master":  debianNames{}.Group,
	} {
		f, err := os.Open("/usr/share/base-passwd/" + file)
		tier.Have(t, err == nil, "a Debian system, with the package base-passwd")
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
