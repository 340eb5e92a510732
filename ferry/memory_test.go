package ferry

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nsferry/nsferry/idshift/userns"
)

// limit is the most that the job may take, in KiB: convert remembers every name.
func (j *job) limit(entries int) int64 {
	if j.Convert {
		return maxPeak + int64(entries)*600>>10
	}
	return maxPeak
}

// TestMemorySoak: neither many entries nor many levels take much memory, both ways. In CI a part of what the soak takes.
func TestMemorySoak(t *testing.T) {
	many, levels := 10000, 1000
	if os.Getenv("SOAK") != "" {
		many, levels = 500000, 10000
	}
	trees := map[string]func(w *bufio.Writer){
		"many entries": func(w *bufio.Writer) {
			for i := range many {
				if i%100 == 0 {
					_, _ = w.Write(dir(fmt.Sprintf("./d%04d/", i/100)))
				}
				_, _ = w.Write(file(fmt.Sprintf("./d%04d/file-%06d", i/100, i), "content"))
			}
		},
		"many levels": func(w *bufio.Writer) {
			for i := range levels {
				_, _ = w.Write(dir("./" + strings.Repeat("d/", i+1)))
			}
			_, _ = w.Write(file("./"+strings.Repeat("d/", levels)+"f", "bottom"))
		},
	}
	for name, o := range environments(t) {
		for what, write := range trees {
			t.Run(name+"/"+what, func(t *testing.T) {
				s := newSite(t)
				in := filepath.Join(t.TempDir(), "in.tar")
				f, err := os.Create(in)
				check(t, err)
				w := bufio.NewWriter(f)
				write(w)
				_, _ = w.Write(tarball())
				check(t, w.Flush()) // it keeps the first error of all writes
				check(t, f.Close())
				out := filepath.Join(t.TempDir(), "out.tar.zst")
				for _, j := range []job{{In: in, Out: s.target()}, {In: s.target(), Out: out, Pack: true}, {In: out, Out: s.target() + "2"}, {In: in, Out: out + ".zst", Convert: true}} {
					j.Mode, j.Map = o.Mode, o.Map
					start := time.Now()
					r := runJob(t, j)
					t.Logf("pack %v, convert %v: %d MiB in %v %s", j.Pack, j.Convert, r.Peak>>10, time.Since(start).Round(time.Millisecond), r.Err)
					if limit := j.limit(many); r.Err != "" || r.Peak > limit {
						t.Errorf("took %d MiB; error %q", r.Peak>>10, r.Err)
					}
				}
				e, err := userns.NewEnv(o)
				check(t, err)
				for _, tree := range []string{s.target(), s.target() + "2"} {
					_, err := Remove(t.Context(), e, tree, RemoveOptions{})
					check(t, err)
				}
				s.check(t)
			})
		}
	}
}
