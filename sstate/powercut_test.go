package sstate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/idshift/userns/usernstest"
	"github.com/nsferry/nsferry/sstate/store"
	"github.com/nsferry/nsferry/tier"
)

// disk is a filesystem in a file, that power can be cut from.
type disk struct{ image, at string }

func newDisk(t *testing.T, kind string, mkfs ...string) *disk {
	t.Helper()
	tier.Root(t, "mounts filesystems")
	tier.Program(t, "mkfs."+kind, "xfs_io")
	dir, err := os.MkdirTemp("/dev/shm", "nsferry-power")
	check(t, err)
	t.Cleanup(func() { check(t, os.RemoveAll(dir)) })
	d := &disk{image: filepath.Join(dir, "image"), at: filepath.Join(dir, "mnt")}
	check(t, os.Mkdir(d.at, 0o755))
	check(t, os.WriteFile(d.image, nil, 0o600))
	check(t, os.Truncate(d.image, 320<<20))
	run(t, "mkfs."+kind, append(mkfs, d.image)...)
	return d
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if cmd.Path == name || cmd.Err != nil {
		cmd = exec.Command("/usr/sbin/"+name, args...)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

func (d *disk) mount(t *testing.T) {
	t.Helper()
	run(t, "mount", "-o", "loop", d.image, d.at)
}

func (d *disk) unmount(t *testing.T) {
	t.Helper()
	for range 200 { // something may still be on its way out
		if err := unix.Unmount(d.at, 0); err != unix.EBUSY {
			check(t, err)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s stays busy", d.at)
}

// cut stops the filesystem from one moment to the next: nothing that it has not written yet will be, its journal included.
func (d *disk) cut(t *testing.T) {
	t.Helper()
	run(t, "xfs_io", "-x", "-c", "shutdown", d.at)
}

// outage saves trees until the power goes, at random or right after a save was acknowledged, and looks what is there when it is back.
func outage(t *testing.T, d *disk, e *userns.Env, tree string, round int, random *rand.Rand) (acknowledged int) {
	t.Helper()
	d.mount(t)
	dir := filepath.Join(d.at, "store")
	s, err := store.Open(dir, store.Options{Create: true})
	check(t, err)
	c := &Cache{Env: e, Store: s}
	acks := make(chan store.Key, 1000)
	go func() {
		defer close(acks)
		for i := 0; ; i++ {
			k, err := store.ParseKey(fmt.Sprintf("round-%d-%d", round, i))
			if err == nil {
				_, err = c.Save(context.Background(), k, tree, SaveOptions{})
			}
			if err != nil {
				return // the power is gone
			}
			acks <- k
		}
	}()
	var sure []store.Key
	if round%2 == 0 {
		for range 1 + random.IntN(3) {
			k, ok := <-acks
			if !ok {
				t.Fatal("saving failed before the power was cut")
			}
			sure = append(sure, k)
		}
	} else {
		time.Sleep(time.Duration(random.IntN(40_000)) * time.Microsecond)
	}
	d.cut(t)
	for k := range acks { // those too came before
		sure = append(sure, k)
	}
	d.unmount(t)

	d.mount(t)
	defer d.unmount(t)
	if len(sure) == 0 {
		return 0
	}
	s, err = store.Open(dir, store.Options{})
	check(t, err)
	for _, k := range sure {
		wholeEntry(t, s, k)
	}
	all, err := s.List()
	check(t, err)
	for _, entry := range all {
		wholeEntry(t, s, entry.Key)
	}
	if _, err := s.GC(store.GCOptions{MaxSize: 1}); err != nil {
		t.Error(err)
	}
	if odd, _ := filepath.Glob(filepath.Join(dir, ".nsferry/quarantine/*/*")); odd != nil {
		t.Errorf("in quarantine: %q", odd)
	}
	return len(sure)
}

func wholeEntry(t *testing.T, s *store.Store, k store.Key) {
	t.Helper()
	o, err := s.Peek(t.Context(), k)
	if err != nil {
		t.Fatalf("after the power cut: %v", err)
	}
	_, err = archive.Verify(t.Context(), o.File, 1)
	check(t, errors.Join(err, o.Close()))
}

// powerCuts cuts the power many times.
func powerCuts(t *testing.T, rounds int) {
	for kind, mkfs := range map[string][]string{"ext4": {"-q", "-F"}, "xfs": {"-q", "-f"}} {
		t.Run(kind, func(t *testing.T) {
			d := newDisk(t, kind, mkfs...)
			e := usernstest.Ranges(t)[0]
			tree := filepath.Join(place(t, e.Env), "tree")
			check(t, os.Mkdir(tree, 0o755))
			seed := uint64(time.Now().UnixNano())
			random := rand.New(rand.NewPCG(seed, 0))
			noise := make([]byte, 300<<10)
			for i := range noise {
				noise[i] = byte(random.Uint32())
			}
			check(t, os.WriteFile(filepath.Join(tree, "noise"), noise, 0o644))
			sure := 0
			for round := range rounds {
				sure += outage(t, d, e.Env, tree, round, random)
			}
			t.Logf("seed %d: %d power cuts, %d acknowledged saves", seed, rounds, sure)
		})
	}
}

// TestPowerCut is a sample of TestPowerCutSoak.
func TestPowerCut(t *testing.T) { powerCuts(t, 4) }

// TestPowerCutSoak cuts the power 200 times: what was acknowledged is there, and nothing is half there.
func TestPowerCutSoak(t *testing.T) {
	tier.Soak(t)
	powerCuts(t, 200)
}
