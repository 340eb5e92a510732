package acl_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/acl"
	"github.com/nsferry/nsferry/tier"
)

// getfaclOf is the ACL part of getfacl's numeric output without effective rights.
func getfaclOf(t testing.TB, path string) string {
	t.Helper()
	return strings.TrimSpace(tier.Output(t, "", "getfacl", "-ncpE", path))
}

// randomACL makes a valid ACL; every second one has named entries.
func randomACL(r *rand.Rand) acl.ACL {
	a := acl.FromMode(r.Uint32())
	seen := map[acl.Entry]bool{}
	for range r.IntN(6) * r.IntN(2) {
		key := acl.Entry{Tag: acl.User, ID: []uint32{0, 1, 1000, 65534, 100000, 4294967294}[r.IntN(6)]}
		if r.IntN(2) == 0 {
			key.Tag = acl.Group
		}
		if !seen[key] {
			seen[key] = true
			key.Perm = uint16(r.IntN(8))
			a = append(a, key)
		}
	}
	if len(a) > 3 {
		a = append(a, acl.Entry{Tag: acl.Mask, Perm: uint16(r.IntN(8))})
	}
	return a
}

// TestOracleSetfacl applies random ACLs and compares with what getfacl shows, then lets setfacl set the text and reads it.
// Owner, mode and chmod are compared as well.
func TestOracleSetfacl(t *testing.T) {
	tier.Program(t, "setfacl", "getfacl")
	f := newFile(t)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 60 {
		a := randomACL(r)
		if err := acl.Apply(int(f.Fd()), acl.Access, a); err != nil {
			t.Fatalf("%s: %v", a.Short(), err)
		}
		if got := strings.ReplaceAll(getfaclOf(t, f.Name()), "\n", ","); got != a.Text() {
			t.Fatalf("getfacl shows %s, want %s", got, a.Text())
		}
		if st, err := f.Stat(); err != nil || uint32(st.Mode().Perm()) != a.Mode() {
			t.Fatalf("%s: the file has mode %v, want %o", a.Short(), st.Mode(), a.Mode())
		}
		tier.Output(t, "", "setfacl", "-b", f.Name())
		tier.Output(t, "", "setfacl", "--set", []string{a.Text(), a.Short()}[i%2], f.Name())
		got, err := acl.Read(int(f.Fd()), acl.Access)
		if err != nil {
			t.Fatal(err)
		}
		if a.Minimal() {
			if got != nil {
				t.Fatalf("%s: read %s, want none", a.Short(), got.Short())
			}
			continue
		}
		if !got.Equal(a) {
			t.Fatalf("setfacl made %s of %s", got.Short(), a.Short())
		}
		mode := r.Uint32() & 0o777
		if err := f.Chmod(os.FileMode(mode)); err != nil {
			t.Fatal(err)
		}
		if got, err := acl.Read(int(f.Fd()), acl.Access); err != nil || !got.Equal(a.WithMode(mode)) {
			t.Fatalf("chmod %o of %s: %s, want %s; %v", mode, a.Short(), got.Short(), a.WithMode(mode).Short(), err)
		}
	}
}

// TestOracleMask lets setfacl calculate masks.
func TestOracleMask(t *testing.T) {
	tier.Program(t, "setfacl")
	f := newFile(t)
	for _, text := range []string{"u::rwx,g::r-x,o::-,u:5:w", "u::rwx,g::-,o::-,u:5:x,g:7:r", "u::rwx,g::r,o::-,m::rwx,u:5:-"} {
		a := parse(t, text)
		tier.Output(t, "", "setfacl", "-b", f.Name())
		tier.Output(t, "", "setfacl", "--mask", "--set", a.Text(), f.Name())
		got, err := acl.Read(int(f.Fd()), acl.Access)
		if err != nil || !got.Equal(a.CalcMask()) {
			t.Errorf("%s: setfacl gives %s, CalcMask %s; %v", text, got.Short(), a.CalcMask().Short(), err)
		}
	}
}

// TestOracleText gives the same texts to setfacl and to Parse.
func TestOracleText(t *testing.T) {
	tier.Program(t, "setfacl")
	f := newFile(t)
	const base = "u::rwx,g::r-x,o::-,m::r,"
	for _, text := range []string{
		"u:root:r", "g:root:w", "user:root:x", "u:0:7", "7:r", "root:rw", "g:7:-w", "u:7: r ", "user : 7 : r", "mask:w", "other:5", "u:4294967294:r",
		"u:7:rwxr", "u:7:", "u::", "U:7:r", "us:7:r", "7", "u:7:8", "u:7:r:7", "u:7:rq", "m:7:r", "o:7:r",
	} {
		tier.Output(t, "", "setfacl", "-b", f.Name())
		err := exec.Command("setfacl", "-n", "--set", base+text, f.Name()).Run()
		a, perr := acl.Parse(base+text, book{"u:root": 0, "g:root": 0})
		if (err == nil) != (perr == nil) && !exempt(text) {
			t.Errorf("%q: setfacl says %v, Parse %v", text, err, perr)
			continue
		}
		if err != nil || perr != nil || a.Validate() != nil {
			continue
		}
		if got, err := acl.Read(int(f.Fd()), acl.Access); err != nil || !got.Equal(a) {
			t.Errorf("%q: setfacl makes %s, Parse %s; %v", text, got.Short(), a.Short(), err)
		}
	}
}

// exempt names what we read and setfacl does not: star's trailing id.
func exempt(text string) bool { return text == "u:7:r:7" }

// TestOracleTar reads the ACL texts that GNU tar and bsdtar put into pax headers, and lets both extract ours.
func TestOracleTar(t *testing.T) {
	tier.Program(t, "tar", "bsdtar", "getfacl")
	f := newFile(t)
	dir := filepath.Dir(f.Name())
	a := parse(t, "u::rw-,u:0:r-x,u:4242:-wx,g::r--,g:0:r--,m::rw-,o::r--")
	d := parse(t, "u::rwx,u:4242:rwx,g::r-x,m::rwx,o::---")
	if err := acl.Apply(int(f.Fd()), acl.Access, a); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	df, err := os.Open(filepath.Join(dir, "d"))
	if err != nil {
		t.Fatal(err)
	}
	defer df.Close()
	if err := acl.Apply(int(df.Fd()), acl.Default, d); err != nil {
		t.Fatal(err)
	}
	for _, argv := range [][]string{
		{"tar", "--acls", "--format=posix", "-cf", "-", "f", "d"},
		{"tar", "--acls", "--numeric-owner", "--format=posix", "-cf", "-", "f", "d"},
		{"bsdtar", "--acls", "--format=pax", "-cf", "-", "f", "d"},
		{"bsdtar", "--acls", "--numeric-owner", "--format=pax", "-cf", "-", "f", "d"},
	} {
		out := tier.Output(t, dir, argv...)
		for key, want := range map[string]acl.ACL{"access": a, "default": d} {
			found := false
			for _, text := range paxValues(out, "SCHILY.acl."+key) {
				got, err := acl.Parse(text, book{"u:root": 0, "g:root": 0})
				if err != nil {
					t.Errorf("%q: %s: %q: %v", argv, key, text, err)
				}
				found = found || got.Equal(want)
			}
			if !found {
				t.Errorf("%q: no %s ACL %s in %q", argv, key, want.Short(), paxValues(out, "SCHILY.acl."+key))
			}
		}
	}
}

// paxValues returns the values of a key in all pax headers of an archive.
func paxValues(archive, key string) []string {
	var out []string
	parts := strings.Split(archive, " "+key+"=")
	for i, value := range parts[1:] {
		// A record is "LENGTH KEY=VALUE\n"; the length counts itself and the line end.
		digits := parts[i][strings.LastIndexAny(parts[i], "\n\x00")+1:]
		var n int
		if _, err := fmt.Sscan(digits, &n); err != nil {
			continue
		}
		if n -= len(digits) + len(" "+key+"=") + 1; n <= len(value) {
			out = append(out, value[:n])
		}
	}
	return out
}

func TestReadApply(t *testing.T) {
	f := newFile(t)
	dir, err := os.Open(filepath.Dir(f.Name()))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	path, err := unix.Open(f.Name(), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(path)
	fd := int(f.Fd())

	if a, err := acl.Read(fd, acl.Access); a != nil || err != nil {
		t.Fatalf("new file: %v, %v", a, err)
	}
	a := parse(t, "u::rw,u:5:rwx,g::r,m::rx,o::-")
	if err := acl.Apply(path, acl.Access, a); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{fd, path} {
		if got, err := acl.Read(n, acl.Access); err != nil || !got.Equal(a) {
			t.Errorf("fd %d: got %v, %v", n, got, err)
		}
	}
	if err := acl.Apply(path, acl.Access, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := acl.Read(path, acl.Access); got != nil || err != nil {
		t.Errorf("after removal: %v, %v", got, err)
	}
	for _, k := range []acl.Kind{acl.Access, acl.Default} {
		if err := acl.Apply(int(dir.Fd()), k, nil); err != nil {
			t.Errorf("removing no %s ACL: %v", k, err)
		}
	}
	big := acl.FromMode(0o700)
	for id := range uint32(100) {
		big = append(big, acl.Entry{Tag: acl.Group, ID: id * 7, Perm: 1})
	}
	big = big.CalcMask()
	if err := acl.Apply(int(dir.Fd()), acl.Default, big); err != nil {
		t.Fatal(err)
	}
	if got, err := acl.Read(int(dir.Fd()), acl.Default); err != nil || !got.Equal(big) {
		t.Errorf("100 entries: %d came back, %v", len(got), err)
	}
	if got, err := acl.Read(int(dir.Fd()), acl.Access); got != nil || err != nil {
		t.Errorf("access ACL of a directory with a default one: %v, %v", got, err)
	}
	if err := acl.Apply(fd, acl.Default, a); !errors.Is(err, unix.EACCES) {
		t.Errorf("default ACL on a file: %v", err)
	}
	if err := acl.Apply(fd, acl.Access, a[:2]); err == nil {
		t.Error("an incomplete ACL was set")
	}
}

func TestReadApplyErrors(t *testing.T) {
	f := newFile(t)
	if err := os.Symlink("f", f.Name()+".link"); err != nil {
		t.Fatal(err)
	}
	link, err := unix.Open(f.Name()+".link", unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(link)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	a := parse(t, "u::rw,u:5:rwx,g::r,m::rx,o::-")
	for name, tt := range map[string]struct {
		fd   int
		want error
	}{
		"symlink": {link, acl.ErrUnsupported},
		"pipe":    {int(r.Fd()), acl.ErrUnsupported},
		"no fd":   {1 << 20, unix.EBADF},
	} {
		_, rerr := acl.Read(tt.fd, acl.Access)
		werr := acl.Apply(tt.fd, acl.Access, a)
		for _, err := range []error{rerr, werr} {
			var perr *os.PathError
			if !errors.Is(err, tt.want) || !errors.As(err, &perr) {
				t.Errorf("%s: got %v, want %v as an *os.PathError", name, err, tt.want)
			}
		}
	}
	if got, err := acl.Read(int(f.Fd()), acl.Access); got != nil || err != nil {
		t.Errorf("the symlink's target was touched: %v, %v", got, err)
	}
}

// TestOraclePermits asks the kernel, as several users, what an ACL permits.
func TestOraclePermits(t *testing.T) {
	tier.Root(t, "owners and namespaces of every kind")
	tier.Program(t, "test")
	f := newFile(t)
	const owner, group = 4001, 4002
	if err := f.Chown(owner, group); err != nil {
		t.Fatal(err)
	}
	subjects := []acl.Subject{
		{UID: owner, GID: 4009}, {UID: owner, GID: group}, {UID: 4003, GID: group}, {UID: 4004, GID: 4005, Groups: []uint32{group, 4006}},
		{UID: 4004, GID: 4006}, {UID: 4007, GID: 4009}, {UID: 4003, GID: 4009},
	}
	for _, text := range []string{
		"u::-,g::r,o::rw", "u::r,g::-,o::rwx",
		"u::r,u:4003:w,u:4001:rwx,g::r,g:4005:w,g:4006:rx,m::rwx,o::rwx",
		"u::r,u:4003:rwx,g::rw,g:4005:w,g:4006:rx,m::x,o::rw",
		"u::r,u:4007:-,g::-,g:4005:w,g:4006:r,m::rw,o::rwx",
	} {
		a := parse(t, text)
		if err := acl.Apply(int(f.Fd()), acl.Access, a); err != nil {
			t.Fatal(err)
		}
		for _, s := range subjects {
			for flag, want := range map[string]uint16{"-r": acl.PermRead, "-w": acl.PermWrite, "-x": acl.PermExecute} {
				cmd := exec.Command("test", flag, f.Name())
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: s.UID, Gid: s.GID, Groups: s.Groups}}
				cmd.Stderr = io.Discard
				kernel := cmd.Run() == nil
				if got := a.Permits(s, owner, group, want); got != kernel {
					t.Errorf("%s: %+v %s: got %v, the kernel says %v", text, s, flag, got, kernel)
				}
			}
		}
	}
}
