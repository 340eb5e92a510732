package sstate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/idshift/userns/usernstest"
	"github.com/nsferry/nsferry/sstate/store"
	"github.com/nsferry/nsferry/tier"
)

// jobVar makes the test binary a process that works with a store until it is told not to: JSON of a crowdJob.
const jobVar = "SSTATE_TEST_JOB"

// crowdJob is what one of many processes does.
type crowdJob struct {
	Dir, Store string // trees, named by number, and targets; the store
	Keys       int
	Until      time.Time
	Seed       uint64
}

// serveJob is such a process. In any other one it does nothing.
func serveJob() {
	text := os.Getenv(jobVar)
	if text == "" {
		return
	}
	os.Unsetenv(jobVar)
	var j crowdJob
	err := json.Unmarshal([]byte(text), &j)
	if err == nil {
		err = j.work()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// work saves, restores, evicts and collects at random.
func (j crowdJob) work() error {
	e, err := userns.NewEnv(userns.Options{})
	if err != nil {
		return err
	}
	s, err := store.Open(j.Store, store.Options{Create: true})
	if err != nil {
		return err
	}
	c := &Cache{Env: e, Store: s}
	random := rand.New(rand.NewPCG(j.Seed, 0))
	for time.Now().Before(j.Until) {
		n := random.IntN(j.Keys)
		switch op := random.IntN(20); {
		case op < 9:
			err = j.save(c, n)
		case op < 18:
			err = j.restore(c, n)
		case op < 19:
			_, err = s.GC(store.GCOptions{MaxSize: int64(1 + random.IntN(j.Keys*600))})
		default:
			_, err = s.GC(store.GCOptions{MaxAge: time.Millisecond, Keep: func(k store.Key) bool { return k.String() != crowdKey(n) }})
		}
		if err != nil {
			return fmt.Errorf("key %d: %w", n, err)
		}
	}
	return nil
}

func crowdKey(n int) string { return fmt.Sprintf("tree-%d", n) }

func (j crowdJob) save(c *Cache, n int) error {
	k, err := store.ParseKey(crowdKey(n))
	if err != nil {
		return err
	}
	_, err = c.Save(context.Background(), k, filepath.Join(j.Dir, fmt.Sprint(n)), SaveOptions{Pack: ferry.PackOptions{Workers: 1}})
	return err
}

// restore makes a tree and looks whether it is the right one. A miss is fine; that an entry had to be moved away is not.
func (j crowdJob) restore(c *Cache, n int) error {
	k, err := store.ParseKey(crowdKey(n))
	if err != nil {
		return err
	}
	dir := filepath.Join(j.Dir, fmt.Sprintf("out-%x", j.Seed)) // pids come again, and a killed process leaves its tree
	_, err = c.Restore(context.Background(), k, dir, RestoreOptions{Unpack: ferry.UnpackOptions{Workers: 1}})
	var miss *store.MissError
	if errors.As(err, &miss) && miss.Reason == "there is no such entry" {
		return nil
	}
	if err != nil {
		return err
	}
	for i, want := range crowdFiles(n) {
		got, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("f%d", i)))
		if err != nil || !bytes.Equal(got, want) {
			return fmt.Errorf("the wrong tree: file %d: %d bytes, %w", i, len(got), err)
		}
	}
	_, err = ferry.Remove(context.Background(), c.Env, dir, ferry.RemoveOptions{})
	return err
}

// crowdFiles are the contents of the files of tree n.
func crowdFiles(n int) (files [][]byte) {
	random := rand.New(rand.NewPCG(uint64(n), 7))
	for range 4 {
		b := make([]byte, random.IntN(400))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		files = append(files, b)
	}
	return files
}

// crowd starts 32 processes on 50 keys, kills one a second with SIGKILL, and then looks what is left.
func crowd(t *testing.T, length time.Duration) {
	const workers, keys = 32, 50
	e, err := userns.NewEnv(userns.Options{})
	check(t, err)
	s := newStore(t)
	j := crowdJob{Dir: place(t, e), Store: s.Dir(), Keys: keys, Until: time.Now().Add(length), Seed: uint64(time.Now().UnixNano())}
	t.Logf("seed %d", j.Seed)
	for n := range keys {
		text := "dir . 0:0 755\n"
		for i, b := range crowdFiles(n) {
			text += fmt.Sprintf("file f%d 0:0 644 %q\n", i, b)
		}
		nodes, err := listing.Parse(text)
		check(t, err)
		usernstest.Build(t, e, filepath.Join(j.Dir, fmt.Sprint(n)), nodes)
	}
	random := rand.New(rand.NewPCG(j.Seed, 1))
	all := make([]*crowdProcess, workers)
	for i := range all {
		all[i] = j.start(t)
		j.Seed++
	}
	killed := 0
	for time.Now().Before(j.Until) {
		time.Sleep(time.Second)
		i := random.IntN(workers)
		all[i].end(t, true)
		all[i] = j.start(t)
		j.Seed++
		killed++
	}
	for _, p := range all {
		p.end(t, false)
	}
	t.Logf("%d processes were killed", killed)
	aftermath(t, s, e, j)
}

// aftermath demands that every entry is whole, that nothing had to be moved away, and that nothing is in the way.
func aftermath(t *testing.T, s *store.Store, e *userns.Env, j crowdJob) {
	t.Helper()
	entries, err := s.List()
	check(t, err)
	for _, entry := range entries {
		o, err := s.Get(t.Context(), entry.Key)
		check(t, err)
		_, err = archive.Verify(t.Context(), o.File, 1)
		check(t, errors.Join(err, o.Close()))
	}
	if odd, _ := filepath.Glob(filepath.Join(s.Dir(), ".nsferry/quarantine/*/*")); odd != nil {
		t.Errorf("in quarantine: %q", odd)
	}
	r, err := s.GC(store.GCOptions{MaxSize: 1})
	if err != nil || len(r.Busy) > 0 || r.Kept > 0 {
		t.Errorf("%+v, %v", r, err)
	}
	for n := range j.Keys {
		check(t, j.save(&Cache{Env: e, Store: s}, n))
		check(t, j.restore(&Cache{Env: e, Store: s}, n))
	}
	t.Logf("%d entries at the end", len(entries))
}

type crowdProcess struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
}

func (j crowdJob) start(t *testing.T) *crowdProcess {
	t.Helper()
	text, err := json.Marshal(j)
	check(t, err)
	p := &crowdProcess{cmd: exec.Command("/proc/self/exe")}
	p.cmd.Env = append(os.Environ(), jobVar+"="+string(text))
	p.cmd.Stderr = &p.stderr
	p.cmd.WaitDelay = 10 * time.Second
	check(t, p.cmd.Start())
	return p
}

// end kills the process, or waits for its end, which must come soon.
func (p *crowdProcess) end(t *testing.T, kill bool) {
	t.Helper()
	if kill {
		_ = p.cmd.Process.Kill() // it may have failed, which shows below
	}
	stuck := time.AfterFunc(2*time.Minute, func() { _ = p.cmd.Process.Signal(syscall.SIGQUIT) })
	err := p.cmd.Wait()
	stuck.Stop()
	var exit *exec.ExitError
	if errors.As(err, &exit) && kill && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, p.stderr.String())
	}
}

// TestCrowd is a sample of TestCrowdSoak.
func TestCrowd(t *testing.T) { crowd(t, 6*time.Second) }

// TestCrowdSoak has 32 processes save, restore, evict and collect 50 keys for ten minutes, one of them killed every second.
func TestCrowdSoak(t *testing.T) {
	tier.Soak(t)
	crowd(t, 10*time.Minute)
}
