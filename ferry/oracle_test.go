package ferry

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/archive/treetest"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/idshift/userns/mounts"
	"github.com/nsferry/nsferry/idshift/userns/usernstest"
	"github.com/nsferry/nsferry/tier"
)

// in runs a program as inner root in e's plain map and returns what it prints.
func in(t testing.TB, e usernstest.Way, stdin *os.File, argv ...string) string {
	t.Helper()
	tier.Program(t, argv[0])
	out, errs := scratch(t), scratch(t)
	if stdin == nil {
		var err error
		stdin, err = os.Open(os.DevNull)
		check(t, err)
		defer stdin.Close()
	}
	status, err := e.Exec(t.Context(), userns.Spec{Argv: argv, Stdin: stdin, Stdout: out, Stderr: errs, Env: []string{"LC_ALL=C.UTF-8", "TZ=UTC"}})
	if err != nil || status != 0 {
		t.Fatalf("%s: %q: status %d, %v\n%s", e.Name, argv, status, err, contents(t, errs))
	}
	return string(contents(t, out))
}

// scratch is an open file without a name that matters.
func scratch(t testing.TB) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "out")
	check(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func contents(t testing.TB, f *os.File) []byte {
	t.Helper()
	b, err := os.ReadFile(f.Name())
	check(t, err)
	return b
}

// listings are what the tools say of a tree, by tool: the first is a line for each inode.
func listings(t testing.TB, e usernstest.Way, dir string) [5]string {
	t.Helper()
	script, err := os.ReadFile("testdata/list.py")
	check(t, err)
	return [5]string{
		in(t, e, nil, "python3", "-c", string(script), dir),
		paragraphs(in(t, e, nil, "sh", "-c", `cd "$1" && getfacl -nPRp . `, "sh", dir)),
		in(t, e, nil, "sh", "-c", `cd "$1" && getcap -r . | LC_ALL=C sort`, "sh", dir),
		paragraphs(in(t, e, nil, "sh", "-c", `cd "$1" && getfattr -PRh -d -m- -e hex .`, "sh", dir)),
		in(t, e, nil, "bsdtar", "-cf", "-", "--format=mtree", "--options=mtree:!all,mtree:type,mtree:uid,mtree:gid,mtree:mode,mtree:size,mtree:time,mtree:link,mtree:sha256", "-C", dir, "."),
	}
}

// defect is something that a tool is known to get wrong with every archive, GNU tar's own included.
type defect struct{ name, field, why string }

// compareLists reports where the lines of list.py differ, known defects left out.
func compareLists(t testing.TB, what, want, got string, known ...defect) {
	t.Helper()
	a, b := parseList(want), parseList(got)
	names := make([]string, 0, len(a))
	for n := range a {
		names = append(names, n)
	}
	for n := range b {
		if a[n] == nil {
			t.Errorf("%s: %s is new", what, n)
		}
	}
	slices.Sort(names)
	shown := 0
	for _, n := range names {
		if b[n] == nil {
			t.Errorf("%s: %s is missing", what, n)
			continue
		}
		for field := range merged(a[n], b[n]) {
			is := func(d defect) bool {
				return (d.name == "" || strings.HasSuffix(n, d.name+"'") || strings.HasSuffix(n, d.name+`"`)) && strings.HasPrefix(field, d.field)
			}
			if a[n][field] == b[n][field] || slices.ContainsFunc(known, is) {
				continue
			}
			if shown++; shown < 20 {
				t.Errorf("%s: %s: %s is %q, want %q", what, n, field, b[n][field], a[n][field])
			}
		}
	}
	if len(a) < 2 {
		t.Errorf("%s: nothing was compared", what)
	}
}

func merged(a, b map[string]string) map[string]bool {
	all := map[string]bool{}
	for k := range a {
		all[k] = true
	}
	for k := range b {
		all[k] = true
	}
	return all
}

func parseList(text string) map[string]map[string]string {
	list := map[string]map[string]string{}
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		list[f[0]] = map[string]string{}
		for _, field := range f[1:] {
			k, v, _ := strings.Cut(field, "=")
			list[f[0]][k] = v
		}
	}
	return list
}

var gnuCreate = []string{"tar", "--format=posix", "--xattrs", "--xattrs-include=*", "--acls", "--sparse", "--numeric-owner", "--warning=no-file-ignored"}

// nameless hides the user and group names: GNU tar writes those of the machine it runs on into ACLs, whatever
// --numeric-owner says.
func nameless(t testing.TB) (s mounts.Spec) {
	t.Helper()
	empty := filepath.Join(t.TempDir(), "empty")
	check(t, os.WriteFile(empty, nil, 0o644))
	for _, name := range []string{"/etc/passwd", "/etc/group"} {
		b, err := mounts.OpenBind(empty, name, true)
		check(t, err)
		t.Cleanup(func() { check(t, b.Close()) })
		s.Binds = append(s.Binds, b)
	}
	return s
}

// paragraphs sorts what getfacl and getfattr say of each file: they go in the order of the directories, which on some
// filesystems (tmpfs) is that of creation.
func paragraphs(text string) string {
	all := strings.Split(strings.TrimSpace(text), "\n\n")
	slices.Sort(all)
	return strings.Join(all, "\n\n")
}

// circle sends the tree dir round: GNU tar's archive → unpack → pack → GNU tar and bsdtar extract ours. All listings of all
// trees are equal. It returns our archive of the tree.
func circle(t *testing.T, e usernstest.Way, dir string, gnuDefects, bsdDefects []defect) []byte {
	t.Helper()
	work := place(t, e.Env)
	path := func(name string) string { return filepath.Join(work, name) }
	want := listings(t, e, dir)

	foreign := scratch(t)
	status, err := e.Exec(t.Context(), userns.Spec{Argv: append(slices.Clone(gnuCreate), "-C", dir, "-cf", "-", "."), Stdout: foreign, Mounts: nameless(t)})
	if err != nil || status != 0 {
		t.Fatalf("GNU tar: %d, %v", status, err)
	}
	_, err = foreign.Seek(0, 0)
	check(t, err)
	_, err = Unpack(t.Context(), e.Env, foreign, path("ours"), UnpackOptions{})
	check(t, err)
	got := listings(t, e, path("ours"))
	compareLists(t, "unpacked from GNU tar", want[0], got[0], gnuDefects...)
	for i, tool := range []string{"getfacl", "getcap", "getfattr", "mtree"} {
		if len(gnuDefects) == 0 && want[i+1] != got[i+1] {
			t.Errorf("unpacked from GNU tar: %s tells something else", tool)
		}
	}

	ours := packed(t, e, dir, 1)
	for _, workers := range []int{2, 7} {
		if !bytes.Equal(packed(t, e, dir, workers), ours) {
			t.Errorf("%d workers give another archive than one", workers)
		}
	}
	if len(gnuDefects) == 0 && !bytes.Equal(packed(t, e, path("ours"), 2), ours) {
		t.Error("the tree unpacked from GNU tar's archive gives another archive")
	}
	file := scratch(t)
	_, err = file.Write(ours)
	check(t, err)
	back := func(name string, argv ...string) [5]string {
		in(t, e, nil, "mkdir", path(name)) // inner root's, whose times and owner the tools set
		_, err := file.Seek(0, 0)
		check(t, err)
		in(t, e, file, append(argv, "-C", path(name))...)
		return listings(t, e, path(name))
	}
	gnu := back("gnu", "tar", "--zstd", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "--warning=no-timestamp", "--delay-directory-restore", "-xpf", "-")
	compareLists(t, "extracted by GNU tar", want[0], gnu[0])
	for i, tool := range []string{"getfacl", "getcap", "getfattr", "mtree"} {
		if want[i+1] != gnu[i+1] {
			t.Errorf("extracted by GNU tar: %s tells something else", tool)
		}
	}
	bsd := back("bsd", "bsdtar", "--xattrs", "--acls", "--numeric-owner", "-xpf", "-")
	compareLists(t, "extracted by bsdtar", want[0], bsd[0], append(bsdDefects, defect{"b'.", "mtime", "bsdtar leaves the time of ./ alone"})...)
	for i, tool := range []string{"getfacl", "getcap"} {
		if want[i+1] != bsd[i+1] {
			t.Errorf("extracted by bsdtar: %s tells something else", tool)
		}
	}
	return ours
}

var (
	// GNU tar 1.34 writes hard links of regular files and symlinks only.
	gnuDefects = []defect{{"fifo", "inode of", "hard-linked fifo"}, {"fifo-2", "inode of", "hard-linked fifo"}}
	// libarchive 3.6.2 neither decodes %25 and %3D in xattr keys nor fractions of a second before 1970.
	bsdDefects = []defect{
		{"xattr", "xattr 'user.", "keys with = and %"},
		{"\\xc3\\xbcn\\xc3\\xafc\\xc3\\xb8d\\xc3\\xa9", "mtime", "half a second before 1970"},
	}
)

// TestOracles sends the tree of everything that is easily lost round GNU tar and bsdtar.
func TestOracles(t *testing.T) {
	e := usernstest.Ranges(t)[0]
	dir := filepath.Join(place(t, e.Env), "tree")
	usernstest.Build(t, e.Env, dir, noSockets(treetest.Oddities()))
	circle(t, e, dir, gnuDefects, bsdDefects)
}

// TestFormatsAreRead unpacks what other tools compress, and lists it as the tree.
func TestFormatsAreRead(t *testing.T) {
	e := usernstest.Ranges(t)[0]
	work := place(t, e.Env)
	dir := filepath.Join(work, "tree")
	usernstest.Build(t, e.Env, dir, noSockets(treetest.Random(51, 150)))
	plain := filepath.Join(work, "t.tar")
	_, err := Pack(t.Context(), e.Env, dir, plain, PackOptions{})
	check(t, err)
	kept := filepath.Join(work, "kept") // without the holes that are too short to keep
	unpacked(t, e, packed(t, e, dir, 2), kept)
	want := usernstest.Dump(t, e.Env, kept)
	for _, argv := range [][]string{{"cat"}, {"gzip", "-1"}, {"xz", "-0"}, {"bzip2", "-1"}, {"zstd", "-q", "-1"}, {"zstd", "-q", "--long=27", "--no-check"}} {
		tier.Program(t, argv[0])
		stdin, err := os.Open(plain)
		check(t, err)
		out := scratch(t)
		status, err := e.Exec(t.Context(), userns.Spec{Argv: argv, Stdin: stdin, Stdout: out})
		stdin.Close()
		if err != nil || status != 0 {
			t.Fatalf("%q: %d, %v", argv, status, err)
		}
		_, err = out.Seek(0, 0)
		check(t, err)
		to := filepath.Join(work, "copy")
		if _, err := Unpack(t.Context(), e.Env, out, to, UnpackOptions{}); err != nil {
			t.Fatalf("%q: %v", argv, err)
		}
		if d := treetest.Diff(want, usernstest.Dump(t, e.Env, to)); d != "" {
			t.Errorf("%q:\n%s", argv, d)
		}
		var sides [2][]listing.Node
		for i, p := range []string{out.Name(), to} {
			check(t, List(t.Context(), func() (*userns.Env, error) { return e.Env, nil }, p, ListOptions{}, func(n listing.Node) error {
				sides[i] = append(sides[i], n)
				return nil
			}))
		}
		check(t, archive.Compare(sides[0], sides[1], func(d archive.Difference) error {
			return fmt.Errorf("%q: %v", argv, d)
		}))
		_, err = Remove(t.Context(), e.Env, to, RemoveOptions{})
		check(t, err)
	}
}
