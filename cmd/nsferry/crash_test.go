package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// crashSite is a directory in which commands are killed. Between rounds it holds source.tar, the tree that was unpacked from
// it, reference.tar.zst, the archive that was packed of that, and data, to be bound.
type crashSite struct {
	dir    string
	flags  []string // say how to get at foreign owners
	random *rand.Rand
	names  []string // what is in dir between rounds
	tree   string   // the tree's listing
	packed []byte   // the reference archive
}

// crashModes are the ways in: as an ordinary user; as root through a namespace with a range that nobody has, and directly.
func crashModes() map[string][]string {
	if os.Getuid() == 0 {
		return map[string][]string{"unshare": {"--mode", "unshare", "--map", "0:2600000000:65536"}, "root": {"--mode", "root"}}
	}
	return map[string][]string{"user": nil}
}

// TestCrash kills the outer process or anything below it, at random moments of each command. Soon nothing of the run may
// be left but litter under names that cannot be mistaken; the same command then works, and rm clears all.
func TestCrash(t *testing.T) {
	if !haveSubids() && os.Getuid() != 0 {
		scriptT{t}.Skip("needs sub-ids")
	}
	adoptOrphans(t)
	moments := 4 // of each of the commands
	if os.Getenv("SOAK") != "" {
		moments = 50
	}
	for mode, flags := range crashModes() {
		t.Run(mode, func(t *testing.T) {
			s := newCrashSite(t, flags)
			for _, c := range s.commands() {
				moments := moments
				if os.Getenv("SOAK") == "" && c.seldom {
					moments /= 2
				}
				t.Run(c.name, func(t *testing.T) { s.killAtRandom(t, c, moments) })
			}
		})
	}
}

// crashCommand is one that gets killed.
type crashCommand struct {
	name    string
	args    []string
	stdin   string
	prepare func(t *testing.T)                // before each round; may be nil
	check   func(t *testing.T, victim string) // after the kill
	whole   func(t *testing.T)                // after the same command has run undisturbed
	clear   [][]string                        // brings the directory back to its beginning
	seldom  bool                              // one round takes long
}

// directoryTime is the time in a directory's line.
var directoryTime = regexp.MustCompile(`(?m)^(dir .*) mtime=[0-9.]+`)

func (s *crashSite) commands() []crashCommand {
	orphaned := false // a janitor was killed, perhaps between taking a placeholder away and putting its directory's time back
	intact := func(t *testing.T) {
		t.Helper()
		before, after := s.tree, s.list(t)
		if orphaned {
			before, after = directoryTime.ReplaceAllString(before, "$1"), directoryTime.ReplaceAllString(after, "$1")
		}
		if d := cmp.Diff(before, after); d != "" {
			t.Errorf("the tree has changed (-before +after):\n%s", d)
		}
	}
	return []crashCommand{
		{name: "pack", args: []string{"pack", "tree", "-o", "out.tar.zst"},
			check: func(t *testing.T, _ string) { s.isPacked(t, nil) },
			whole: func(t *testing.T) { s.isPacked(t, nil) }, clear: [][]string{{"rm", "out.tar.zst"}}},
		{name: "pack over", args: []string{"pack", "--force", "tree", "-o", "out.tar.zst"},
			prepare: func(t *testing.T) {
				if err := os.WriteFile(s.path("out.tar.zst"), []byte("old"), 0o644); err != nil {
					t.Fatal(err)
				}
			},
			check: func(t *testing.T, _ string) { s.isPacked(t, []byte("old")) },
			whole: func(t *testing.T) { s.isPacked(t, nil) }, clear: [][]string{{"rm", "out.tar.zst"}}},
		{name: "convert over", args: []string{"convert", "--force", "source.tar", "-o", "out.tar.zst"},
			prepare: func(t *testing.T) {
				if err := os.WriteFile(s.path("out.tar.zst"), []byte("old"), 0o644); err != nil {
					t.Fatal(err)
				}
			},
			check: func(t *testing.T, _ string) { s.isPacked(t, []byte("old")) },
			whole: func(t *testing.T) { s.isPacked(t, nil) }, clear: [][]string{{"rm", "out.tar.zst"}}},
		{name: "unpack", args: []string{"unpack", "source.tar", "new"},
			check: func(t *testing.T, _ string) { s.isUnpacked(t) },
			whole: func(t *testing.T) { s.isUnpacked(t) }, clear: [][]string{{"rm", "new"}}},
		{name: "unpack, then rm", args: []string{"unpack", "reference.tar.zst", "new"},
			check: func(t *testing.T, _ string) { s.isUnpacked(t); s.ok(t, "rm", "-f", "new") },
			whole: func(t *testing.T) { s.isUnpacked(t) }, clear: [][]string{{"rm", "new"}}},
		{name: "refresh", args: []string{"unpack", "--refresh", "reference.tar.zst", "new"},
			prepare: func(t *testing.T) { // what is there, a partial tree perhaps, becomes another one
				s.ok(t, "unpack", "--refresh", "other.tar.zst", "new")
			},
			check: func(t *testing.T, _ string) { s.isOneOf(t, "new", "reference.tar.zst", "other.tar.zst") },
			whole: func(t *testing.T) { s.isOneOf(t, "new", "reference.tar.zst") }, clear: [][]string{{"rm", "new"}}},
		{name: "run", args: []string{"run", "--rootfs", "tree", "--bind", "data:/mnt/deep/data", "--bind", "source.tar:/srv/source.tar:ro", "--apt"},
			stdin: "echo 1 >/mnt/deep/data/x; sleep 60 & (setsid sleep 60 &); ls /dev /srv >/dev/null; sleep 0.03; rm /mnt/deep/data/x\n",
			check: func(t *testing.T, victim string) {
				if strings.Contains(victim, "janitor") { // who else should clean up then: the next run
					orphaned = true
					return
				}
				intact(t)
			},
			whole: intact, clear: [][]string{}},
		{name: "deploy", args: []string{"deploy", "-f", "--from", "tree", "bin/busybox", "new"},
			check: func(t *testing.T, _ string) { s.isDeployed(t, true) },
			whole: func(t *testing.T) { s.isDeployed(t, false) }, clear: [][]string{{"rm", "new"}}},
		{name: "hand over", args: []string{"deploy", "--archive", "--remove", "--force", "gone", "out.tar.zst"},
			prepare: func(t *testing.T) { s.ok(t, "unpack", "reference.tar.zst", "gone") },
			check: func(t *testing.T, _ string) {
				s.isPacked(t, nil)
				if _, err := os.Lstat(s.path("gone")); err == nil { // under its name the tree is whole
					s.ok(t, "diff", "reference.tar.zst", "gone")
				} else if _, err := os.Lstat(s.path("out.tar.zst")); err != nil {
					t.Error("neither tree nor archive is there")
				}
				s.ok(t, "unpack", "--refresh", "reference.tar.zst", "gone")
			},
			whole: func(t *testing.T) {
				s.isPacked(t, nil)
				if _, err := os.Lstat(s.path("gone")); err == nil {
					t.Error("the tree is still there")
				}
			}, clear: [][]string{{"rm", "out.tar.zst"}}},
		s.ephemeral("ephemeral run", nil),
		s.ephemeral("first ephemeral run", func(t *testing.T) { s.ok(t, "rm", "-f", "state/nsferry/ephemeral/masters") }),
		{name: "rm", args: []string{"rm", "-f", "gone"},
			prepare: func(t *testing.T) { s.ok(t, "unpack", "reference.tar.zst", "gone") },
			check:   func(*testing.T, string) {}, whole: func(*testing.T) {}, clear: [][]string{}},
	}
}

// ephemeral is a run over an archive that commits what it has changed. Whoever is killed but its keeper, no layer is left; the next
// run clears one that is; and the master is always what the archive says.
func (s *crashSite) ephemeral(name string, prepare func(*testing.T)) crashCommand {
	const runs = "state/nsferry/ephemeral/runs"
	var committed []byte
	layers := func(t *testing.T, most int) {
		left, err := filepath.Glob(s.path(runs + "/.*"))
		if err != nil || len(left) > most {
			t.Errorf("layers are left: %v, %v", left, err)
		}
		for _, dir := range left { // the outer process had made it, but no keeper yet
			if in, err := os.ReadDir(dir); err != nil || len(in) > 0 {
				t.Errorf("a layer with something in it is left: %v, %v", in, err)
			}
		}
	}
	whole := func(t *testing.T) {
		layers(t, 0)
		got, err := os.ReadFile(s.path("out.tar.zst"))
		if err != nil || committed != nil && !bytes.Equal(got, committed) {
			t.Errorf("what was committed is not the same again: %d bytes, %v", len(got), err)
		}
		committed = got
		for _, tree := range s.masters(t) {
			s.ok(t, "diff", tree, "reference.tar.zst")
		}
	}
	return crashCommand{name: name, seldom: true, prepare: prepare, whole: whole, clear: [][]string{{"rm", "out.tar.zst"}},
		args: []string{"run", "--rootfs", "reference.tar.zst", "--commit", "out.tar.zst", "--force", "--bind", "source.tar:/srv/deep/source.tar:ro"},
		// Without set -e a shell whose child is killed would go on, and what is committed would be another tree, rightly.
		stdin: "set -e; echo 1 >/usr/hard; rm -r /usr/d1 /usr/d2; mkdir /usr/d1; sleep 60 & (setsid sleep 60 &); sleep 0.03; touch -d @1600000000 /usr /usr/d1 /usr/hard\n",
		check: func(t *testing.T, victim string) {
			if !strings.Contains(victim, "janitor") {
				layers(t, 1)
			}
			if got, err := os.ReadFile(s.path("out.tar.zst")); err == nil && !bytes.Equal(got, committed) {
				t.Errorf("%d bytes were committed, which is neither nothing nor all", len(got))
			}
		}}
}

func (s *crashSite) path(name string) string { return filepath.Join(s.dir, name) }

// newCrashSite fills a directory.
func newCrashSite(t *testing.T, flags []string) *crashSite {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s := &crashSite{dir: t.TempDir(), flags: flags, random: rand.New(rand.NewPCG(seed, 0))}
	writeCrashArchive(t, s.path("source.tar"))
	if err := os.Mkdir(s.path("data"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(s.path("state"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(s.path("data"), 0o777); err != nil { // inner root writes there
		t.Fatal(err)
	}
	t.Cleanup(func() { s.ok(t, "rm", "-f", "tree", "state") })
	s.ok(t, "unpack", "source.tar", "tree")
	s.ok(t, "pack", "tree", "-o", "reference.tar.zst")
	s.ok(t, "diff", "tree", "source.tar")
	s.ok(t, "unpack", "source.tar", "other")
	s.ok(t, "run", "--rootfs", "other", "--", "sh", "-ec", `b="busybox"; cd /usr; rm -r d1 d2; $b mv d3 e3; $b chmod 700 d4 d5/*; rm d6/*
for i in 1 2 3 4 5 6 7 8 9; do echo $i >d7/n$i; done; $b mkdir d8/more; $b mv d9 d8/more; $b ln -s nowhere d9; rm hard; $b ln d0/f1 hard`)
	s.ok(t, "pack", "other", "-o", "other.tar.zst")
	s.ok(t, "rm", "other")
	var err error
	if s.packed, err = os.ReadFile(s.path("reference.tar.zst")); err != nil {
		t.Fatal(err)
	}
	s.tree, s.names = s.list(t), s.entries(t)
	return s
}

// writeCrashArchive makes an archive that takes some time: many small files of several owners, one big one, links, and
// a shell.
func writeCrashArchive(t *testing.T, path string) {
	t.Helper()
	box, err := exec.LookPath("busybox")
	if err != nil {
		scriptT{t}.Skip("needs a static busybox")
	}
	shell, err := os.ReadFile(box)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	add := func(h tar.Header, data []byte) {
		h.Size, h.ModTime, h.Format = int64(len(data)), time.Unix(1700000000, 0), tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{".", "bin", "etc", "etc/apt", "etc/apt/apt.conf.d", "usr", "usr/sbin", "srv"} {
		add(tar.Header{Name: d, Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	add(tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, shell)
	for _, name := range []string{"sh", "sleep", "setsid", "ls", "rm", "mkdir", "touch"} {
		add(tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, nil)
	}
	content := rand.New(rand.NewPCG(1, 2))
	for i := range 600 {
		if i%20 == 0 {
			add(tar.Header{Name: fmt.Sprintf("usr/d%d", i/20), Typeflag: tar.TypeDir, Mode: 0o755, Uid: i}, nil)
		}
		data := make([]byte, content.IntN(8000))
		for j := range data {
			data[j] = byte(content.Uint32() >> 28)
		}
		add(tar.Header{Name: fmt.Sprintf("usr/d%d/f%d", i/20, i), Typeflag: tar.TypeReg, Mode: 0o644, Uid: i % 7, Gid: 65534 - i}, data)
	}
	add(tar.Header{Name: "usr/hard", Typeflag: tar.TypeLink, Linkname: "usr/d0/f0"}, nil)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// command prepares nsferry with the site's flags, in its directory and in a session of its own.
func (s *crashSite) command(stdin string, args ...string) *exec.Cmd {
	cmd := exec.Command("nsferry", append(append([]string{}, s.flags...), args...)...)
	cmd.Dir, cmd.Stdin = s.dir, strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+s.path("state"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

// ok runs a command that has to succeed and returns its output.
func (s *crashSite) ok(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := s.command("", args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("nsferry %q: %v\n%s%s", args, err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

func (s *crashSite) list(t *testing.T) string { return s.ok(t, "ls", "tree") }

func (s *crashSite) entries(t *testing.T) (names []string) {
	t.Helper()
	all, err := os.ReadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}

// isPacked demands that the output is not there, holds what it did before, or is whole.
func (s *crashSite) isPacked(t *testing.T, before []byte) {
	t.Helper()
	got, err := os.ReadFile(s.path("out.tar.zst"))
	if errors.Is(err, os.ErrNotExist) && before == nil {
		return
	}
	if err != nil || !bytes.Equal(got, s.packed) && (before == nil || !bytes.Equal(got, before)) {
		t.Errorf("the archive is neither old nor whole: %d bytes, %v", len(got), err)
	}
}

// isOneOf demands that the tree is not there or is that of one of the archives.
func (s *crashSite) isOneOf(t *testing.T, tree string, archives ...string) {
	t.Helper()
	if _, err := os.Lstat(s.path(tree)); err != nil {
		return
	}
	var said []byte
	for _, a := range archives {
		out, err := s.command("", "diff", a, tree).CombinedOutput()
		if err == nil {
			return
		}
		said = append(said, out...)
	}
	t.Errorf("%s is none of %q:\n%.2000s", tree, archives, said)
}

// isDeployed demands that the output is whole or, if that may be, not there.
func (s *crashSite) isDeployed(t *testing.T, orNot bool) {
	t.Helper()
	got, err := os.ReadFile(s.path("new"))
	if orNot && errors.Is(err, os.ErrNotExist) {
		return
	}
	box, lerr := exec.LookPath("busybox")
	want, rerr := os.ReadFile(box)
	if err := errors.Join(err, lerr, rerr); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the output is not whole: %d bytes of %d, %v", len(got), len(want), err)
	}
}

// isUnpacked demands that the tree is not there or whole.
func (s *crashSite) isUnpacked(t *testing.T) {
	t.Helper()
	if _, err := os.Lstat(s.path("new")); err == nil {
		s.ok(t, "diff", "source.tar", "new")
	}
}
