package idshift_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/acl"
	"github.com/nsferry/nsferry/idshift"
	"github.com/nsferry/nsferry/tier"
)

// spec reads a mapping.
func spec(t testing.TB, s string) idshift.Mapping {
	t.Helper()
	m, err := idshift.ParseSpec(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestShiftOwner(t *testing.T) {
	base := spec(t, "u:0:100000:65536,g:0:200000:1000,g:65534:201000:1")
	other := spec(t, "u:0:1001:1,u:1:300001:999,g:0:1001:1,g:1:300001:65535")
	type step struct {
		kind     idshift.Kind
		id, want uint32
		inside   bool // where the unmapped id stands; only for want none
	}
	const none = 4294967295
	for _, tt := range []struct {
		name  string
		s     idshift.Shift
		steps []step
	}{
		{"inside", base.Inside(), []step{
			{idshift.UID, 100000, 0, false}, {idshift.UID, 165535, 65535, false}, {idshift.GID, 200050, 50, false}, {idshift.GID, 201000, 65534, false},
			{idshift.UID, 0, none, false}, {idshift.UID, 1001, none, false}, {idshift.GID, 100000, none, false}, {idshift.UID, 4294967295, none, false},
		}},
		{"outside", base.Outside(), []step{
			{idshift.UID, 0, 100000, false}, {idshift.GID, 65534, 201000, false}, {idshift.UID, 65536, none, true}, {idshift.GID, 1000, none, true},
		}},
		{"between", idshift.Shift{From: base, To: other}, []step{
			{idshift.UID, 100000, 1001, false}, {idshift.UID, 100999, 300999, false}, {idshift.UID, 101000, none, true}, {idshift.UID, 1001, none, false},
			{idshift.GID, 201000, 365534, false},
		}},
		{"nothing", idshift.Identity().Inside(), []step{{idshift.UID, 4294967294, 4294967294, false}, {idshift.UID, 4294967295, none, false}}},
	} {
		for _, st := range tt.steps {
			got, err := tt.s.Owner(st.kind, st.id)
			var unmapped *idshift.UnmappedError
			if st.want == none {
				if !errors.As(err, &unmapped) || unmapped.Kind != st.kind || unmapped.Inside != st.inside || !st.inside && unmapped.ID != st.id {
					t.Errorf("%s: %s %d: got %d, %v", tt.name, st.kind, st.id, got, err)
				}
				continue
			}
			if err != nil || got != st.want {
				t.Errorf("%s: %s %d: got %d, %v; want %d", tt.name, st.kind, st.id, got, err, st.want)
			}
			if back, err := tt.s.Inverse().Owner(st.kind, got); err != nil || back != st.id {
				t.Errorf("%s: %s %d: comes back as %d, %v", tt.name, st.kind, st.id, back, err)
			}
		}
	}
}

func TestShiftACL(t *testing.T) {
	m := spec(t, "u:0:100000:10,u:10:50000:10,g:0:200000:100")
	in, err := acl.Parse("u::rwx,u:5:r,u:12:w,g::r,g:7:x,m::rwx,o::-", nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := m.Outside().ACL(in)
	if want := "u::rwx,u:50002:-w-,u:100005:r--,g::r--,g:200007:--x,m::rwx,o::---"; err != nil || out.Short() != want {
		t.Errorf("got %s, want %s; %v", out.Short(), want, err)
	}
	if out[1].ID != 50002 {
		t.Error("not in canonical order")
	}
	if back, err := m.Inside().ACL(out); err != nil || !back.Equal(in) {
		t.Errorf("came back as %s, %v", back.Short(), err)
	}
	var unmapped *idshift.UnmappedError
	for _, e := range []acl.Entry{{Tag: acl.User, ID: 20}, {Tag: acl.Group, ID: 100}, {Tag: acl.User, ID: acl.Undefined}} {
		if got, err := m.Outside().ACL(append(in[:len(in):len(in)], e)); !errors.As(err, &unmapped) || unmapped.ID != e.ID || got != nil {
			t.Errorf("%s: got %s, %v", e, got.Short(), err)
		}
	}
	if got, err := m.Outside().ACL(nil); got != nil || err != nil {
		t.Errorf("no ACL became %v, %v", got, err)
	}
	if strings.Contains(in.Short(), "50002") {
		t.Error("the argument was changed")
	}
}

// Values of security.capability as getfattr -e hex shows them after "setcap cap_net_raw+ep", the same with "-n 100000", and
// "setcap cap_checkpoint_restore,cap_net_raw=ei" (Debian 12); revision 1 is rev2 cut by hand.
const (
	capRaw    = "0100000200200000000000000000000000000000"
	capRawNS  = "0100000300200000000000000000000000000000a0860100"
	capHigh   = "0100000200000000002000000000000000010000"
	capOld    = "010000010020000000000000"
	capHighNS = "01000003000000000020000000000000000100007b000000"
)

// unhex decodes what the test itself wrote.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCapabilityCodec(t *testing.T) {
	raw := idshift.Capability{Permitted: 1 << 13, Effective: true}
	rawNS := raw
	rawNS.Namespaced, rawNS.RootID = true, 100000
	high := idshift.Capability{Inheritable: 1<<40 | 1<<13, Effective: true}
	highNS := high
	highNS.Namespaced, highNS.RootID = true, 123
	for value, want := range map[string]idshift.Capability{capRaw: raw, capRawNS: rawNS, capHigh: high, capOld: raw, capHighNS: highNS} {
		c, err := idshift.ParseCapability(unhex(t, value))
		if err != nil || c != want {
			t.Errorf("%s: got %+v, %v", value, c, err)
		}
	}
	if got := hex.EncodeToString(rawNS.Rev2()); got != capRaw {
		t.Errorf("revision 2: %s", got)
	}
	if got := hex.EncodeToString(high.Rev3(123)); got != capHighNS {
		t.Errorf("revision 3: %s", got)
	}
	for _, bad := range []string{
		"", "010000", capRaw[:38], capRaw + "00", capRawNS[:40], capOld + "00000000", "0100000420", strings.Replace(capRaw, "01000002", "01000004", 1),
		strings.Replace(capRaw, "01000002", "01000000", 1), strings.Replace(capRaw, "01000002", "03000002", 1), strings.Replace(capRaw, "01000002", "01010002", 1),
	} {
		if c, err := idshift.ParseCapability(unhex(t, bad)); err == nil {
			t.Errorf("%q: got %+v", bad, c)
		}
	}
}

func TestShiftCapability(t *testing.T) {
	base, root := spec(t, "0:100000:65536"), idshift.Identity()
	for _, tt := range []struct {
		name     string
		s        idshift.Shift
		in, want string // want empty: an UnmappedError of id
		id       uint32
	}{
		{"inside", base.Inside(), capRawNS, capRaw, 0},
		{"outside", base.Outside(), capRaw, capRawNS, 0},
		{"revision 1", base.Outside(), capOld, capRawNS, 0},
		{"another root id", base.Inside(), capHighNS, "", 123},
		{"root id of another inside id", spec(t, "0:99999:65536").Inside(), capRawNS, "", 100000},
		{"real root's", base.Inside(), capRaw, capRaw, 0},
		{"root mode", root.Inside(), capRaw, capRaw, 0},
		{"root mode, revision 3", root.Inside(), capRawNS, "", 100000},
		{"between", idshift.Shift{From: base, To: spec(t, "0:123:5")}, strings.Replace(capHighNS, "7b000000", "a0860100", 1), capHighNS, 0},
		{"map without root", spec(t, "1:1:5").Outside(), capRaw, "", 0},
	} {
		got, err := tt.s.Capability(unhex(t, tt.in))
		var unmapped *idshift.UnmappedError
		if tt.want == "" {
			if !errors.As(err, &unmapped) || unmapped.Kind != idshift.UID || unmapped.ID != tt.id {
				t.Errorf("%s: got %x, %v", tt.name, got, err)
			}
			continue
		}
		if err != nil || hex.EncodeToString(got) != tt.want {
			t.Errorf("%s: got %x, want %s; %v", tt.name, got, tt.want, err)
		}
	}
	if _, err := base.Inside().Capability([]byte("x")); err == nil {
		t.Error("a broken value was shifted")
	}
}

// TestOracleSetcap compares the codec with setcap's own values.
func TestOracleSetcap(t *testing.T) {
	tier.Root(t, "owners and namespaces of every kind")
	tier.Program(t, "setcap", "getfattr")
	f := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(f, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		argv []string
		want string
	}{
		{[]string{"cap_net_raw+ep"}, capRaw}, {[]string{"-n", "100000", "cap_net_raw+ep"}, capRawNS},
		{[]string{"cap_checkpoint_restore,cap_net_raw=ei"}, capHigh}, {[]string{"-n", "123", "cap_checkpoint_restore,cap_net_raw=ei"}, capHighNS},
	} {
		tier.Output(t, "", append(append([]string{"setcap"}, tt.argv...), f)...)
		if out := tier.Output(t, "", "getfattr", "-n", "security.capability", "-e", "hex", "--absolute-names", f); !strings.Contains(out, "=0x"+tt.want+"\n") {
			t.Errorf("setcap %q makes %s, the table says %s", tt.argv, out, tt.want)
		}
	}
}

// FuzzShift checks the laws on any two mappings, id and capability.
func FuzzShift(f *testing.F) {
	f.Add("0:100000:65536", "0:1001:1,1:300001:65535", uint32(100000), unhex(f, capRawNS))
	f.Add("0:0:4294967295", "0:100000:65536", uint32(65534), unhex(f, capRaw))
	f.Add("u:0:5:5,g:0:7:7", "0:1:1", uint32(7), unhex(f, capHigh))
	f.Add("0:0:6", "0:1001:1,1:300001:65535", uint32(100000), unhex(f, capRawNS[:40]+"00000000"))
	f.Fuzz(func(t *testing.T, from, to string, id uint32, value []byte) {
		a, err := idshift.ParseSpec(from)
		if err != nil {
			return
		}
		b, err := idshift.ParseSpec(to)
		if err != nil {
			return
		}
		s := idshift.Shift{From: a, To: b}
		for _, k := range []idshift.Kind{idshift.UID, idshift.GID} {
			got, err := s.Owner(k, id)
			var unmapped *idshift.UnmappedError
			if err != nil {
				if !errors.As(err, &unmapped) {
					t.Fatal(err)
				}
				continue
			}
			if back, err := s.Inverse().Owner(k, got); err != nil || back != id {
				t.Fatalf("%s %d became %d and then %d, %v", k, id, got, back, err)
			}
			in, err1 := a.Inside().Owner(k, id)
			out, err2 := b.Outside().Owner(k, in)
			if err1 != nil || err2 != nil || out != got {
				t.Fatalf("%s %d: in one step %d, in two %d, %v, %v", k, id, got, out, err1, err2)
			}
			tag := map[idshift.Kind]acl.Tag{idshift.UID: acl.User, idshift.GID: acl.Group}[k]
			if l, err := s.ACL(acl.ACL{{Tag: tag, Perm: 5, ID: id}}); err != nil || l[0] != (acl.Entry{Tag: tag, Perm: 5, ID: got}) {
				t.Fatalf("%s %d: in an ACL %v, %v", k, id, l, err)
			}
		}
		c, err := s.Capability(value)
		if err != nil {
			return
		}
		// What comes out is a value of To's root: it goes back and forth unchanged, and keeps its capabilities.
		back, err := s.Inverse().Capability(c)
		if err != nil {
			var unmapped *idshift.UnmappedError
			if _, ok := a.UID.ToOutside(0); ok || !errors.As(err, &unmapped) {
				t.Fatalf("%x became %x: %v", value, c, err)
			}
			return
		}
		again, err := s.Capability(back)
		if err != nil || !bytes.Equal(again, c) {
			t.Fatalf("%x, then %x, then %x, %v", c, back, again, err)
		}
		x, _ := idshift.ParseCapability(value)
		y, err := idshift.ParseCapability(back)
		if err != nil || x.Permitted != y.Permitted || x.Inheritable != y.Inheritable || x.Effective != y.Effective {
			t.Fatalf("%+v came back as %+v, %v", x, y, err)
		}
		want := value
		if x.RootID == 0 { // counts where revision 2 does, which is how it is written
			want = x.Rev2()
		}
		if x.Namespaced && !bytes.Equal(back, want) {
			t.Fatalf("%x came back as %x", value, back)
		}
	})
}
