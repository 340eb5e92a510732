package acl_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/acl"
)

// book is a Names with a few entries.
type book map[string]uint32

func (b book) User(name string) (uint32, error)  { return b.find("u:" + name) }
func (b book) Group(name string) (uint32, error) { return b.find("g:" + name) }

func (b book) find(key string) (uint32, error) {
	id, ok := b[key]
	if !ok {
		return 0, fmt.Errorf("no such name")
	}
	return id, nil
}

var names = book{"u:joe": 1000, "g:joe": 2000, "u:a b,c:d\\e": 7, "u:r": 8, "g:x#y": 9, "u:none": acl.Undefined}

// getfacl is what getfacl -a -d and without options print, with effective rights.
const getfacl = `# file: srv/a\040b
# owner: root
# group: root
# flags: -s-
user::rwx
user:joe:rwx			#effective:r-x
group::rwx			#effective:r-x
mask::r-x
other::---
default:user::rwx
default:user:joe:rwx	#effective:r--
default:group::---
default:mask::r--
default:other::---

`

func TestParse(t *testing.T) {
	for _, tt := range []struct{ name, text, access, def string }{
		{"tar", "user::rwx,user:1000:r-x,group::r-x,mask::r-x,other::---", "u::rwx,u:1000:r-x,g::r-x,m::r-x,o::---", ""},
		{"GNU tar lines", "user::rw-\nuser:1000:r-x\ngroup::r--\nmask::r--\nother::r--\n", "u::rw-,u:1000:r-x,g::r--,m::r--,o::r--", ""},
		{"bsdtar order, trailing id", "user::rw-,group::r--,other::r--,user:who:r-x:1001,group:what:r--:50,mask::r--",
			"u::rw-,u:1001:r-x,g::r--,g:50:r--,m::r--,o::r--", ""},
		{"trailing id beats known name", "user:joe:r:5", "u:5:r--", ""},
		{"trailing id beats number", "group:71:rwx:72", "g:72:rwx", ""},
		{"setfacl octal", "u:joe:7,g:joe:5,m:4,o::0", "u:1000:rwx,g:2000:r-x,m::r--,o::---", ""},
		{"setfacl bare uid and name", "1001:r,joe:w", "u:1000:-w-,u:1001:r--", ""},
		{"solaris", "user::rwx,group::r-x,mask:rw-,other:r--", "u::rwx,g::r-x,m::rw-,o::r--", ""},
		{"letters in any order", "u::xr,g::-w-,o::-", "u::r-x,g::-w-,o::---", ""},
		{"getfacl", getfacl, "u::rwx,u:1000:rwx,g::rwx,m::r-x,o::---", "u::rwx,u:1000:rwx,g::---,m::r--,o::---"},
		{"default only", "d:u::rwx,d:g::r,default:other:-,d:7:r", "", "u::rwx,u:7:r--,g::r--,o::---"},
		{"blanks and CRLF", " u : : rwx ,\tg::r \r\n\r\n o::-,\r\n", "u::rwx,g::r--,o::---", ""},
		{"quoted name", `u:a\040b\054c\072d\\e:r`, "u:7:r--", ""},
		{"names like keywords and permissions", "u:r:r,g:x#y:x # comment, u::r\n#\n", "u:8:r--,g:9:--x", ""},
		{"order of ids", "g:10:r,u:9:r,u:10:r,g:9:w", "u:9:r--,u:10:r--,g:9:-w-,g:10:r--", ""},
		{"largest id", "u:4294967294:r", "u:4294967294:r--", ""},
		{"nothing", "\n# nothing\n  \n", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			access, def, err := acl.ParseBoth(tt.text, names)
			if err != nil {
				t.Fatal(err)
			}
			if access.Short() != tt.access || def.Short() != tt.def {
				t.Errorf("got %s and %s, want %s and %s", access.Short(), def.Short(), tt.access, tt.def)
			}
			if (access == nil) != (tt.access == "") || (def == nil) != (tt.def == "") {
				t.Error("an ACL without entries is not nil")
			}
			one, err := acl.Parse(tt.text, names)
			if tt.def == "" && (err != nil || !one.Equal(access)) {
				t.Errorf("Parse: %v %v", one, err)
			}
			if tt.def != "" && err == nil {
				t.Error("Parse took a default entry")
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	for _, tt := range []struct {
		text   string
		offset int
		what   string
	}{
		{"u::rwx,,g::r", 7, ""},
		{",", 0, ""},
		{"u::rwx,g::r8", 10, "r8"},
		{"u::rwxr", 3, "rwxr"},
		{"u::rr", 3, "rr"},
		{"u::", 3, ""},
		{"u::8", 3, "8"},
		{"u::R", 3, "R"},
		{"u::rX", 3, "rX"},
		{"u:rwx", 0, "u:rwx"},
		{"u", 0, "u"},
		{"m", 0, "m"},
		{"d", 0, "d"},
		{"d:u", 0, "d:u"},
		{"d::r", 2, ""},
		{"d:d:u::r", 2, "d"},
		{"us::rwx", 0, "us"},
		{"U::rwx", 0, "U"},
		{"::rwx", 0, ""},
		{":rwx", 0, ""},
		{"u::r\n  usr::r", 7, "usr"},
		{"u::r,u:eve:r", 7, "eve"},
		{"g:eve:r", 2, "eve"},
		{"u:none:r", 2, "none"},
		{"u:4294967295:r", 2, "4294967295"},
		{"u:4294967296:r", 2, "4294967296"},
		{"u:99999999999999999999:r", 2, "99999999999999999999"},
		{"u:-1:r", 2, "-1"},
		{"u:+1:r", 2, "+1"},
		{"u:0x10:r", 2, "0x10"},
		{"u:010:r", 2, "010"},
		{"u:joe:r:01", 8, "01"},
		{"u:joe:r:joe", 8, "joe"},
		{"u:joe:r:4294967295", 8, "4294967295"},
		{"u:joe:r:", 8, ""},
		{"u:joe:r:1:2", 8, "1:2"},
		{"u::r:5", 5, "5"},
		{"m::r:5", 5, "5"},
		{"m:5:r", 2, "5"},
		{"o:joe:r", 2, "joe"},
		{`u:a\04:r`, 2, `a\04`},
		{`u:a\09x:r`, 2, `a\09x`},
		{`u:a\777:r`, 2, `a\777`},
		{"u::r g::r", 7, ":r"},
		{"u::r\x00", 3, "r\x00"},
		{"éa::r", 0, "éa"},
	} {
		_, _, err := acl.ParseBoth(tt.text, names)
		var syntax *acl.SyntaxError
		if !errors.As(err, &syntax) {
			t.Errorf("%q: got %v, want a SyntaxError", tt.text, err)
			continue
		}
		if syntax.Offset != tt.offset || syntax.Text != tt.what || syntax.Reason == "" {
			t.Errorf("%q: got %v, want %q at byte %d", tt.text, err, tt.what, tt.offset)
		}
		if !strings.HasPrefix(tt.text[syntax.Offset:], syntax.Text) {
			t.Errorf("%q: %q does not stand at byte %d", tt.text, syntax.Text, syntax.Offset)
		}
	}
	if _, err := acl.Parse("u:joe:r", nil); err == nil {
		t.Error("a name was read without Names")
	}
}

// FuzzParse checks that no text makes the parser panic, that errors point into the text, and that what was read is the
// same after it was written in either form.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		getfacl, "u::rwx,g::r,o::-", "user:joe:rwx:1000,m:7", "d:u::rwx\r\n1:2", `u:a\040b:r`, "#", ",", ":::::", "u::\xff", "g:4294967295:r", "u:0:---,u:00:r",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		access, def, err := acl.ParseBoth(text, names)
		if err != nil {
			var syntax *acl.SyntaxError
			if !errors.As(err, &syntax) || syntax.Offset < 0 || syntax.Offset > len(text) ||
				!strings.HasPrefix(text[syntax.Offset:], syntax.Text) {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		for _, a := range []acl.ACL{access, def} {
			for _, s := range []string{a.Text(), a.Short(), strings.ReplaceAll(a.Text(), ",", "\n")} {
				if b, err := acl.Parse(s, nil); err != nil || !b.Equal(a) {
					t.Fatalf("%q: read back as %v: %v", s, b, err)
				}
			}
		}
	})
}
