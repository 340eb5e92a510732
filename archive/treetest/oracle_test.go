//go:build linux

package treetest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nsferry/nsferry/acl"
	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/tier"
)

// output runs a tool that must succeed. LC_ALL=C keeps its escapes plain.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	_, err := exec.LookPath(name)
	tier.Have(t, err == nil, name)
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, stderr.String())
	}
	return string(out)
}

// TestDumpAgainstStat compares type, owner, mode, mtime, target, device and hard link groups with stat's word.
func TestDumpAgainstStat(t *testing.T) {
	tier.Root(t, "for all owners")
	dir := built(t, Oddities())
	types := map[listing.Type]string{
		listing.Dir: "directory", listing.File: "regular file", listing.Symlink: "symbolic link", listing.Fifo: "fifo",
		listing.Sock: "socket", listing.Char: "character special file",
	}
	inodes := map[string]string{}
	for _, n := range dumped(t, dir) {
		path := filepath.Join(dir, n.Name)
		f := strings.Split(output(t, "stat", "--printf=%u:%g|%a|%F|%.9Y|%s|%t:%T|%i", "--", path), "|")
		if n.Type == listing.Hardlink {
			if inodes[n.Target] != f[6] {
				t.Errorf("%s is inode %s, %s is %s", n.Name, f[6], n.Target, inodes[n.Target])
			}
			continue
		}
		for name, ino := range inodes {
			if ino == f[6] {
				t.Errorf("%s and %s are one inode with two lines", name, n.Name)
			}
		}
		inodes[n.Name] = f[6]
		kind := strings.Replace(f[2], "regular empty file", "regular file", 1)
		mode := fmt.Sprintf("%o", n.Mode)
		if n.Type == listing.Symlink {
			mode = f[1]
			if got := output(t, "readlink", "-n", "--", path); got != n.Target {
				t.Errorf("%s: target %q, readlink %q", n.Name, n.Target, got)
			}
		}
		mtime, err := listing.ParseTime(f[3])
		if err != nil {
			t.Fatal(err)
		}
		got := []string{fmt.Sprintf("%d:%d", n.UID, n.GID), mode, types[n.Type], n.MTime.String(), fmt.Sprintf("%x:%x", n.Major, n.Minor)}
		if d := cmp.Diff([]string{f[0], f[1], kind, mtime.String(), f[5]}, got); d != "" {
			t.Errorf("%s (-stat +dump):\n%s", n.Name, d)
		}
		if size := strconv.FormatInt(n.Size, 10); n.Type == listing.File && size != f[4] {
			t.Errorf("%s: size %s, stat %s", n.Name, size, f[4])
		}
		if n.SHA256 != "" && n.Size < 1<<25 {
			if sum := output(t, "sha256sum", "--zero", "--", path)[:64]; sum != n.SHA256 {
				t.Errorf("%s: sha256 %s, sha256sum %s", n.Name, n.SHA256, sum)
			}
		}
	}
}

// TestDumpAgainstAttr compares with getfacl, getfattr and setcap -v.
func TestDumpAgainstAttr(t *testing.T) {
	tier.Root(t, "for all owners")
	dir := built(t, Oddities())
	acls, caps, xattrs := 0, 0, 0
	for _, n := range dumped(t, dir) {
		path := filepath.Join(dir, n.Name)
		if n.Type == listing.Hardlink {
			continue
		}
		if n.Type != listing.Symlink {
			access, def, err := acl.ParseBoth(output(t, "getfacl", "-ncp", "--", path), nil)
			if err != nil {
				t.Fatal(err)
			}
			want := listing.Node{Default: def.Short()}
			if !access.Minimal() {
				want.ACL = access.Short()
				acls++
			}
			if n.ACL != want.ACL || n.Default != want.Default {
				t.Errorf("%s: %s | %s, getfacl %s | %s", n.Name, n.ACL, n.Default, want.ACL, want.Default)
			}
		}
		if n.Cap != nil {
			_, text, _ := strings.Cut(listing.Node{Type: listing.Fifo, Cap: n.Cap}.Line(), "cap=")
			output(t, "setcap", "-v", strings.ReplaceAll(text, ";", " "), path)
			caps++
		}
		got := map[string]string{}
		for _, x := range n.Xattrs {
			got[x.Key] = fmt.Sprintf("%x", x.Value)
		}
		want := getfattr(t, path)
		if (want["security.capability"] != "") != (n.Cap != nil) {
			t.Errorf("%s: capability %x, getfattr %s", n.Name, n.Cap, want["security.capability"])
		}
		for _, key := range []string{"security.capability", "system.posix_acl_access", "system.posix_acl_default"} {
			delete(want, key)
		}
		xattrs += len(want)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-getfattr +dump):\n%s", n.Name, d)
		}
	}
	if acls < 5 || caps < 4 || xattrs < 9 {
		t.Errorf("only %d ACLs, %d capabilities, %d xattrs were compared", acls, caps, xattrs)
	}
}

var octal = regexp.MustCompile(`\\[0-7]{3}`)

// getfattr returns the xattrs of path by key, values in hex.
func getfattr(t *testing.T, path string) map[string]string {
	t.Helper()
	attrs := map[string]string{}
	for line := range strings.SplitSeq(output(t, "getfattr", "-hd", "-m", "-", "-e", "hex", "--absolute-names", "--", path), "\n") {
		key, value, ok := strings.Cut(line, "=")
		if line == "" || line[0] == '#' {
			continue
		}
		key = octal.ReplaceAllStringFunc(key, func(s string) string {
			code, err := strconv.ParseUint(s[1:], 8, 8)
			if err != nil {
				t.Fatal(err)
			}
			return string([]byte{byte(code)})
		})
		if !ok && line != "" {
			value = ""
		}
		attrs[key] = strings.TrimPrefix(value, "0x")
	}
	return attrs
}

// TestDumpAgainstTar lets GNU tar carry the tree over and wants the same dump. It has no sockets, and keeps hard links of files
// and symbolic links only.
func TestDumpAgainstTar(t *testing.T) {
	tier.Root(t, "for all owners")
	dir := built(t, Oddities())
	copied := filepath.Join(t.TempDir(), "copy")
	if err := os.Mkdir(copied, 0o700); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "tar")
	flags := []string{"--acls", "--xattrs", "--xattrs-include=*", "--numeric-owner"}
	output(t, "tar", append(flags, "--format=posix", "--sparse", "-C", dir, "-cf", archive, ".")...)
	output(t, "tar", append(flags, "-p", "--delay-directory-restore", "-C", copied, "-xf", archive)...)
	var want []listing.Node
	var fifo listing.Node
	for _, n := range dumped(t, dir) {
		switch {
		case n.Type == listing.Sock:
			continue
		case n.Name == "fifo-2":
			n = fifo
			n.Name = "fifo-2"
		case n.Name == "fifo":
			fifo = n
		}
		want = append(want, n)
	}
	if d := Diff(want, dumped(t, copied)); d != "" {
		t.Errorf("- built, + by tar:\n%s", d)
	}
}
