package ephemeral

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/idshift/userns/usernstest"
	"github.com/nsferry/nsferry/tier"
)

// mutator is where the test binary lies in a test's rootfs, as the command that changes it.
const mutator = "/.test/mutate"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[0] == mutator {
		os.Exit(mutate(os.Args[1:]))
	}
	userns.Main(slices.Concat(Halves(), ferry.Halves(), usernstest.Halves())...)
	if os.Geteuid() == 0 {
		tier.PrivateMounts()
	}
	os.Exit(m.Run())
}

// mutate is the command's whole life: it changes the tree around it by chance, from a seed, and exits with a status.
func mutate(args []string) int {
	if args[0] == "look" {
		return look()
	}
	seed, err := strconv.ParseUint(args[0], 10, 64)
	if err == nil {
		err = (&mutation{seed: seed, plain: len(args) > 2}).run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		return 99
	}
	if len(args) > 1 {
		status, _ := strconv.Atoi(args[1]) // ours
		return status
	}
	return 0
}

// look exits with 0 if the command can get at the tree below by no mount, and by no file that pid 1 has open.
func look() int {
	table, err := os.ReadFile("/proc/self/mountinfo")
	roots := 0
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == "/" {
			roots++
		}
	}
	if err != nil || roots != 1 {
		fmt.Fprintf(os.Stderr, "look: %d mounts at /, %v\n%s", roots, err, table)
		return 98
	}
	open, err := os.ReadDir("/proc/1/fd")
	if err != nil || len(open) < 3 {
		fmt.Fprintln(os.Stderr, "look:", open, err)
		return 98
	}
	for _, fd := range open {
		in, err := os.ReadDir("/proc/1/fd/" + fd.Name())
		for _, e := range in {
			if e.Name() == "below" || e.Name() == treeName {
				fmt.Fprintf(os.Stderr, "look: /proc/1/fd/%s is a way to the tree below: %v, %v\n", fd.Name(), in, err)
				return 98
			}
		}
	}
	return 0
}
