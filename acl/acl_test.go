package acl_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nsferry/nsferry/acl"
)

// parse is Parse for texts that the test itself wrote.
func parse(t testing.TB, text string) acl.ACL {
	t.Helper()
	a, err := acl.Parse(text, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestValidate(t *testing.T) {
	const base = "u::rwx,g::r-x,o::---"
	for _, tt := range []struct {
		name, text string
		add        []acl.Entry
		want       string // part of the error; empty: valid
	}{
		{name: "minimal", text: base},
		{name: "minimal with mask", text: base + ",m::r"},
		{name: "extended", text: base + ",m::r,u:0:r,u:4294967294:w,g:0:x,g:5:rwx"},
		{name: "same id as user and group", text: base + ",m::r,u:5:r,g:5:r"},
		{name: "empty", want: "user:: entry is missing"},
		{name: "no owner", text: "g::r,o::r", want: "user:: entry is missing"},
		{name: "no group", text: "u::r,o::r", want: "group:: entry is missing"},
		{name: "no other", text: "u::r,g::r", want: "other:: entry is missing"},
		{name: "named user without mask", text: base + ",u:5:r", want: "without a mask"},
		{name: "named group without mask", text: base + ",g:5:r", want: "without a mask"},
		{name: "two owners", text: base + ",u::r", want: "two entries for user::"},
		{name: "two others", text: base + ",o::r", want: "two entries for other::"},
		{name: "two masks", text: base + ",m::r,m::w", want: "two entries for mask::"},
		{name: "two for one uid", text: base + ",m::r,u:7:r,u:5:r,u:7:w", want: "two entries for user:7:-w-"},
		{name: "two for one gid", text: base + ",m::r,g:7:r,g:7:r", want: "two entries for group:7:r--"},
		{name: "unmapped id", text: base + ",m::r", add: []acl.Entry{{Tag: acl.User, ID: acl.Undefined}}, want: "does not map"},
		{name: "unknown tag", text: base, add: []acl.Entry{{Tag: 0x40}}, want: "unknown tag 0x40"},
		{name: "tag zero", text: base, add: []acl.Entry{{}}, want: "unknown tag 0x0"},
		{name: "permission beyond rwx", text: base + ",m::r", add: []acl.Entry{{Tag: acl.User, ID: 1, Perm: 8}}, want: "permissions 010"},
		{name: "id without a name", text: "u::r,g::r", add: []acl.Entry{{Tag: acl.Other, ID: 1}}, want: "with an id"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := append(parse(t, tt.text), tt.add...).Validate()
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("got %v, want it to be valid", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestCalcMask(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"u::rwx,g::r,o::rwx", "u::rwx,g::r--,o::rwx"},
		{"u::rwx,g::r,o::rwx,u:5:x", "u::rwx,u:5:--x,g::r--,m::r-x,o::rwx"},
		{"u::rwx,g::-,o::rwx,g:5:w", "u::rwx,g::---,g:5:-w-,m::-w-,o::rwx"},
		{"u::rwx,g::r,m::rwx,o::-,u:5:w", "u::rwx,u:5:-w-,g::r--,m::rw-,o::---"},
		{"u::rwx,g::r,m::rwx,o::-", "u::rwx,g::r--,m::r--,o::---"},
		{"u:5:w", "u:5:-w-,m::-w-"},
	} {
		a := parse(t, tt.text)
		before := append(acl.ACL(nil), a...)
		if got := a.CalcMask().Short(); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.text, got, tt.want)
		}
		if diff := cmp.Diff(before, a); diff != "" {
			t.Errorf("%s: the ACL itself was changed: %s", tt.text, diff)
		}
	}
}

func TestMode(t *testing.T) {
	for _, tt := range []struct {
		text    string
		mode    uint32
		minimal bool
		chmod   string // after chmod 0640
	}{
		{"u::rwx,g::r-x,o::--x", 0o751, true, "u::rw-,g::r--,o::---"},
		{"u::rwx,g::r-x,m::-w-,o::--x", 0o721, false, "u::rw-,g::r-x,m::r--,o::---"},
		{"u::r,u:5:rwx,g::-,g:7:w,m::rwx,o::-", 0o470, false, "u::rw-,u:5:rwx,g::---,g:7:-w-,m::r--,o::---"},
	} {
		a := parse(t, tt.text)
		if got := a.Mode(); got != tt.mode {
			t.Errorf("%s: mode %o, want %o", tt.text, got, tt.mode)
		}
		if got := a.Minimal(); got != tt.minimal {
			t.Errorf("%s: minimal %v", tt.text, got)
		}
		if got := a.WithMode(0o640).Short(); got != tt.chmod {
			t.Errorf("%s: chmod gives %s, want %s", tt.text, got, tt.chmod)
		}
	}
	for mode := range uint32(0o1000) {
		if a := acl.FromMode(0o7000 | mode); a.Mode() != mode || !a.Minimal() || a.Validate() != nil {
			t.Fatalf("mode %o became %s", mode, a.Short())
		}
	}
	if acl.ACL(nil).Minimal() {
		t.Error("no ACL is minimal")
	}
}

func TestEqual(t *testing.T) {
	a, b := parse(t, "u::rwx,u:5:r,u:6:w,g::r,m::r,o::r"), parse(t, "u::rwx,u:5:r,u:6:w,g::r,m::r,o::r")
	b[0], b[2] = b[2], b[0]
	if !a.Equal(b) || !acl.ACL(nil).Equal(acl.ACL{}) {
		t.Error("order, or nil, makes a difference")
	}
	b[1].Perm = 0
	if a.Equal(b) || a.Equal(a[1:]) || a.Equal(nil) {
		t.Error("different ACLs are equal")
	}
}
