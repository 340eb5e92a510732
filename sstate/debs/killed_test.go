package debs

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nsferry/nsferry/tier"
)

// TestKilledCrash kills exports and imports at random moments, the outer process or the inner half. Whatever the moment, every deb in the
// cache is whole and right, nothing else is there, and the next run completes the work. 200 rounds of both, in two minutes: SOAK=1
// PACKAGES=./sstate/debs bash .ci/test -run Killed
func TestKilledCrash(t *testing.T) {
	tier.User(t, "kills as an ordinary user would be")
	var all []sample
	for i := range 30 {
		p := Package{fmt.Sprintf("pkg%d", i), "1:1", "all"}
		all = append(all, sample{p, buildDeb(t, p, noise(200<<10, uint64(i)), "-Znone")})
	}
	e := ways(t)[0]
	w := newWorld(t, e)
	w.lists(all...)
	for i, s := range all {
		w.put(s.FileName(), s.data, os.FileMode(0o644-i%2*0o44)) // every second one has to be read inside
	}
	settled()
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	victims := map[string]int{}
	first := w.root
	start := time.Now()
	w.export(ExportOptions{KeepMode: true})
	most := time.Since(start)
	for i := range tier.Soaking(200, 10) {
		w.root = first
		check(t, os.RemoveAll(w.dl))
		victims[w.kill(job{Export: true, Root: w.root, DL: w.dl}, r, i, most)]++
		if _, err := os.Stat(w.dl); err == nil {
			w.wholeOrAbsent(all)
		}
		if sum := w.export(ExportOptions{KeepMode: true}); sum.Copied+sum.Same != len(all) {
			t.Errorf("the next export: %+v", sum)
		}
		w.wholeOrAbsent(all)
		w.newRoot(fmt.Sprintf("root%d", i))
		victims[w.kill(job{Root: w.root, DL: w.dl}, r, i, most)]++
		if sum := w.imp(ImportOptions{}); sum.Brought+sum.Same != len(all) || len(sum.Refused) > 0 {
			t.Errorf("the next import: %+v", sum)
		}
		for _, s := range all {
			w.ours(s)
		}
		if t.Failed() {
			t.Fatalf("in round %d", i)
		}
		w.readable(all[i%len(all)])
		w.inside("rm", "-rf", filepath.Join(w.root, "var"))
	}
	t.Logf("killed: %v", victims)
}

func noise(n int, seed uint64) string {
	r := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

// kill runs the job in a process of its own and kills it, or in odd rounds its inner half, after a random time up to most. It returns whom.
func (w *world) kill(j job, r *rand.Rand, round int, most time.Duration) string {
	w.Helper()
	text, err := json.Marshal(j)
	check(w, err)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childVar+"="+string(text))
	check(w, cmd.Start())
	time.Sleep(time.Duration(r.Int64N(int64(most))))
	pid, who := cmd.Process.Pid, "outer"
	if inner := child1(pid); round%2 == 1 && inner != 0 {
		pid, who = inner, "inner"
	}
	_ = syscall.Kill(pid, syscall.SIGKILL) // it may be gone
	if cmd.Wait() == nil {
		return "nobody"
	}
	return who
}

// child1 returns a child of a process, or 0.
func child1(pid int) int {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		b, _ := os.ReadFile(task) // the thread may be gone
		for _, f := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(f); err == nil {
				return n
			}
		}
	}
	return 0
}
