// Package usernstest has for tests the ways across the border that this process has, and trees on the other side of it.
package usernstest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/nsferry/nsferry/idshift"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/tier"
)

// Way is a way in, with a name for a subtest.
type Way struct {
	Name string
	*userns.Env
}

// New is the way in with these options.
func New(t testing.TB, name string, o userns.Options) Way {
	t.Helper()
	e, err := userns.NewEnv(o)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return Way{name, e}
}

// Lazy is the Env, for what wants one only when needed.
func (w Way) Lazy() (*userns.Env, error) { return w.Env, nil }

// Base is the model base, for root over a range that nobody needs, and a directory of the caller's that everybody may search.
func Base(t testing.TB) (e *userns.Env, dir string) {
	t.Helper()
	o := userns.Options{}
	if os.Geteuid() == 0 {
		o = userns.Options{Mode: "unshare", Map: "0:3000000000:65536"}
	}
	e, err := userns.NewEnv(o)
	if err == nil {
		err = e.Probe(t.Context())
	}
	if err != nil {
		tier.Have(t, false, "a namespace: "+err.Error())
	}
	dir = t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} { // testing makes them for the user alone
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return e, dir
}

// Models are the ways of an ordinary user with sub-ids, one a model. Root plays him, by sub-id files of its own, and before that is
// itself.
func Models(t testing.TB) (all []Way) {
	t.Helper()
	var sys userns.System
	if os.Geteuid() == 0 {
		all = append(all, New(t, "root", userns.Options{Mode: "root"}))
		sys = SubIDs(t, 300000)
	} else {
		tier.Program(t, "newuidmap")
	}
	for _, model := range []string{"base", "caller", "identity"} {
		all = append(all, New(t, model, userns.Options{Mode: "unshare", Model: model, System: sys}))
	}
	return all
}

// Ranges are all models in more than one range of ids, and for root its arithmetic as well; the first is the plainest.
func Ranges(t testing.TB) (all []Way) {
	t.Helper()
	add := func(name string, o userns.Options) { all = append(all, New(t, name, o)) }
	if os.Geteuid() != 0 {
		all = Models(t)
		u, ok := all[0].Plain.UID.ToOutside(0)
		g, ok2 := all[0].Plain.GID.ToOutside(0)
		tier.Have(t, ok && ok2, "sub-ids")
		add("another range", userns.Options{Map: fmt.Sprintf("u:0:%d:65534,u:65534:%d:1,g:0:%d:65534,g:65534:%d:1", u+1, u, g+1, g)})
		return all
	}
	add("root", userns.Options{Mode: "root"})
	add("root with a map", userns.Options{Mode: "root", Map: "0:300000:65536"})
	add("root with another map", userns.Options{Mode: "root", Map: "u:0:500001:65534,u:65534:500000:1,g:0:600001:65534,g:65534:600000:1"})
	for _, first := range []int{300000, 700000} {
		sys := SubIDs(t, first)
		for _, model := range []string{"base", "caller", "identity"} {
			add(fmt.Sprintf("%s from %d", model, first), userns.Options{Mode: "unshare", Model: model, System: sys})
		}
	}
	return all
}

// SubIDs is this machine with 65536 sub-ids of root's, from first.
func SubIDs(t testing.TB, first int) userns.System {
	t.Helper()
	file := filepath.Join(t.TempDir(), "subid")
	if err := os.WriteFile(file, fmt.Appendf(nil, "root:%d:65536\n", first), 0o644); err != nil {
		t.Fatal(err)
	}
	return userns.System{Sources: idshift.Sources{SubUID: file, SubGID: file}}
}
