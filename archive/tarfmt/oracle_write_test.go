package tarfmt

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/tier"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// run runs a tool that must succeed without a word on stderr.
func run(t testing.TB, env []string, stdin io.Reader, argv ...string) []byte {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = stdin
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil || stderr.Len() > 0 {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, stderr.String())
	}
	return stdout.Bytes()
}

// content lays the data segments out as the whole file.
func (it item) content() []byte {
	if it.Sparse == nil {
		return it.data
	}
	out := make([]byte, it.Size)
	data := it.data
	for _, s := range it.Sparse {
		copy(out[s.Offset:], data[:s.Length])
		data = data[s.Length:]
	}
	return out
}

// inode is what is compared of an extracted entry.
type inode struct {
	Type, Mode, UID, GID, Dev, Links uint64
	Size                             int64
	MTime                            Time
	Target, Digest                   string
	Xattrs                           map[string]string
	ACL, DefaultACL                  string
}

// wanted is the inode that an entry describes, for extraction into an empty directory.
func wanted(it item, xattrKey func(string) string) inode {
	kind := map[Type]uint64{Reg: unix.S_IFREG, Symlink: unix.S_IFLNK, Char: unix.S_IFCHR, Block: unix.S_IFBLK, Dir: unix.S_IFDIR, Fifo: unix.S_IFIFO}
	n := inode{Type: kind[it.Type], Mode: uint64(it.Mode), UID: uint64(it.UID), GID: uint64(it.GID), Size: it.Size, MTime: it.ModTime,
		Dev: unix.Mkdev(it.DevMajor, it.DevMinor), ACL: it.ACL, DefaultACL: it.DefaultACL, Xattrs: map[string]string{}}
	switch it.Type {
	case Reg:
		n.Digest = digest(it.content())
	case Symlink:
		n.Target, n.Size = it.Link, int64(len(it.Link))
	}
	for _, x := range it.Xattrs {
		n.Xattrs[xattrKey(x.Key)] = string(x.Value)
	}
	return n
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// look reads the inode at path.
func look(t *testing.T, path string) inode {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	n := inode{Type: uint64(st.Mode & unix.S_IFMT), Mode: uint64(st.Mode & 0o7777), UID: uint64(st.Uid), GID: uint64(st.Gid), Dev: st.Rdev,
		MTime: Time{st.Mtim.Sec, uint32(st.Mtim.Nsec)}, Xattrs: map[string]string{}}
	switch n.Type {
	case unix.S_IFREG:
		n.Size = st.Size
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		n.Digest = digest(b)
	case unix.S_IFLNK:
		n.Target, _ = os.Readlink(path)
		n.Size = st.Size
	}
	names := make([]byte, 65536)
	k, err := unix.Llistxattr(path, names)
	if err != nil {
		t.Fatal(err)
	}
	value := make([]byte, 65536)
	for key := range strings.FieldsFuncSeq(string(names[:k]), func(r rune) bool { return r == 0 }) {
		v, err := unix.Lgetxattr(path, key, value)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(key, "system.posix_acl_") {
			n.Xattrs[key] = string(value[:v])
			continue
		}
		text := run(t, nil, nil, "getfacl", "-ncpE", map[bool]string{true: "-d", false: "-a"}[strings.HasSuffix(key, "default")], path)
		joined := strings.ReplaceAll(strings.TrimSpace(string(text)), "\n", ",")
		if strings.HasSuffix(key, "default") {
			n.DefaultACL = joined
		} else {
			n.ACL = joined
		}
	}
	return n
}

// TestToolsExtract has GNU tar and bsdtar extract every feature, in a locale of bytes and in one of characters.
func TestToolsExtract(t *testing.T) {
	tier.Root(t, "to give files away")
	tier.Program(t, "tar", "bsdtar", "getfacl")
	plainKey := func(key string) string { return key }
	for _, tool := range []struct {
		name string
		argv []string
		key  func(string) string
		skip []string
	}{
		// The warnings left out speak of times before 1970 and after today, not of the archive.
		{"GNU tar", []string{"tar", "--warning=no-timestamp", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "-xpf", "-"}, plainKey, nil},
		// bsdtar 3.6.2 does not decode xattr keys, takes "-1.25" for a quarter second after -1, and leaves the time of "./"
		// alone; its ids in ACLs end at 2147483647.
		{"bsdtar", []string{"bsdtar", "--numeric-owner", "--xattrs", "--acls", "-xpf", "-"}, escapeKey, []string{"./old-ns", "./"}},
	} {
		for _, locale := range []string{"C", "C.UTF-8"} {
			t.Run(tool.name+" "+locale, func(t *testing.T) {
				dir := t.TempDir()
				items := oddities()
				run(t, []string{"LC_ALL=" + locale, "TZ=UTC"}, bytes.NewReader(write(t, items)), append(tool.argv, "-C", dir)...)
				compareTree(t, dir, items, tool.key, tool.skip)
			})
		}
	}
}

// compareTree compares the tree that was extracted into dir with what the entries say.
func compareTree(t *testing.T, dir string, items []item, key func(string) string, notTime []string) {
	t.Helper()
	for _, it := range items {
		path := filepath.Join(dir, it.Name)
		if it.Type == Link {
			one, err1 := os.Lstat(path)
			two, err2 := os.Lstat(filepath.Join(dir, it.Link))
			if err1 != nil || err2 != nil || !os.SameFile(one, two) {
				t.Errorf("%q is no hard link to %q", it.Name, it.Link)
			}
			continue
		}
		want, got := wanted(it, key), look(t, path)
		for _, name := range notTime {
			if name == it.Name {
				got.MTime = want.MTime
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%q: %s", it.Name, d)
		}
	}
}

const pythonList = `
import sys, os, json, tarfile, hashlib, warnings
warnings.simplefilter("error")
t = tarfile.open(fileobj=sys.stdin.buffer, mode="r|")
hexed = lambda s: os.fsencode(s).hex()
for m in t:
    d = hashlib.sha256(t.extractfile(m).read()).hexdigest() if m.isreg() else ""
    x = {hexed(k[13:]): v.encode("utf-8", "surrogateescape").hex() for k, v in m.pax_headers.items() if k.startswith("SCHILY.xattr.")}
    print(json.dumps(dict(Name=hexed(m.name), Link=hexed(m.linkname), Type=m.type.decode(), Mode=m.mode, UID=m.uid, GID=m.gid,
        Size=m.size, MTime="%.3f" % m.mtime, Dev="%d:%d" % (m.devmajor, m.devminor), Digest=d, Xattrs=x)))
`

// TestPythonLists has Python's tarfile read every feature. It has times as floats, and xattr keys as they are written.
func TestPythonLists(t *testing.T) {
	tier.Program(t, "python3")
	type entry struct {
		Name, Link, Type   string
		Mode, UID, GID     uint32
		Size               int64
		MTime, Dev, Digest string
		Xattrs             map[string]string
	}
	items := oddities()
	out := run(t, []string{"PYTHONUTF8=1"}, bytes.NewReader(write(t, items)), "python3", "-W", "error", "-c", pythonList)
	lines := json.NewDecoder(bytes.NewReader(out))
	for _, it := range items {
		name := it.Name
		if it.Type == Dir {
			name = strings.TrimSuffix(name, "/")
		}
		want := entry{Name: hex.EncodeToString([]byte(name)), Link: hex.EncodeToString([]byte(it.Link)), Type: string(it.Type), Mode: it.Mode, UID: it.UID, GID: it.GID,
			Size: it.Size, MTime: fmt.Sprintf("%.3f", float64(it.ModTime.Sec)+float64(it.ModTime.Nsec)/1e9), Dev: fmt.Sprintf("%d:%d", it.DevMajor, it.DevMinor), Xattrs: map[string]string{}}
		if it.Type == Reg {
			want.Digest = digest(it.content())
		}
		for _, x := range it.Xattrs {
			want.Xattrs[hex.EncodeToString([]byte(escapeKey(x.Key)))] = hex.EncodeToString(x.Value)
		}
		var got entry
		if err := lines.Decode(&got); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%q: %s", it.Name, d)
		}
	}
	if lines.More() {
		t.Error("more entries than were written")
	}
}
