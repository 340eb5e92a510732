package deploy

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/idshift/userns"
)

// swap is what an attacker inside does.
type swap struct {
	Chmod string // makes a directory 0700 and is done
}

// swapHalf is an attacker inside.
var swapHalf = userns.Half[swap, int]{Name: "test swap", Func: func(ctx context.Context, in *userns.Inner, s swap) (n int, err error) {
	return 0, unix.Fchmodat(int(in.Files[0].Fd()), s.Chmod, 0o700, 0)
}}
