package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/nsferry/nsferry/tier"
)

// archiveSite is a directory with a tree, archives of it, and out/, where a command is to make out/new.tar.zst.
type archiveSite struct {
	dir  string
	want []byte // the tree as an archive
}

func newArchiveSite(t *testing.T) *archiveSite {
	t.Helper()
	s := &archiveSite{dir: t.TempDir()}
	content := rand.New(rand.NewPCG(5, 0))
	if err := os.MkdirAll(s.path("master/d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 24 { // some frames, and one file that is spread over several
		data := make([]byte, 200_000)
		if i == 0 {
			data = make([]byte, 6<<20)
		}
		for j := range data {
			data[j] = byte(content.Uint32() >> 28)
		}
		if err := os.WriteFile(s.path(fmt.Sprintf("master/d/f%d", i)), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s.sh(t, `find master -exec touch -d @1700000000 {} +
		cp -a master tree; mkdir out object
		tar -C master -cf object/rootfs.tar .; gzip -1 <object/rootfs.tar >in.tar.gz
		tar -C object -c . | pzstd -q -1 -o object.tar.zst
		nsferry -q --mode root pack master -o in.tar.zst; nsferry -q convert in.tar.zst --target sbuild -o want.tar.zst`)
	var err error
	if s.want, err = os.ReadFile(s.path("want.tar.zst")); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *archiveSite) path(name string) string { return filepath.Join(s.dir, name) }

func (s *archiveSite) sh(t *testing.T, script string) {
	t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = s.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
}

// archiveCommands make the archive. The first copies frames; the next reads frames in any order; the third keeps the tar
// stream in a file; the last takes the tree away.
var archiveCommands = map[string][]string{
	"own":       {"convert", "in.tar.zst"},
	"object":    {"convert", "object.tar.zst", "--member", "rootfs.tar"},
	"gzip":      {"convert", "in.tar.gz"},
	"hand over": {"deploy", "--archive", "--remove"},
}

// arguments complete a command.
func arguments(how string, old bool) []string {
	args := append([]string{"-q"}, archiveCommands[how]...)
	if old {
		args = append(args, "--force")
	}
	args = append(args, "--target", "sbuild")
	if how == "hand over" {
		return append(args, "tree", "out/new.tar.zst")
	}
	return append(args, "-o", "out/new.tar.zst")
}

// reset leaves nothing in out/, or an old archive, and a whole tree.
func (s *archiveSite) reset(t *testing.T, old bool) {
	t.Helper()
	script := "rm -rf out .tree.partial-*; mkdir out; [ -e tree ] || cp -a master tree"
	if old {
		script += "; echo old >out/new.tar.zst"
	}
	s.sh(t, script)
}

// intact demands that the archive is old or new, that nothing else is in out/, and that the tree is whole as long as it has its
// name and the archive is not there.
func (s *archiveSite) intact(t *testing.T, how string, old bool) (isNew bool) {
	t.Helper()
	got, err := os.ReadFile(s.path("out/new.tar.zst"))
	switch {
	case err == nil && bytes.Equal(got, s.want):
		isNew = true
	case err == nil && old && string(got) == "old\n", os.IsNotExist(err) && !old:
	default:
		t.Errorf("the archive is neither old nor new: %d bytes, %v", len(got), err)
	}
	if _, err := os.Lstat(s.path("tree")); err == nil {
		if how == "hand over" {
			s.sh(t, "diff -r master tree")
		}
	} else if !isNew {
		t.Error("neither tree nor archive is there")
	}
	entries, err := os.ReadDir(s.path("out"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if n := e.Name(); n != "new.tar.zst" && !strings.Contains(n, ".partial-") {
			t.Errorf("left: %s", n)
		}
	}
	return isNew
}

// TestArchiveFaultsCrash has each system call of a command that makes an archive fail, one after the other: the old archive stays or the
// new one is whole, no tree is lost, and a message names file and error.
func TestArchiveFaultsCrash(t *testing.T) {
	tier.Root(t, "to trace without a namespace between")
	tier.Program(t, "strace", "pzstd")
	s := newArchiveSite(t)
	errnos := map[string]string{"EIO": syscall.EIO.Error()}
	if tier.Soaking(true, false) {
		errnos["ENOSPC"], errnos["EDQUOT"] = syscall.ENOSPC.Error(), syscall.EDQUOT.Error()
	}
	for how := range archiveCommands {
		t.Run(how, func(t *testing.T) {
			failed := 0
			for _, call := range []string{"write", "pwrite64", "pread64", "copy_file_range", "ftruncate", "fchmod", "fsync", "linkat", "renameat", "unlinkat", "lseek"} {
				times := tier.Soaking(4, 2)
				if call == "write" {
					times = tier.Soaking(12, 2) // of the frames, and more
				}
				for errno, text := range errnos {
					for when := 1; when <= times; when++ {
						for _, old := range tier.Soaking([]bool{false, true}, []bool{when == 1}) {
							failed += s.fail(t, how, call, errno, text, when, old)
						}
					}
				}
			}
			if failed < 6 {
				t.Errorf("only %d failures were made: the test shows nothing", failed)
			}
			t.Logf("%d failures", failed)
		})
	}
}

// fail has the when-th call of each thread fail, and returns 1 if that made the command fail.
func (s *archiveSite) fail(t *testing.T, how, call, errno, text string, when int, old bool) int {
	t.Helper()
	s.reset(t, old)
	ok, said := traced(t, s.dir, fmt.Sprintf("%s:error=%s:when=%d", call, errno, when), arguments(how, old)...)
	if strings.Contains(said, "shared libraries") || strings.Contains(said, "netpollBreak") {
		return 0 // a test binary with cgo, which did not come as far as our code; a write of Go's own
	}
	isNew := s.intact(t, how, old)
	_, err := os.Lstat(s.path("tree"))
	switch {
	case ok && (!isNew || how == "hand over" && err == nil):
		t.Error("success, and not all is done")
	case !ok && said == "" && call == "write": // it was the message that could not be written
	case !ok && (!strings.Contains(said, text) || !regexp.MustCompile(`out/|in\.tar|object|tree`).MatchString(said)):
		t.Error("the message lacks file or error")
	case !ok && isNew && how != "hand over" && !strings.Contains(said, "fsync directory"):
		t.Error("the new archive is there after a failure")
	}
	if t.Failed() {
		t.Fatalf("%s: %s %s %d, old %v: %v", how, call, errno, when, old, said)
	}
	return map[bool]int{false: 1}[ok]
}

// TestArchiveToBadPlacesCrash makes archives where there is no room for the first, middle or last bytes, or nothing can be written.
func TestArchiveToBadPlacesCrash(t *testing.T) {
	tier.Root(t, "to mount")
	tier.Program(t, "pzstd")
	s := newArchiveSite(t)
	sizes := []string{"size=16k", "size=1m", fmt.Sprintf("size=%d", len(s.want)/2), fmt.Sprintf("size=%d", len(s.want)-4096)}
	for kib := 64; tier.Soaking(true, false) && kib < len(s.want)>>10; kib += 64 {
		sizes = append(sizes, fmt.Sprintf("size=%dk", kib))
	}
	for how := range archiveCommands {
		for _, options := range append(sizes, "ro", "size=64m") {
			s.reset(t, false)
			cmd := exec.Command("unshare", append([]string{"--mount", "sh", "-c", `set -e
				mount -t tmpfs -o "$1" tmpfs out; shift
				echo old >out/new.tar.zst || :
				code=0; "$@" || code=$?
				if [ $code != 0 ]; then [ ! -e out/new.tar.zst ] || [ "$(cat out/new.tar.zst)" = old ]; else cmp out/new.tar.zst want.tar.zst; fi
				[ "$(ls -A out)" = new.tar.zst ] || [ ! -s out/new.tar.zst ]
				if [ $code != 0 ]; then diff -r master tree; fi
				exit $code`, "sh", options, "nsferry", "--mode", "root"}, arguments(how, true)...)...)
			cmd.Dir = s.dir
			out, err := cmd.CombinedOutput()
			text, known := map[string]string{"ro": syscall.EROFS.Error(), "size=64m": ""}[options]
			if !known {
				text = syscall.ENOSPC.Error()
			}
			place := "out/new.tar.zst"
			if how == "gzip" && !known {
				place = "kept on the filesystem of out"
			}
			if (err == nil) != (text == "") || !strings.Contains(string(out), text) || text != "" && !strings.Contains(string(out), place) {
				t.Errorf("%s, %s: %v: %s", how, options, err, out)
			}
		}
	}
}

// TestHandOverOrder: the tree loses its name when the archive has its own, and both the archive and that are on the disk.
func TestHandOverOrder(t *testing.T) {
	tier.Root(t, "to trace without a namespace between")
	tier.Program(t, "strace", "pzstd")
	s := newArchiveSite(t)
	argv := append([]string{"-f", "-qq", "-y", "-o", "log", "-e", "signal=none", "-e", "trace=fsync,linkat,renameat,renameat2,unlinkat", "nsferry", "--mode", "root"}, arguments("hand over", false)...)
	cmd := exec.Command("strace", argv...)
	cmd.Dir = s.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	log, err := os.ReadFile(s.path("log"))
	if err != nil {
		t.Fatal(err)
	}
	rest := string(log)
	for _, step := range []string{
		`fsync\(\d+<[^>]*/out/[^>]*>.*\) += 0`, `linkat\(.*"new\.tar\.zst".* = 0`, `fsync\(\d+<[^>]*/out>\) += 0`, `renameat2?\(.*"tree", .*"\.tree\.partial-.* = 0`, `unlinkat\(`,
	} {
		at := regexp.MustCompile(step).FindStringIndex(rest)
		if at == nil {
			t.Fatalf("no %s in time:\n%s", step, log)
		}
		if strings.Contains(rest[:at[0]], "unlinkat(") {
			t.Errorf("something was removed before %s:\n%s", step, log)
		}
		rest = rest[at[1]:]
	}
}
