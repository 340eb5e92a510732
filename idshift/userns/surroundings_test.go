package userns

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/idshift"
)

// The maps that container engines make, as /proc/self/uid_map shows them inside.
func TestNestingKind(t *testing.T) {
	for _, tt := range []struct {
		name, procMap string
		euid          uint32
		want          string
	}{
		{"no namespace, or rootful docker", "0 0 4294967295", 1000, ""},
		{"unshare -r", "0 1000 1", 0, singleID},
		{"unshare -c", "1000 1000 1", 1000, singleID},
		{"docker-rootless", "0 1000 1\n1 100000 65536", 0, "a rootless container's"},
		{"rootless podman", "0 1000 1\n1 100000 65536", 33, "a rootless container's"},
		{"podman --userns=keep-id", "0 1 1000\n1000 0 1\n1001 1001 64536", 1000, "keeps your id"},
		{"kas, as another user", "0 1 30000\n30000 0 1\n30001 30001 35536", 30000, "keeps your id"},
		{"userns-remap", "0 231072 65536", 0, "remapped ids"},
		{"nsferry run --model identity", "0 100000 1000\n1000 1000 1\n1001 101000 64536", 0, "a user namespace"},
	} {
		m, err := idshift.ParseProcMap(strings.NewReader(tt.procMap + "\n"))
		if err != nil {
			t.Fatal(err)
		}
		if got := nestingKind(m, tt.euid); !strings.Contains(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// What machines of all kinds let us read of their security modules; what they do not is unknown, never "none".
func TestModules(t *testing.T) {
	for _, tt := range []struct {
		name        string
		files       map[string]string
		state       State
		what        string
		withoutWord string
	}{
		{"none", map[string]string{"sys/kernel/security/lsm": "capability,yama"}, StateOK, "neither AppArmor nor SELinux", ""},
		{"hidden", nil, StateNote, "unknown", "neither"},
		{"AppArmor, unconfined", map[string]string{"sys/kernel/security/lsm": "capability,apparmor\n", "proc/self/attr/current": "unconfined\n"}, StateOK, "AppArmor is active", ""},
		{"AppArmor, confined", map[string]string{"sys/kernel/security/lsm": "apparmor", "proc/self/attr/current": "docker-default (enforce)\n"}, StateNote, "confines", ""},
		{"SELinux", map[string]string{"sys/kernel/security/lsm": "selinux", "sys/fs/selinux/enforce": "1", "proc/self/attr/current": "unconfined_u:unconfined_r:unconfined_t:s0\x00"}, StateNote, "enforces", "unknown"},
		{"SELinux, permissive", map[string]string{"sys/kernel/security/lsm": "selinux", "sys/fs/selinux/enforce": "0"}, StateOK, "SELinux is active", "enforces"},
		{"SELinux, hidden", map[string]string{"sys/kernel/security/lsm": "selinux"}, StateNote, "whether it enforces is unknown", ""},
	} {
		root := t.TempDir()
		for name, text := range tt.files {
			if err := os.MkdirAll(filepath.Join(root, filepath.Dir(name)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		f := checkModules(&exam{sys: System{Root: root, Proc: filepath.Join(root, "proc")}})[0]
		if f.ID != "lsm" || f.State != tt.state || !strings.Contains(f.What, tt.what) || tt.withoutWord != "" && strings.Contains(f.What, tt.withoutWord) {
			t.Errorf("%s: got %+v", tt.name, f)
		}
		if strings.Contains(f.Evidence, "\x00") {
			t.Errorf("%s: a NUL in %q", tt.name, f.Evidence)
		}
	}
}

// A rootful container looks like no namespace but for the engine's mark.
func TestContainerMark(t *testing.T) {
	for _, tt := range []struct{ mark, want string }{{"", "not in a user namespace"}, {".dockerenv", "rootful container (docker)"}, {"run/.containerenv", "rootful container (podman)"}} {
		root := t.TempDir()
		for name, text := range map[string]string{"proc/self/uid_map": "0 0 4294967295\n", "proc/self/gid_map": "0 0 4294967295\n", tt.mark: ""} {
			if name == "" {
				continue
			}
			if err := os.MkdirAll(filepath.Join(root, filepath.Dir(name)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		f := checkNesting(&exam{sys: System{Root: root, Proc: filepath.Join(root, "proc")}})[0]
		if f.State != StateOK || !strings.Contains(f.What, tt.want) {
			t.Errorf("%q: got %+v", tt.mark, f)
		}
	}
}
