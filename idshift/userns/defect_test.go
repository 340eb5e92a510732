package userns

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/tier"
)

// TestSpawnLikeTheSeed is row 3 of what is moved today: the command line of the first rootless patch of Isar, which util-linux
// before 2.39 does not take; and our way to the same namespace, which needs no unshare(1).
func TestSpawnLikeTheSeed(t *testing.T) {
	e := unprivileged(t)
	tier.Program(t, "unshare")
	u, okUID := e.Plain.UID.ToOutside(0)
	g, okGID := e.Plain.GID.ToOutside(0)
	tier.Have(t, okUID && okGID, "sub-ids")
	const count = 65534 // all but two
	argv := strings.Fields(fmt.Sprintf("--mount --user --pid --setuid 0 --setgid 0 --fork --map-users 0:%d:%d --map-groups 0:%d:%d "+
		"--map-users 65534:%d:1 --map-groups 65534:%d:1 id -u", u, count, g, count, u+count, g+count))
	out, err := exec.Command("unshare", argv...).CombinedOutput()
	version, verr := exec.Command("unshare", "--version").Output()
	old := regexp.MustCompile(` 2\.3[0-8](\.|\s)`).Match(version)
	if verr != nil || old && err == nil || !old && (err != nil || string(out) != "0\n") {
		t.Errorf("%s%v %v: %s", version, verr, err, out)
	}
	t.Logf("%sunshare says: %v, %s", version, err, out)
	said, code, err := output(t, e, sh("id -u; cat /proc/self/uid_map; mount -t tmpfs none /mnt && echo mounted"))
	if err != nil || code != 0 || !strings.HasPrefix(said, "0\n") || !strings.Contains(said, "mounted") {
		t.Errorf("ours: status %d, %v: %s", code, err, said)
	}
	if id, ok := e.Plain.UID.ToOutside(65534); !ok {
		t.Errorf("nobody has no place: %d", id)
	}
}
