package ferry

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/nsferry/nsferry/idshift/userns"

	"golang.org/x/sys/unix"
)

// childVar makes the test binary a process of its own for one flow, so that its memory can be measured: JSON of a job.
const childVar = "FERRY_TEST_CHILD"

// job is one flow in a process of its own.
type job struct {
	Env     userns.Options
	In, Out string
	Pack    bool
}

// outcome is what a job's process says: its error, and the peak of its memory and of its inner half's, in KiB.
type outcome struct {
	Err  string
	Peak int64
}

func TestMain(m *testing.M) {
	userns.Main(Halves()...)
	if text := os.Getenv(childVar); text != "" {
		os.Exit(child(text))
	}
	os.Exit(m.Run())
}

func child(text string) int {
	os.Unsetenv(childVar)
	var j job
	err := json.Unmarshal([]byte(text), &j)
	if err == nil {
		err = j.run()
	}
	o := outcome{}
	if err != nil {
		o.Err = err.Error()
	}
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err == nil {
			o.Peak = max(o.Peak, u.Maxrss)
		}
	}
	out, _ := json.Marshal(o) // two plain fields
	fmt.Println(string(out))
	return 0
}

func (j *job) run() error {
	e, err := userns.NewEnv(j.Env)
	if err != nil {
		return err
	}
	if j.Pack {
		_, err = Pack(context.Background(), e, j.In, j.Out, PackOptions{})
		return err
	}
	in, err := os.Open(j.In)
	if err != nil {
		return err
	}
	defer in.Close()
	_, err = Unpack(context.Background(), e, in, j.Out, UnpackOptions{})
	return err
}
