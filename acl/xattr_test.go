package acl_test

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/nsferry/nsferry/acl"
)

// golden is what getfattr -e hex shows after
// setfacl -m u:1000:rx,g:50:r,m::r on a file of mode 0644 (Debian 12, ext4).
const golden = "0200000001000600ffffffff02000500e803000004000400ffffffff080004003200000010000400ffffffff20000400ffffffff"

// unhex decodes what the test itself wrote.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestXattrGolden(t *testing.T) {
	a, err := acl.Decode(unhex(t, golden))
	if err != nil {
		t.Fatal(err)
	}
	const want = "user::rw-,user:1000:r-x,group::r--,group:50:r--,mask::r--,other::r--"
	if a.Text() != want {
		t.Errorf("got %s, want %s", a.Text(), want)
	}
	if got := hex.EncodeToString(a.Encode()); got != golden {
		t.Errorf("encoded as %s", got)
	}
	a[0], a[4] = a[4], a[0]
	if got := hex.EncodeToString(a.Encode()); got != golden {
		t.Errorf("encoded in the wrong order: %s", got)
	}
}

func TestDecodeErrors(t *testing.T) {
	for name, value := range map[string]string{
		"empty":             "",
		"short header":      "020000",
		"version 1":         "01000000",
		"version 3":         "0300000001000600ffffffff",
		"half an entry":     "0200000001000600",
		"unknown tag":       "0200000003000600ffffffff",
		"tag zero":          "0200000000000600ffffffff",
		"permission bit 3":  "0200000001000800ffffffff",
		"permission bit 15": "0200000001000080ffffffff",
	} {
		if a, err := acl.Decode(unhex(t, value)); err == nil {
			t.Errorf("%s: got %v", name, a)
		}
	}
	if a, err := acl.Decode(unhex(t, "02000000")); a != nil || err != nil {
		t.Errorf("no entries: got %v, %v; want no ACL", a, err)
	}
	a, err := acl.Decode(unhex(t, "0200000002000600ffffffff"))
	if err != nil || len(a) != 1 || a[0].ID != acl.Undefined || a.Validate() == nil {
		t.Errorf("unmapped id: got %v, %v", a, err)
	}
}

// FuzzDecode checks that any value that is read is written back with the same meaning, as bytes and as text.
func FuzzDecode(f *testing.F) {
	f.Add(unhex(f, golden))
	f.Add(unhex(f, "0200000002000600ffffffff"))
	f.Add(unhex(f, "02000000200007000000000001000700000000000400070000000000"))
	f.Add(unhex(f, "02000000"))
	f.Fuzz(func(t *testing.T, value []byte) {
		a, err := acl.Decode(value)
		if err != nil {
			return
		}
		enc := a.Encode()
		if len(enc) > 4 && len(enc) != len(value) {
			t.Fatalf("%x became %x", value, enc)
		}
		b, err := acl.Decode(enc)
		if err != nil || !a.Equal(b) || !bytes.Equal(b.Encode(), enc) {
			t.Fatalf("%x: %v, then %v: %v", value, a, b, err)
		}
		if a.Validate() != nil {
			return
		}
		if c, err := acl.Parse(a.Text(), nil); err != nil || !c.Equal(a) {
			t.Fatalf("text %s: %v, %v", a.Text(), c, err)
		}
		if got := a.WithMode(a.Mode()); !got.Equal(a) {
			t.Fatalf("%s: its own mode changes it to %s", a.Short(), got.Short())
		}
		if m := a.CalcMask(); m.Validate() != nil {
			t.Fatalf("%s: mask calculated: %v", a.Short(), m.Validate())
		}
	})
}
