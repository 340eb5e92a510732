package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nsferry/nsferry/tier"
)

// faultSite is a directory with a rootfs that holds one image, and what deploy shall make of it in out/.
type faultSite struct {
	dir   string
	image []byte
}

func newFaultSite(t *testing.T) *faultSite {
	t.Helper()
	s := &faultSite{dir: t.TempDir(), image: bytes.Repeat([]byte("new "), 3<<18)} // three chunks
	for _, d := range []string{"rootfs", "out"} {
		if err := os.Mkdir(s.path(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(s.path("rootfs/img"), s.image, 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *faultSite) path(name string) string { return filepath.Join(s.dir, name) }

// traced runs deploy as the function does.
func (s *faultSite) traced(t *testing.T, inject string, args ...string) (ok bool, said string) {
	t.Helper()
	return traced(t, s.dir, inject, append([]string{"deploy"}, args...)...)
}

// traced runs nsferry in dir under strace(1), which injects a fault, and returns whether it succeeded and what it said.
func traced(t *testing.T, dir, inject string, args ...string) (ok bool, said string) {
	t.Helper()
	argv := append([]string{"-f", "-qq", "-o", "/dev/null", "-e", "trace=" + strings.Split(inject, ":")[0], "-e", "inject=" + inject,
		"nsferry", "--mode", "root"}, args...)
	cmd := exec.Command("strace", argv...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return err == nil, string(out)
}

// reset leaves nothing in out/, or an old image.
func (s *faultSite) reset(t *testing.T, old bool) {
	t.Helper()
	err := os.RemoveAll(s.path("out"))
	if err == nil {
		err = os.Mkdir(s.path("out"), 0o755)
	}
	if err == nil && old {
		err = os.WriteFile(s.path("out/img"), []byte("old"), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// intact demands that the image is old or new, that a link points to what is there, and that nothing else has a name that can be
// mistaken.
func (s *faultSite) intact(t *testing.T, old bool) (isNew bool) {
	t.Helper()
	got, err := os.ReadFile(s.path("out/img"))
	switch {
	case err == nil && bytes.Equal(got, s.image):
		isNew = true
	case err == nil && old && string(got) == "old", os.IsNotExist(err) && !old:
	default:
		t.Errorf("the image is neither old nor new: %d bytes, %v", len(got), err)
	}
	if _, err := os.Lstat(s.path("out/latest")); err == nil && !isNew {
		t.Error("the link is there before the image")
	}
	entries, err := os.ReadDir(s.path("out"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if n := e.Name(); n != "img" && n != "img.sha256" && n != "latest" && !strings.Contains(n, ".partial-") {
			t.Errorf("left: %s", n)
		}
	}
	return isNew
}

// sums tells whether the sum file is there and right.
func (s *faultSite) sums() bool {
	cmd := exec.Command("sha256sum", "--check", "--status", "img.sha256")
	cmd.Dir = s.path("out")
	return cmd.Run() == nil
}

var faultCalls = []string{"pwrite64", "pread64", "copy_file_range", "ftruncate", "fchmod", "utimensat", "fsync", "linkat", "renameat", "symlinkat", "lseek", "flock", "sendmsg", "recvmsg"}

// TestDeployFaultsCrash has each system call of a deployment fail, one after the other: the old image stays or the new one is whole, and
// a message names file and error.
func TestDeployFaultsCrash(t *testing.T) {
	tier.Root(t, "to trace without a namespace between")
	tier.Program(t, "strace", "sha256sum")
	s := newFaultSite(t)
	soaking := tier.Soaking(true, false)
	errnos := map[string]string{"EIO": syscall.EIO.Error(), "ENOSPC": syscall.ENOSPC.Error()}
	if soaking {
		errnos["EDQUOT"], errnos["EROFS"], errnos["ENOMEM"] = syscall.EDQUOT.Error(), syscall.EROFS.Error(), syscall.ENOMEM.Error()
	}
	failed := 0
	for _, call := range faultCalls {
		for errno, text := range errnos {
			for i := range 8 {
				old, long, when := i&1 > 0, i&2 > 0, 1+i>>2
				if soaking || old == long && errno == "EIO" { // every combination only when soaking
					failed += s.fail(t, call, errno, text, when, old, long)
				}
			}
		}
	}
	if failed < 20 {
		t.Errorf("only %d failures were made: the test shows nothing", failed)
	}
	t.Logf("%d failures", failed)
}

// fail has the when-th call of each thread fail, and returns 1 if that made deploy fail.
func (s *faultSite) fail(t *testing.T, call, errno, text string, when int, old, long bool) int {
	t.Helper()
	s.reset(t, old)
	args := []string{"--from", "rootfs", "img", "out/img"}
	if old {
		args = append(args, "--force")
	}
	if long {
		args = append(args, "--sha256", "--symlink", "latest")
	}
	ok, said := s.traced(t, fmt.Sprintf("%s:error=%s:when=%d", call, errno, when), args...)
	if strings.Contains(said, "shared libraries") {
		return 0 // a test binary with cgo, which did not come as far as our code
	}
	isNew := s.intact(t, old)
	switch {
	case ok && (!isNew || long && !s.sums()):
		t.Error("success, and not all is there")
	case !ok && (!strings.Contains(said, text) || !strings.Contains(said, "img") && !strings.Contains(said, "out")):
		t.Error("the message lacks file or error")
	// A file that replaced another one stays; what came after it failed.
	case !ok && isNew && !strings.Contains(said, "replaced already") && !strings.Contains(said, "fsync directory"):
		t.Error("the new image is there after a failure")
	}
	if t.Failed() {
		t.Fatalf("%s %s %d %v: %v", call, errno, when, args, said)
	}
	return map[bool]int{false: 1}[ok]
}

// TestDeployKilledCrash kills a deployment at each of its system calls: the old image stays or the new one is whole, the link never comes
// first, and the next deployment works and leaves no litter.
func TestDeployKilledCrash(t *testing.T) {
	tier.Root(t, "to trace without a namespace between")
	tier.Program(t, "strace", "sha256sum")
	s := newFaultSite(t)
	killed := 0
	for _, call := range faultCalls {
		for when := 1; when <= tier.Soaking(8, 2); when++ {
			for _, old := range tier.Soaking([]bool{false, true}, []bool{when == 1}) {
				s.reset(t, old)
				args := []string{"--from", "rootfs", "img", "out/img", "--force", "--sha256", "--symlink", "latest"}
				ok, said := s.traced(t, fmt.Sprintf("%s:signal=KILL:when=%d", call, when), args...)
				s.intact(t, old)
				if !ok {
					killed++
				}
				cmd := exec.Command("nsferry", append([]string{"--mode", "root", "deploy"}, args...)...)
				cmd.Dir = s.dir
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("the next one: %v: %s", err, out)
				}
				if entries, err := os.ReadDir(s.path("out")); err != nil || len(entries) != 3 || !s.intact(t, false) || !s.sums() {
					t.Errorf("the next one left %v, %v", entries, err)
				}
				if t.Failed() {
					t.Fatalf("%s %d, old %v: %v", call, when, old, said)
				}
			}
		}
	}
	if killed < 10 {
		t.Errorf("killed only %d times: the test shows nothing", killed)
	}
	t.Logf("killed %d times", killed)
}

// TestDeployToBadPlaces deploys to where there is no room, or nothing can be written, or that is on another filesystem.
func TestDeployToBadPlaces(t *testing.T) {
	tier.Root(t, "to mount")
	s := newFaultSite(t)
	for _, c := range []struct{ name, options, want string }{
		{"full", "size=1m", syscall.ENOSPC.Error()}, {"read-only", "ro", syscall.EROFS.Error()}, {"other", "size=8m", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.reset(t, false)
			cmd := exec.Command("unshare", "--mount", "sh", "-ec", `mount -t tmpfs -o "$1" tmpfs out
				if [ "$1" = size=1m ]; then echo old >out/img; fi
				code=0; "$2" --mode root deploy -f --from rootfs img out/img || code=$?
				if [ $code != 0 ]; then [ "$1" = ro ] || [ "$(cat out/img)" = old ]; else cmp out/img rootfs/img; fi
				[ "$(ls -A out)" = img ] || [ "$1" = ro ]
				exit $code`, "sh", c.options, "nsferry")
			cmd.Dir = s.dir
			out, err := cmd.CombinedOutput()
			if (err == nil) != (c.want == "") || !strings.Contains(string(out), c.want) || c.want != "" && !strings.Contains(string(out), "out") {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}
