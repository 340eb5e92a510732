package tarfmt

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/tier"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// sourceTree makes a tree with what the tool under test can pack. Levels: 0 what v7 holds, 1 and devices and 101-byte
// names, 2 and long names and big ids, 3 and everything that only pax holds.
func sourceTree(t *testing.T, level int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "src")
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	ok(os.MkdirAll(in("sub"), 0o755))
	ok(os.WriteFile(in("sub/plain"), []byte("hello"), 0o644))
	ok(os.WriteFile(in("empty"), nil, 0o600))
	ok(os.WriteFile(in("large"), repeat('L', 100000), 0o644))
	ok(os.WriteFile(in("bad\xff\nname"), []byte("x"), 0o644))
	ok(os.Chown(in("large"), 33, 65534))
	ok(os.Chmod(in("large"), 0o755|os.ModeSetuid))
	ok(os.Symlink("../else where", in("sub/sym")))
	ok(os.Link(in("sub/plain"), in("zhard")))
	if level >= 1 {
		ok(unix.Mkfifo(in("fifo"), 0o640))
		ok(unix.Mknod(in("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		ok(unix.Mknod(in("disk"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 70000))))
		ok(os.MkdirAll(in(strings.Repeat("d", 60)), 0o755))
		ok(os.WriteFile(in(strings.Repeat("d", 60)+"/"+strings.Repeat("f", 60)), []byte("y"), 0o644))
	}
	if level >= 2 {
		ok(os.WriteFile(in(strings.Repeat("n", 200)), []byte("n"), 0o644))
		ok(os.Symlink(strings.Repeat("t/", 150), in("sym300")))
		ok(os.WriteFile(in("ids"), nil, 0o644))
		ok(os.Chown(in("ids"), 4294967294, 3000000))
		ok(os.WriteFile(in("\xe9"+strings.Repeat("b", 150)), nil, 0o644))
	}
	if level >= 3 {
		ok(os.WriteFile(in("attrs"), []byte("a"), 0o644))
		for key, value := range map[string]string{"user.a=b": "1=2\n", "user.p%3Dq": "\x00\xff", "user.e": "", "user.n": "normal"} {
			ok(unix.Lsetxattr(in("attrs"), key, []byte(value), 0))
		}
		run(t, nil, nil, "setfacl", "-m", "u:100077:r,g:100078:rw", in("attrs"))
		run(t, nil, nil, "setfacl", "-d", "-m", "u:100077:rx", in("sub"))
	}
	for name, ns := range map[string]int64{"sub/plain": 1700000000123456789, "empty": -3e9, "large": 1e18} {
		if level < 3 {
			ns = max(ns, 0) / 1e9 * 1e9
		}
		ok(unix.UtimesNanoAt(unix.AT_FDCWD, in(name), []unix.Timespec{unix.NsecToTimespec(ns), unix.NsecToTimespec(ns)}, 0))
	}
	return dir
}

// compareArchive compares what an archive says with the tree it was made from.
func compareArchive(t *testing.T, dir string, items []item, level int) {
	t.Helper()
	count := 0
	for name := range strings.SplitSeq(strings.TrimSuffix(string(run(t, nil, nil, "find", dir, "-mindepth", "1", "-print0")), "\x00"), "\x00") {
		rel := strings.TrimPrefix(name, dir+"/")
		i := slices.IndexFunc(items, func(it item) bool {
			return strings.TrimSuffix(strings.TrimPrefix(it.Name, "./"), "/") == rel
		})
		count++
		if i < 0 {
			t.Errorf("%q is missing", rel)
			continue
		}
		it := items[i]
		if it.Type == Link {
			it.Link = strings.TrimPrefix(it.Link, "./")
			if it.Link != "sub/plain" && it.Link != "zhard" || it.Size != 0 || len(it.data) > 0 {
				t.Errorf("hard link %q: %+v", rel, it)
			}
			continue
		}
		want, got := look(t, name), wanted(it, func(k string) string { return k })
		if level < 3 {
			want.MTime.Nsec = got.MTime.Nsec
		}
		if want.ACL != "" { // bsdtar writes the rights of group:: where st_mode shows the mask
			want.Mode, got.Mode = want.Mode&^0o70, got.Mode&^0o70
		}
		want.ACL, want.DefaultACL = plainACL(want.ACL), plainACL(want.DefaultACL)
		got.ACL, got.DefaultACL = plainACL(got.ACL), plainACL(got.DefaultACL)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%q: %s", rel, d)
		}
	}
	for _, it := range items {
		if strings.TrimPrefix(it.Name, "./") != "" {
			count--
		}
	}
	if count != 0 {
		t.Errorf("archive and tree differ by %d entries", count)
	}
}

// plainACL brings the ACL texts of GNU tar (one entry a line, a minimal one beside a default ACL) and bsdtar (an id behind
// the name, another order) to one form.
func plainACL(s string) string {
	s = strings.ReplaceAll(strings.TrimSpace(s), "\n", ",")
	if s == "" {
		return ""
	}
	entries := strings.Split(s, ",")
	for i, e := range entries {
		f := strings.Split(e, ":")
		if len(f) == 4 {
			f[1] = f[3]
		}
		entries[i] = strings.Join(f[:3], ":")
	}
	if len(entries) == 3 {
		return ""
	}
	slices.Sort(entries)
	return strings.Join(entries, ",")
}

func TestReadTools(t *testing.T) {
	tier.Root(t, "to give files away")
	tier.Program(t, "tar", "bsdtar", "python3", "setfacl", "getfacl", "find")
	gnuTar := []string{"tar", "--numeric-owner", "--xattrs", "--xattrs-include=user.*", "--acls"}
	for _, tool := range []struct {
		argv  []string
		level int
	}{
		{[]string{"tar", "--format=v7"}, 0},
		{[]string{"tar", "--format=ustar"}, 1},
		{[]string{"tar", "--format=oldgnu"}, 2},
		{[]string{"tar", "--format=gnu"}, 2},
		{append(gnuTar, "--format=pax"), 3},
		{append(gnuTar, "--format=pax", "--pax-option=globexthdr.name=g,comment:=global,uname=x"), 3},
		{append(gnuTar, "--format=pax", "-V", "label"), 3},
		{[]string{"tar", "--format=gnu", "-V", "label"}, 2},
		{[]string{"bsdtar", "--format", "ustar"}, 1},
		{[]string{"bsdtar", "--format", "v7"}, 0},
		{[]string{"bsdtar", "--format", "gnutar"}, 2},
		{[]string{"bsdtar", "--format", "pax", "--numeric-owner", "--xattrs", "--acls"}, 3},
		{[]string{"bsdtar", "--format", "paxr", "--numeric-owner"}, 2}, // restricted pax: pax only where needed
		{[]string{"python3", "USTAR"}, 1},
		{[]string{"python3", "GNU"}, 2},
		{[]string{"python3", "PAX"}, 2},
	} {
		t.Run(strings.Join(tool.argv, " "), func(t *testing.T) {
			dir := sourceTree(t, tool.level)
			argv := slices.Concat(tool.argv, []string{"-C", dir, "-cf", "-", "."})
			if tool.argv[0] == "python3" {
				argv = []string{"python3", "-c", "import tarfile, sys\nt = tarfile.open(fileobj=sys.stdout.buffer, mode='w|', format=tarfile." + tool.argv[1] + "_FORMAT)\nt.add(sys.argv[1], '.')\nt.close()", dir}
			}
			if tool.argv[0] == "bsdtar" { // speaks of names that are not UTF-8
				argv = append([]string{"sh", "-c", `exec "$@" 2>/dev/null`, "sh"}, argv...)
			}
			archive := run(t, []string{"LC_ALL=C.UTF-8"}, nil, argv...)
			compareArchive(t, dir, mustRead(t, archive), tool.level)
		})
	}
}

func TestReadSparse(t *testing.T) {
	tier.Program(t, "tar", "bsdtar")
	dir := t.TempDir()
	want := map[string][]Segment{
		"holes":    {{0, 4096}, {1 << 20, 4096}, {2<<20 - 4096, 4096}},
		"end":      {{4096, 4096}},
		"hole":     {},
		"odd":      {{131072, 4096}, {1 << 20, 100}},
		"fragment": nil,
	}
	for i := range 200 {
		want["fragment"] = append(want["fragment"], Segment{int64(i) * 16384, 4096})
	}
	want["name-"+strings.Repeat("n", 150)] = want["odd"]
	sizes := map[string]int64{}
	for name, segs := range want {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range segs {
			_, err = f.WriteAt(repeat('a'+byte(i%26), int(s.Length)), s.Offset)
			if err != nil {
				t.Fatal(err)
			}
		}
		sizes[name] = 4 << 20
		if strings.Contains(name, "name") || name == "odd" {
			sizes[name] = 1<<20 + 100
		}
		if err := f.Truncate(sizes[name]); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	for _, argv := range []string{
		"tar -S --format=gnu", "tar -S --format=oldgnu", "tar -S --format=pax --sparse-version=0.0", "tar -S --format=pax --sparse-version=0.1",
		"tar -S --format=pax --sparse-version=1.0", "tar -S --format=pax --hole-detection=raw", "bsdtar --format pax", "bsdtar --format gnutar",
	} {
		t.Run(argv, func(t *testing.T) {
			archive := run(t, nil, nil, append(strings.Fields(argv), "-C", dir, "-cf", "-", ".")...)
			seen := 0
			for _, it := range mustRead(t, archive) {
				name := strings.TrimPrefix(it.Name, "./")
				if name == "" {
					continue
				}
				seen++
				file, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(file, it.content()) {
					t.Errorf("%q has other content", name)
				}
				if argv == "bsdtar --format gnutar" {
					continue // does not know holes
				}
				// Where tar looks for zeros itself, it does so in pieces of its own size.
				if d := cmp.Diff(want[name], Coalesce(it.Sparse, it.Size, BlockSize, 1)); d != "" && !strings.Contains(argv, "raw") {
					t.Errorf("%q: %s", name, d)
				}
			}
			if seen != len(want) {
				t.Errorf("%d entries", seen)
			}
		})
	}
}
