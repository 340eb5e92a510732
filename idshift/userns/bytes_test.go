package userns

import (
	"context"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// wired has a string wherever one can be.
type wired struct {
	Plain   string
	List    []string
	Table   map[string]string
	Array   [2]string
	Pointer *string
	Any     any
	Inner   struct{ Name string }
	Files   []*os.File `json:"-"`
	Zero    *int64
	Raw     []byte
}

var wire = Half[wired, wired]{Name: "wire", Func: func(_ context.Context, _ *Inner, w wired) (wired, error) { return w, nil }}

// odd are names that UTF-8 does not allow, and such as look like how these are written on the wire.
var odd = []string{"lat\xe9n", "\xff\xfe", "a\U0010ffe9b", "\U0010ff00", "plain \n \x01 ü", "\xed\xa0\x80", ""}

func sample(s string) wired {
	w := wired{Plain: s, List: []string{"x", s}, Table: map[string]string{s: s}, Array: [2]string{s, "y"}, Pointer: &s, Any: s, Zero: new(int64), Raw: []byte(s)}
	w.Inner.Name = s
	return w
}

// TestBytesCross: names are bytes, and arguments and results keep them (FACTS §5.7).
func TestBytesCross(t *testing.T) {
	e := testEnv(t)
	for _, s := range odd {
		got, err := wire.Run(t.Context(), e, sample(s), nil)
		if err != nil {
			t.Fatal(err)
		}
		want := sample(s)
		if len(want.Raw) == 0 {
			got.Raw = want.Raw // nil or empty is one to JSON
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%q: %s", s, d)
		}
	}
}

// TestBytesReachCommands: so do the arguments and the environment of a foreign command.
func TestBytesReachCommands(t *testing.T) {
	e := testEnv(t)
	const name = "lat\xe9n"
	got, code, err := output(t, e, Spec{Argv: []string{"sh", "-c", `printf '%s %s' "$1" "$V"`, "sh", name}, Env: []string{"V=" + name}})
	if err != nil || code != 0 || got != name+" "+name {
		t.Errorf("%q, status %d, %v", got, code, err)
	}
}
