package tree

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestRaceSoak has somebody who may write into the tree swap its directories for symlinks that lead out, move them out and
// back and replace files, all while it is filled, walked and removed. Whatever error that gives, nothing beside the tree changes.
func TestRaceSoak(t *testing.T) {
	rounds := 4
	if os.Getenv("SOAK") != "" {
		rounds = 1000
	}
	const around = "dir . @ 755 mtime=1\ndir canary @ 755 mtime=2\nfile canary/f0 @ 600 mtime=3 \"sings\"\ndir canary/sub @ 700 mtime=4\ndir in @ 777"
	outer := build(t, around)
	bothRoots(t, func(*testing.T) string { return outer }, func(t *testing.T, r *Root) {
		noLeak(t)
		for round := range rounds {
			tree := filepath.Join(outer, "in", "tree")
			must(t, os.Mkdir(tree, 0o700))
			dir, err := os.Open(tree)
			must(t, err)
			root := newWalkingRoot(dir)
			if r.openat2 {
				root = NewRoot(dir)
			}
			attack(t, tree, filepath.Join(outer, "canary"), uint64(round), func() { raceOnce(t, root, dir) })
			dir.Close()
			must(t, os.RemoveAll(filepath.Join(outer, "in")))
			must(t, os.Mkdir(filepath.Join(outer, "in"), 0o777))
			must(t, os.Chmod(filepath.Join(outer, "in"), 0o777))
			must(t, os.Chtimes(outer, fileTime(1), fileTime(1)))
			wantTree(t, outer, around)
			if t.Failed() {
				t.Fatalf("round %d", round)
			}
		}
	})
}

// raceOnce fills, walks and empties the tree; errors are to be expected, and only panics and hangs are not.
func raceOnce(t *testing.T, root *Root, dir *os.File) {
	big := strings.Repeat("e", 300<<10) // more than a batch takes of small files
	for range 2 {
		_ = runScript(t, root, 2, func(s *script) {
			for i := range 40 {
				d := fmt.Sprintf("d%d", i%4)
				s.err = nil // go on as if nothing had happened
				s.dir(d, 0o777)
				s.dir(d+"/sub", 0o755)
				s.file(d+"/sub/f", "evil")
				s.file(fmt.Sprintf("%s/f%d", d, i%3), big[:[]int{4, 300 << 10}[i%2]])
				s.link(d+"/h", fmt.Sprintf("d%d/f0", (i+1)%4))
				s.fifo(d + "/p")
				s.sym(d+"/l", "sub")
				s.file(d+"/l/g", "evil")
			}
		})
		_ = Walk(t.Context(), dir, func(e *Entry) error {
			if e.Type() == unix.S_IFREG {
				if f, err := OpenFile(root, e.Path, &e.Stat); err == nil {
					f.Close()
				}
			}
			return nil
		})
		for i := range 4 {
			_, _ = Remove(t.Context(), dir, fmt.Sprintf("d%d", i), nil)
		}
	}
}

// attack runs work while two others play with the tree.
func attack(t *testing.T, tree, canary string, seed uint64, work func()) {
	t.Helper()
	var stop atomic.Bool
	var others sync.WaitGroup
	for k := range uint64(2) {
		others.Go(func() {
			r := rand.New(rand.NewPCG(seed, k))
			spare := filepath.Join(filepath.Dir(tree), fmt.Sprint("spare", k))
			for !stop.Load() { // every step may fail: the other side changes the same names
				d := filepath.Join(tree, fmt.Sprintf("d%d", r.IntN(4)))
				switch r.IntN(5) {
				case 0: // the directory and a symlink out change places
					_ = os.Symlink(canary, spare)
					_ = unix.Renameat2(unix.AT_FDCWD, spare, unix.AT_FDCWD, d, unix.RENAME_EXCHANGE)
				case 1: // the directory leaves the tree
					_ = os.Rename(d, spare)
				case 2: // and comes back under another one
					_ = os.Rename(spare, filepath.Join(d, "sub"))
				case 3:
					_ = os.Symlink("../../../canary", filepath.Join(d, "sub"))
					_ = os.Symlink("../../canary/f0", filepath.Join(d, "f0"))
				case 4:
					_ = os.RemoveAll(spare)
				}
			}
		})
	}
	work()
	stop.Store(true)
	others.Wait()
}

func fileTime(sec int64) time.Time { return time.Unix(sec, 0) }
