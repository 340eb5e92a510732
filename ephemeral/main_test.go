package ephemeral

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/tier"
)

// mutator is where the test binary lies in a test's rootfs, as the command that changes it.
const mutator = "/.test/mutate"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[0] == mutator {
		os.Exit(mutate(os.Args[1:]))
	}
	userns.Main(slices.Concat(Halves(), ferry.Halves(), []userns.Registered{buildHalf})...)
	if os.Geteuid() == 0 {
		tier.PrivateMounts()
	}
	os.Exit(m.Run())
}

// mutate is the command's whole life: it changes the tree around it by chance, from a seed, and exits with a status.
func mutate(args []string) int {
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
