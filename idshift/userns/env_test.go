package userns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/idshift"
)

// machine makes a proc and sub-id files that show another machine. Files are given by path below proc.
func machine(t *testing.T, uidMap, subID string, files map[string]string) System {
	t.Helper()
	dir := t.TempDir()
	all := map[string]string{
		"proc/self/uid_map": uidMap, "proc/self/gid_map": uidMap, "proc/sys/kernel/cap_last_cap": "40\n",
		"proc/sys/user/max_user_namespaces": "1000\n", "proc/sys/user/max_mnt_namespaces": "1000\n", "proc/sys/user/max_pid_namespaces": "1000\n",
		"proc/self/status":    "NoNewPrivs:\t0\nSeccomp:\t0\nCapEff:\t0000000000000000\n",
		"proc/self/mountinfo": "1 0 0:1 / / rw - ext4 /dev/x rw\n",
		"subid":               subID, "passwd": "ann:x:4711:4711::/:/bin/sh\n", "nsswitch": "passwd: files\n",
	}
	for name, text := range files {
		all[name] = text
	}
	for name, text := range all {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return System{Proc: filepath.Join(dir, "proc"), Path: filepath.Join(dir, "bin"), Sources: idshift.Sources{
		Passwd: filepath.Join(dir, "passwd"), SubUID: filepath.Join(dir, "subid"), SubGID: filepath.Join(dir, "subid"),
		NSSwitch: filepath.Join(dir, "nsswitch"), IDs: func() (uint32, uint32) { return 4711, 4711 }}}
}

const (
	wholeMap   = "0 0 4294967295\n"
	rangeMap   = "0 100000 65536\n"
	partialMap = "0 1000 1\n1 100000 1000\n"
)

func TestNewEnv(t *testing.T) {
	asRoot := os.Getuid() == 0
	for _, tt := range []struct {
		name        string
		root        bool // needs euid 0; else needs another one, or an explicit mode
		uidMap, sub string
		o           Options
		direct      bool
		arithmetic  bool
		plain       string // uid map
		err         string // id of the EnvError, or text of another error
	}{
		{name: "real root", root: true, uidMap: wholeMap, direct: true, plain: "0:0:4294967295"},
		{name: "real root, explicit map", root: true, uidMap: wholeMap, o: Options{Map: "0:5000:65536"}, direct: true, arithmetic: true, plain: "0:5000:65536"},
		{name: "root inside, map suffices", root: true, uidMap: rangeMap, direct: true, plain: "0:100000:65536"},
		{name: "root inside, nested", root: true, uidMap: rangeMap + "65536 900000 131072\n", o: Options{Mode: "unshare"}, sub: "ann:70000:65536\n", plain: "0:70000:65536"},
		{name: "root inside without nobody, nothing better", root: true, uidMap: "0 1001 64536\n", direct: true, plain: "0:1001:64536"},
		{name: "root inside without nobody, sub-ids", root: true, uidMap: "0 1001 64536\n100000 900000 70000\n", sub: "ann:100000:70000\n", plain: "0:100000:70000"},
		{name: "root inside without nobody, mode root", root: true, uidMap: "0 1001 64536\n", o: Options{Mode: "root"}, direct: true, plain: "0:1001:64536"},
		{name: "root inside, map too small", root: true, uidMap: partialMap, err: "subid.nested"},
		{name: "root inside, mode root, map too small", root: true, uidMap: partialMap, o: Options{Mode: "root"}, err: "map.current"},
		{name: "ranges that the container does not map", uidMap: partialMap, o: Options{Mode: "unshare"}, sub: "ann:100000:65536\n", err: "subid.nested"},
		{name: "user", uidMap: wholeMap, o: Options{Mode: "unshare"}, sub: "ann:200000:65536\n", plain: "0:200000:65536"},
		{name: "user by number", uidMap: wholeMap, o: Options{Mode: "unshare"}, sub: "4711:200000:65536\n", plain: "0:200000:65536"},
		{name: "explicit map", uidMap: wholeMap, o: Options{Mode: "unshare", Map: "0:7000:70000"}, plain: "0:7000:70000"},
		{name: "no sub-ids", uidMap: wholeMap, o: Options{Mode: "unshare"}, err: "subid.range"},
		{name: "one sub-id", uidMap: wholeMap, o: Options{Mode: "unshare"}, sub: "ann:200000:1\n", err: "subid.range"},
		{name: "no such mode", uidMap: wholeMap, o: Options{Mode: "magic"}, err: "want auto, unshare or root"},
		{name: "no such model", uidMap: wholeMap, o: Options{Mode: "unshare", Model: "magic"}, sub: "ann:200000:65536\n", err: "magic"},
		{name: "bad map", uidMap: wholeMap, o: Options{Mode: "unshare", Map: "0:1"}, err: "0:1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.root && !asRoot {
				t.Skip("root tier: only root sees this")
			}
			o := tt.o
			o.System = machine(t, tt.uidMap, tt.sub, nil)
			e, err := NewEnv(o)
			if tt.err != "" {
				var env *EnvError
				if errors.As(err, &env) {
					if env.ID != tt.err || env.Remedy == "" {
						t.Errorf("error %s without or with remedy %q, want %s", env.ID, env.Remedy, tt.err)
					}
				} else if ExitCode(err) != ExitUsage || !strings.Contains(fmt.Sprint(err), tt.err) {
					t.Errorf("error %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if e.Direct != tt.direct || e.Arithmetic() != tt.arithmetic || e.Plain.UID.String() != tt.plain {
				t.Errorf("direct %v, arithmetic %v, plain %s; want %v, %v, %s", e.Direct, e.Arithmetic(), e.Plain.UID, tt.direct, tt.arithmetic, tt.plain)
			}
		})
	}
	if !asRoot {
		_, err := NewEnv(Options{Mode: "root"})
		var env *EnvError
		if !errors.As(err, &env) || env.ID != "mode.root" {
			t.Errorf("mode root for an ordinary user: %v", err)
		}
	}
}
