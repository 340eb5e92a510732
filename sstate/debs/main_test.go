package debs

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/tier"
)

// childVar makes the test binary a process of its own for one flow, to be killed: JSON of a job.
const childVar = "DEBS_TEST_CHILD"

// job is one flow in a process of its own.
type job struct {
	Export   bool
	Root, DL string
	Mode     string
}

func TestMain(m *testing.M) {
	userns.Main(append(Halves(), ferry.Halves()...)...)
	if text := os.Getenv(childVar); text != "" {
		os.Exit(child(text))
	}
	tier.PrivateMounts()
	os.Exit(m.Run())
}

func child(text string) int {
	os.Unsetenv(childVar)
	var j job
	err := json.Unmarshal([]byte(text), &j)
	if err == nil {
		err = j.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (j job) run() error {
	e, err := userns.NewEnv(userns.Options{Mode: j.Mode})
	if err != nil {
		return err
	}
	env := func() (*userns.Env, error) { return e, nil }
	if j.Export {
		_, err = Export(context.Background(), env, j.Root, j.DL, ExportOptions{KeepMode: true})
	} else {
		_, err = Import(context.Background(), env, j.DL, j.Root, ImportOptions{})
	}
	return err
}
