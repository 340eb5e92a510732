package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/idshift/userns"
)

// enter is a shell function for namespaces made by hand: `enter MAP COMMAND...` runs the command in a new user and mount namespace,
// whose map root of this one writes, or newuidmap and newgidmap for anybody else. It is what a container engine does.
const enter = `enter() {
	map=$1; shift
	mkfifo /tmp/home/go.$$
	unshare --user --mount sh -c 'read go </tmp/home/go.'$$'; rm /tmp/home/go.'$$'; exec "$@"' sh "$@" & pid=$!
	trap 'kill $pid 2>/dev/null || true' EXIT
	while [ "$(readlink /proc/$pid/ns/user)" = "$(readlink /proc/self/ns/user)" ]; do sleep 0.01; done
	if [ "$(id -u)" = 0 ]; then
		printf '%s %s %s\n' $map >/proc/$pid/uid_map; printf '%s %s %s\n' $map >/proc/$pid/gid_map # in one write(2) each
	else
		/usr/bin/newuidmap $pid $map; /usr/bin/newgidmap $pid $map
	fi
	echo >/tmp/home/go.$$
	wait $pid
}
`

// handMade is a place whose user makes namespaces by the script, and calls nsferry, "$@", in them. kas is uid 1000 inside; subuid
// are the lines of both files; the tools belong to toolsOf, who is root of the container.
func handMade(script, subuid string, toolsOf int) place {
	return place{
		SubUID: fmt.Sprintf("ferryman:%d:65536\n%s", placeFirst, subuid), SubGID: fmt.Sprintf("ferryman:%d:65536\n%s", placeFirst, subuid),
		Setup: fmt.Sprintf(`chmod 0711 /tmp/home; echo kas:x:1000:1000::/tmp/home:/bin/sh >>/etc/passwd
mkdir /tmp/tools; cp /usr/bin/newuidmap /usr/bin/newgidmap /tmp/tools; chown %d:%[1]d /tmp/tools/*; chmod 4755 /tmp/tools/*`, toolsOf),
		Env: []string{"PATH=/tmp/tools:/usr/sbin:/usr/bin:/sbin:/bin"},
		Via: []string{"/bin/sh", "-euc", enter + script, "sh"},
		Do:  calls([]string{"--json", "doctor"}),
	}
}

// rootfulDocker is a container whose uid 0 is the machine's, as the daemon makes it: a root directory of its own with the engine's
// mark.
const rootfulDocker = `mkdir /tmp/o; mount -t tmpfs none /tmp/o; mkdir /tmp/o/up /tmp/o/work /tmp/o/root
mount -t overlay -o lowerdir=/,upperdir=/tmp/o/up,workdir=/tmp/o/work none /tmp/o/root
for d in proc sys dev tmp etc; do mount --rbind /$d /tmp/o/root/$d; done
touch /tmp/o/root/.dockerenv
cd /tmp/o/root; pivot_root . mnt; umount -l /mnt; cd /tmp/home
`

// dockerCaps are the capabilities that docker leaves its containers.
const dockerCaps = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+net_raw,+sys_chroot,+mknod,+audit_write,+setfcap"

// TestDoctorNested calls doctor in namespaces made by hand: what containers, unshare and nsferry itself make.
func TestDoctorNested(t *testing.T) {
	rootTier(t)
	inNamespace := func(model string) place {
		// The outer nsferry makes the namespace; what runs in it is the program under test.
		return place{Setup: "chmod 0711 /tmp/home", Do: calls(strings.Fields("--model " + model + " run -- /tmp/bin/nsferry --json doctor"))}
	}
	single := place{Setup: "chmod 0711 /tmp/home", Do: calls(strings.Fields("run -- unshare -Ur /tmp/bin/nsferry --json doctor"))}
	rootless := fmt.Sprintf("0 %d 1 1 %d 65536", placeUser, placeFirst) // docker-rootless, rootless podman
	keepID := "0 1 1000 1000 0 1 1001 1001 64536"                       // podman's --userns=keep-id within that, as kas uses it
	asKas := "setpriv --reuid=1000 --regid=1000 --clear-groups"
	docker := func(setup string, p place) place {
		p.Setup, p.Do = rootfulDocker+setup, calls([]string{"--json", "doctor"})
		return p
	}
	host := "kas:2500000000:65536\n" // the host's line, copied into the image
	inMap := "kas:1001:64536\n"      // what the remedy says
	for _, tt := range []struct {
		name   string
		place  place
		id     string
		state  userns.State
		text   string // what and evidence, a regular expression
		remedy string // likewise
		exit   int
	}{
		{"remapped ids", inNamespace("base"), "nesting", userns.StateOK, "in a namespace of remapped ids.*0:2500000000:65536", "^$", 0},
		{"rootless container", inNamespace("caller"), "nesting", userns.StateOK, "in a rootless container's namespace.*0:54321:1,1:2500000001:65535", "^$", 0},
		{"sudo's ids", inNamespace("identity"), "nesting", userns.StateOK, "in a user namespace", "^$", 0},
		{"unshare -r", single, "nesting", userns.StateNote, "with a single id", "leave that namespace", 4},
		{"unshare -r, the consequence", single, "subid.nested", userns.StateProblem, "no sub-uids", "", 4},
		{"docker-rootless, its root", handMade("enter '"+rootless+"' \"$@\"", "", placeUser), "nesting", userns.StateOK, "in a rootless container's namespace.*0:54321:1,1:2500000000:65536", "^$", 0},
		{"docker-rootless, a user in it", handMade("enter '"+rootless+"' "+asKas+" \"$@\"", inMap, placeUser), "userns.enter", userns.StateOK, "can be entered", "^$", 0},
		{"docker-rootless, the host's sub-ids", handMade("enter '"+rootless+"' "+asKas+" \"$@\"", host, placeUser), "subid.nested", userns.StateProblem, "no sub-uids and no sub-gids", "add such a range to /etc/subuid and /etc/subgid inside .kas:1001:64536 and kas:1001:64536.", 4},
		{"docker-rootless, image's tools without setuid", handMade("chmod 0755 /tmp/tools/*; enter '"+rootless+"' "+asKas+" \"$@\"", inMap, placeUser), "newuidmap.privilege", userns.StateProblem, "newuidmap", "chmod 4755 /tmp/tools/newuidmap", 4},
		{"docker-rootless, tools of nobody's", handMade("enter '"+rootless+"' "+asKas+" \"$@\"", inMap, 0), "newuidmap.privilege", userns.StateProblem, "newuidmap", "chown 0:0 /tmp/tools/newuidmap|chown root", 4},
		{"podman keep-id", handMade("enter '"+rootless+"' sh -euc '"+strings.ReplaceAll(enter, "'", `'\''`)+"enter \"$0\" \"$@\"' '"+keepID+"' \"$@\"", inMap, placeFirst), "nesting", userns.StateOK, "keeps your id .podman --userns=keep-id.*0:1:1000,1000:0:1,1001:1001:64536", "^$", 0},
		{"podman keep-id, the host's sub-ids", handMade("enter '"+rootless+"' sh -euc '"+strings.ReplaceAll(enter, "'", `'\''`)+"enter \"$0\" \"$@\"' '"+keepID+"' \"$@\"", host, placeFirst), "subid.nested", userns.StateProblem, "no sub-uids and no sub-gids", "add such a range to /etc/subuid and /etc/subgid inside .kas:1001:64536 and kas:1001:64536.", 4},
		{"rootful docker, a user", docker("", place{}), "nesting", userns.StateOK, "rootful container .docker.*uid_map 0:0:4294967295", "^$", 0},
		{"rootful docker, its filter", docker("", place{NoUserNS: true}), "userns.seccomp", userns.StateProblem, "", "--security-opt seccomp=unconfined", 4},
		{"rootful docker, no-new-privileges", docker("", place{NoNewPrivs: true}), "userns.nnp", userns.StateProblem, "no_new_privs", "--security-opt no-new-privileges", 4},
		{"rootful docker, its capabilities", docker("", place{AsRoot: true, Via: []string{"/usr/bin/setpriv", "--bounding-set=" + dockerCaps}}), "nesting", userns.StateOK, "rootful container .docker", "^$", 0},
		{"a namespace with all ids", place{Sysctls: true, Do: calls([]string{"--json", "doctor"})}, "nesting", userns.StateOK, "(not in a user namespace|rootful container).*0:0:4294967295", "^$", 0},
		{"no_new_privs by setpriv", place{Via: []string{"/usr/bin/setpriv", "--no-new-privs"}, Do: calls([]string{"--json", "doctor"})}, "userns.nnp", userns.StateProblem, "no_new_privs", "setpriv", 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := tt.place.visit(t)[0]
			var r struct{ Result checkup }
			if err := json.Unmarshal([]byte(a.Stdout), &r); err != nil {
				t.Fatalf("%v\n%s%s", err, a.Stdout, a.Stderr)
			}
			found := false
			for _, f := range r.Result.Findings {
				if f.ID != tt.id {
					continue
				}
				found = true
				if f.State != tt.state || !regexp.MustCompile(tt.text).MatchString(f.What+" "+f.Evidence) || !regexp.MustCompile(tt.remedy).MatchString(f.Remedy) {
					t.Errorf("got %+v", f)
				}
			}
			if !found || a.Exit != tt.exit {
				t.Errorf("%s: found %v, exit %d, want %d: %s%s", tt.id, found, a.Exit, tt.exit, a.Stdout, a.Stderr)
			}
		})
	}
}
