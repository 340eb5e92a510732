package facl_test

import (
	"os"
	"testing"

	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/tier"
)

// namespace returns an Env with a namespace: of the user's own sub-ids, or for root of a range that nobody needs.
func namespace(t testing.TB) *userns.Env {
	t.Helper()
	o := userns.Options{Mode: "unshare"}
	if os.Getuid() == 0 {
		o.Map = "0:3000000000:65536"
	}
	e, err := userns.NewEnv(o)
	if err != nil {
		tier.Have(t, false, err.Error())
	}
	return e
}
