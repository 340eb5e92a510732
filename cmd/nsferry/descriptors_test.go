package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
)

// TestDescriptors runs every flow within this process, also where it fails: afterwards as few files are open as before.
func TestDescriptors(t *testing.T) {
	if !haveSubids() && os.Getuid() != 0 {
		scriptT{t}.Skip("needs sub-ids")
	}
	options := map[string]userns.Options{"user": {}}
	if os.Getuid() == 0 {
		options = map[string]userns.Options{"root": {Mode: "root"}, "unshare": {Mode: "unshare", Map: "0:2600000000:65536"}}
	}
	for mode, o := range options {
		t.Run(mode, func(t *testing.T) {
			dir := t.TempDir()
			source, tree, out := filepath.Join(dir, "source.tar"), filepath.Join(dir, "tree"), filepath.Join(dir, "out.tar.zst")
			writeCrashArchive(t, source)
			e, err := userns.NewEnv(o)
			if err != nil {
				t.Fatal(err)
			}
			env := func() (*userns.Env, error) { return e, nil }
			unpack := func(to string) error {
				in, err := os.Open(source)
				if err != nil {
					return err
				}
				defer in.Close()
				_, err = ferry.Unpack(t.Context(), e, in, to, ferry.UnpackOptions{})
				return err
			}
			pack := func(from, to string) error {
				_, err := ferry.Pack(t.Context(), e, from, to, ferry.PackOptions{})
				return err
			}
			list := func(of string) error {
				return ferry.List(t.Context(), env, of, ferry.ListOptions{}, func(listing.Node) error { return nil })
			}
			remove := func(what string) error {
				_, err := ferry.Remove(t.Context(), e, what, ferry.RemoveOptions{})
				return err
			}
			round := func() {
				for i, err := range []error{unpack(tree), pack(tree, out), list(tree), list(out), remove(out)} {
					if err != nil {
						t.Fatalf("step %d: %v", i, err)
					}
				}
				ferry.Examine(t.Context(), e, dir)
				for i, err := range []error{unpack(tree), unpack("/dev/null/x"), pack(source, out), pack(tree, source), list(dir + "/none"), remove(dir + "/none")} {
					if err == nil {
						t.Fatalf("step %d should have failed", i)
					}
				}
				if err := remove(tree); err != nil {
					t.Fatal(err)
				}
			}
			round() // what stays open once stays: the runtime's poller
			before := openDescriptors(t)
			for range 3 {
				round()
			}
			if d := cmp.Diff(before, openDescriptors(t)); d != "" {
				t.Errorf("descriptors (-before +after):\n%s", d)
			}
		})
	}
}

// openDescriptors lists what is open, without the numbers, which may be given anew.
func openDescriptors(t *testing.T) (all []string) {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if target, err := os.Readlink("/proc/self/fd/" + n.Name()); err == nil { // not the listing's own
			all = append(all, fmt.Sprint(target))
		}
	}
	slices.Sort(all)
	return all
}
