package idshift_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/idshift"
)

// idMap reads a map from its text.
func idMap(t testing.TB, text string) idshift.Map {
	t.Helper()
	var m idshift.Map
	if err := m.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestNewMapErrors(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"0:0:0", "no ids"},
		{"0:0:4294967295,4294967294:4294967294:1", "overlap"},
		{"4294967295:0:1", "beyond id 4294967294"},
		{"0:4294967295:1", "beyond id 4294967294"},
		{"1:0:4294967295", "beyond id 4294967294"},
		{"4294967290:0:4294967290", "beyond"},
		{"0:100:10,9:200:1", "inside ids overlap"},
		{"9:200:1,0:100:10", "inside ids overlap"},
		{"0:100:10,20:109:5", "outside ids overlap"},
		{"20:109:5,0:100:10", "outside ids overlap"},
		{"0:0:1,0:0:1", "overlap"},
		{"0:0", "not INSIDE:OUTSIDE:COUNT"},
		{"0:0:1,", "not INSIDE:OUTSIDE:COUNT"},
		{"0:0:1:1", "not INSIDE:OUTSIDE:COUNT"},
		{"0:-1:1", "not a number"},
		{"0:+1:1", "not a number"},
		{"0::1", "not a number"},
		{"0:0x1:1", "not a number"},
		{"0:1_0:1", "not a number"},
		{"0:4294967296:1", "not a number"},
	} {
		var m idshift.Map
		if err := m.UnmarshalText([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, %v; want %q", tt.text, m, err, tt.want)
		}
		if _, err := idshift.ParseSpec(tt.text); err == nil {
			t.Errorf("%s: taken as --map", tt.text)
		}
	}
}

func TestMap(t *testing.T) {
	m := idMap(t, "65536:1000:1,0:100000:1000,1000:101000:64536")
	if got := m.String(); got != "0:100000:65536,65536:1000:1" {
		t.Errorf("got %s, want it joined and sorted", got)
	}
	if got := strings.Join(m.Args(), " "); got != "0 100000 65536 65536 1000 1" {
		t.Errorf("arguments: %s", got)
	}
	for _, tt := range []struct {
		in, out     uint32
		inOK, outOK bool // whether in has an outside id, and out an inside id
	}{
		{0, 100000, true, true}, {65535, 165535, true, true}, {65536, 1000, true, true},
		{65537, 1001, false, false}, {4294967295, 4294967295, false, false}, {100000, 0, false, false}, {1000000, 999, false, false},
		{1 << 20, 165536, false, false}, {1 << 21, 99999, false, false},
	} {
		if out, ok := m.ToOutside(tt.in); ok != tt.inOK || ok && out != tt.out {
			t.Errorf("inside %d: got %d, %v", tt.in, out, ok)
		}
		if in, ok := m.ToInside(tt.out); ok != tt.outOK || ok && in != tt.in {
			t.Errorf("outside %d: got %d, %v", tt.out, in, ok)
		}
	}
	var zero idshift.Map
	if _, ok := zero.ToInside(0); ok || !zero.Empty() || zero.IsIdentity() || zero.Writable() == nil {
		t.Error("the empty map maps something")
	}
	if m.IsIdentity() || !idMap(t, "0:0:5,7:7:1").IsIdentity() || !idshift.Identity().UID.IsIdentity() {
		t.Error("IsIdentity is wrong")
	}
	ext := m.Extents()
	ext[0].Outside = 5
	if out, _ := m.ToOutside(0); out != 100000 {
		t.Error("a map was changed through its extents")
	}
}

func TestMappingJSON(t *testing.T) {
	m, err := idshift.ParseSpec("u:0:100000:10, g:0:200000:20,100:5:1")
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(m)
	if err != nil || string(b) != `{"UID":"0:100000:10,100:5:1","GID":"0:200000:20,100:5:1"}` {
		t.Fatalf("%s, %v", b, err)
	}
	var back idshift.Mapping
	if err := json.Unmarshal(b, &back); err != nil || !back.Equal(m) {
		t.Errorf("came back as %v, %v", back, err)
	}
	var none idshift.Mapping
	if err := json.Unmarshal([]byte(`{"UID":"","GID":""}`), &none); err != nil || !none.UID.Empty() {
		t.Errorf("empty maps: %v", err)
	}
	for _, spec := range []string{"u:0:0:1", "g:0:0:1", "", "x:0:0:1", "u:0:0:5,u:3:9:1,g:0:0:1", "u:u:0:0:1,g:0:0:1"} {
		if m, err := idshift.ParseSpec(spec); err == nil {
			t.Errorf("%q: got %v", spec, m)
		}
	}
}

func TestParseProcMap(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"         0          0 4294967295\n", "0:0:4294967295"},
		{"         0       1000          1\n         1     100000      65536\n", "0:1000:1,1:100000:65536"},
		// Lines stay apart, because a nested map must respect them.
		{"0 0 5\n5 5 5\n", "0:0:5,5:5:5"},
		{"5 5 5\n0 0 5", "0:0:5,5:5:5"},
		{"", ""},
	} {
		m, err := idshift.ParseProcMap(strings.NewReader(tt.text))
		if err != nil || m.String() != tt.want {
			t.Errorf("%q: got %s, %v", tt.text, m, err)
		}
	}
	for _, text := range []string{"0 0\n", "0 0 0\n", "0 0 1 1\n", "a 0 1\n", "\n", "0:0:1\n", "0 0 2\n1 5 1\n", strings.Repeat("0", 1<<17)} {
		if m, err := idshift.ParseProcMap(strings.NewReader(text)); err == nil {
			t.Errorf("%.20q: got %s", text, m)
		}
	}
}

func TestUnder(t *testing.T) {
	parent, err := idshift.ParseProcMap(strings.NewReader("0 1000 1\n1 100000 999\n1000 100999 64537\n"))
	if err != nil {
		t.Fatal(err)
	}
	m := idMap(t, "0:0:1500,65534:65536:1")
	cut, err := m.Under(parent)
	if err != nil || cut.String() != "0:0:1,1:1:999,1000:1000:500,65534:65536:1" || !cut.Equal(m) {
		t.Errorf("got %s, %v", cut, err)
	}
	for _, text := range []string{"0:65537:1", "0:65000:600"} {
		if cut, err := idMap(t, text).Under(parent); err == nil {
			t.Errorf("%s: got %s", text, cut)
		}
	}
}

// FuzzMap checks that whatever is a map is one-to-one at all its borders, and survives its text.
func FuzzMap(f *testing.F) {
	f.Add("0:100000:65536,65536:1000:1")
	f.Add("u:0:0:4294967295,g:0:1:4294967294")
	f.Add("4294967294:0:1")
	f.Fuzz(func(t *testing.T, spec string) {
		m, err := idshift.ParseSpec(spec)
		if err != nil {
			return
		}
		if again := idMap(t, m.UID.String()); !again.Equal(m.UID) || !slices.Equal(again.Args(), m.UID.Args()) {
			t.Fatalf("%s read back as %s", m.UID, again)
		}
		for _, e := range m.UID.Extents() {
			for _, i := range []uint32{0, e.Count - 1, e.Count} {
				out, ok := m.UID.ToOutside(e.Inside + i)
				if i < e.Count && (!ok || out != e.Outside+i) {
					t.Fatalf("%s: %d is %d, %v", m.UID, e.Inside+i, out, ok)
				}
				if in, back := m.UID.ToInside(out); ok && (!back || in != e.Inside+i) {
					t.Fatalf("%s: %d comes back as %d, %v", m.UID, e.Inside+i, in, back)
				}
			}
		}
		if cut, err := m.UID.Under(idshift.Identity().UID); err != nil || !cut.Equal(m.UID) {
			t.Fatalf("%s: %v", m.UID, err)
		}
	})
}
