package debs

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/idshift/userns/usernstest"
	"github.com/nsferry/nsferry/tier"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ways are the models, and for root himself as well, with a map and without.
func ways(t testing.TB) []usernstest.Way {
	t.Helper()
	all := usernstest.Models(t)
	if os.Geteuid() == 0 {
		all = append(all[1:], all[0], usernstest.New(t, "root with a map", userns.Options{Mode: "root", Map: "0:300000:65536"}))
	}
	return all
}

// world is a DL, a rootfs of e's and a directory around them that inner root may walk.
type world struct {
	testing.TB
	env      usernstest.Way
	dir      string
	root, dl string
}

func newWorld(t testing.TB, e usernstest.Way) *world {
	t.Helper()
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	dir, err := os.MkdirTemp("", "nsferry-debs")
	check(t, err)
	check(t, os.Chmod(dir, 0o777))
	t.Cleanup(func() {
		if _, err := ferry.Remove(context.Background(), e.Env, dir, ferry.RemoveOptions{Force: true}); err != nil {
			t.Error(err)
		}
	})
	w := &world{TB: t, env: e, dir: dir, dl: filepath.Join(dir, "dl")}
	w.newRoot("root")
	return w
}

// newRoot makes another rootfs, in which inner root may write.
func (w *world) newRoot(name string) {
	w.Helper()
	w.root = filepath.Join(w.dir, name)
	check(w, os.Mkdir(w.root, 0o755))
	check(w, os.Chmod(w.root, 0o777))
}

// archives is the path of apt's archives in the rootfs.
func (w *world) archives() string { return filepath.Join(w.root, aptArchives) }

// inside runs a command as inner root in the plain map, as foreign code would be.
func (w *world) inside(argv ...string) string {
	w.Helper()
	out, err := w.tryInside(argv...)
	if err != nil {
		w.Fatalf("%q: %v\n%s", argv, err, out)
	}
	return out
}

func (w *world) tryInside(argv ...string) (string, error) {
	w.Helper()
	e := w.env.Env
	if e.Direct && !e.Arithmetic() {
		out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
		return string(out), err
	}
	if e.Arithmetic() { // what has to be shifted is done by the ids of the map
		uid, _ := e.Plain.UID.ToOutside(0)
		gid, _ := e.Plain.GID.ToOutside(0)
		argv = append([]string{"setpriv", fmt.Sprintf("--reuid=%d", uid), fmt.Sprintf("--regid=%d", gid), "--clear-groups"}, argv...)
		out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
		return string(out), err
	}
	f, err := os.CreateTemp(w.TempDir(), "out")
	check(w, err)
	defer f.Close()
	status, err := e.Exec(context.Background(), userns.Spec{Argv: argv, Stdout: f, Stderr: f})
	check(w, err)
	b, err := os.ReadFile(f.Name())
	check(w, err)
	if status != 0 {
		err = fmt.Errorf("exit status %d", status)
	}
	return string(b), err
}

// put writes a file into the archives as inner root, mode included.
func (w *world) put(name string, data []byte, mode os.FileMode) {
	w.Helper()
	from := filepath.Join(w.dir, "put")
	check(w, os.WriteFile(from, data, 0o644))
	w.inside("sh", "-c", `mkdir -p "$(dirname "$2")"; rm -f "$2"; cat "$1" >"$2" && chmod "$3" "$2"`, "put", from, filepath.Join(w.archives(), name), fmt.Sprintf("%o", mode))
}

// lists writes a Packages file into the rootfs that knows these debs.
func (w *world) lists(known ...sample) {
	w.Helper()
	w.rootfsFile("var/lib/apt/lists/test_dists_x_main_binary-amd64_Packages", []byte(packages(known...)))
}

// rootfsFile writes a file into the rootfs as inner root.
func (w *world) rootfsFile(name string, data []byte) {
	w.Helper()
	from := filepath.Join(w.dir, "put")
	check(w, os.WriteFile(from, data, 0o644))
	w.inside("sh", "-c", `mkdir -p "$(dirname "$2")"; cat "$1" >"$2"`, "put", from, filepath.Join(w.root, name))
}

func packages(known ...sample) string {
	var b strings.Builder
	for _, s := range known {
		fmt.Fprintf(&b, "Package: %s\nArchitecture: %s\nVersion: %s\nFilename: pool/x.deb\nSize: %d\nSHA256: %x\nDescription: x\n more\n\n", s.Name, s.Arch, s.Version, len(s.data), sha256.Sum256(s.data))
	}
	return b.String()
}

func (w *world) export(o ExportOptions) Exported {
	w.Helper()
	sum, err := Export(w.Context(), w.env.Lazy, w.root, w.dl, o)
	check(w, err)
	return sum
}

func (w *world) imp(o ImportOptions) Imported {
	w.Helper()
	sum, err := Import(w.Context(), w.env.Lazy, w.dl, w.root, o)
	check(w, err)
	return sum
}

// seed puts debs into DL.
func (w *world) seed(all ...sample) {
	w.Helper()
	check(w, os.MkdirAll(w.dl, 0o755))
	for _, s := range all {
		check(w, os.WriteFile(filepath.Join(w.dl, s.FileName()), s.data, 0o644))
	}
}

// cached returns the names in DL.
func (w *world) cached() []string {
	w.Helper()
	entries, err := os.ReadDir(w.dl)
	check(w, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// sample is a deb that dpkg-deb has made.
type sample struct {
	Package
	data []byte
}

var sampleSet struct {
	sync.Mutex
	made map[Package]sample
}

// deb returns the package, made by dpkg-deb with a payload.
func deb(t testing.TB, name, version, arch string) sample {
	t.Helper()
	tier.Program(t, "dpkg-deb")
	sampleSet.Lock()
	defer sampleSet.Unlock()
	p := Package{name, version, arch}
	if s, ok := sampleSet.made[p]; ok {
		return s
	}
	s := sample{p, buildDeb(t, p, strings.Repeat(p.String()+"\n", 3000))}
	if sampleSet.made == nil {
		sampleSet.made = map[Package]sample{}
	}
	sampleSet.made[p] = s
	return s
}

func buildDeb(t testing.TB, p Package, payload string, flags ...string) []byte {
	t.Helper()
	dir := t.TempDir()
	check(t, os.MkdirAll(filepath.Join(dir, "x/DEBIAN"), 0o755))
	check(t, os.WriteFile(filepath.Join(dir, "x/DEBIAN/control"), fmt.Appendf(nil, "Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: a <a@b>\nDescription: d\n", p.Name, p.Version, p.Arch), 0o644))
	check(t, os.WriteFile(filepath.Join(dir, "x/payload"), []byte(payload), 0o644))
	argv := append(append([]string{"--root-owner-group"}, flags...), "--build", filepath.Join(dir, "x"), filepath.Join(dir, "x.deb"))
	out, err := exec.Command("dpkg-deb", argv...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data, err := os.ReadFile(filepath.Join(dir, "x.deb"))
	check(t, err)
	return data
}

// settled waits until a change of a file made before shows in its ctime.
func settled() { time.Sleep(12 * time.Millisecond) }
