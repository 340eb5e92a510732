package ferry

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/idshift/userns/usernstest"
	"github.com/nsferry/nsferry/tier"
)

// childVar makes the test binary a process of its own for one flow, so that its memory can be measured: JSON of a job.
const childVar = "FERRY_TEST_CHILD"

// job is one flow in a process of its own.
type job struct {
	Mode, Map string
	In, Out   string
	Pack      bool
	Convert   bool
}

// outcome is what a job's process says: its error, and the peak of its memory and of its inner half's, in KiB.
type outcome struct {
	Err  string
	Peak int64
}

func TestMain(m *testing.M) {
	userns.Main(append(append(Halves(), shellHalf), usernstest.Halves()...)...)
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
	o := outcome{}
	if err == nil {
		done := make(chan error)
		go func() { done <- j.run() }()
		o.Peak, err = watch(done)
	}
	if err != nil {
		o.Err = err.Error()
	}
	out, _ := json.Marshal(o) // two plain fields
	fmt.Println(string(out))
	return 0
}

// watch waits for done and returns the peak of this process and of those that it starts. ru_maxrss would not do: it
// remembers the process from which this one was forked.
func watch(done <-chan error) (peak int64, err error) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		pids := []string{"self"}
		tasks, _ := filepath.Glob("/proc/self/task/*/children")
		for _, t := range tasks {
			b, _ := os.ReadFile(t) // the thread may be gone
			pids = append(pids, strings.Fields(string(b))...)
		}
		for _, pid := range pids {
			status, _ := os.ReadFile("/proc/" + pid + "/status")
			if _, after, ok := strings.Cut(string(status), "VmHWM:"); ok {
				var n int64
				_, _ = fmt.Sscan(after, &n)
				peak = max(peak, n)
			}
		}
		select {
		case err := <-done:
			return peak, err
		case <-tick.C:
		}
	}
}

func (j *job) run() error {
	e, err := userns.NewEnv(userns.Options{Mode: j.Mode, Map: j.Map})
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
	if j.Convert {
		_, err = Convert(context.Background(), in, j.Out, ConvertOptions{})
		return err
	}
	_, err = Unpack(context.Background(), e, in, j.Out, UnpackOptions{})
	return err
}
