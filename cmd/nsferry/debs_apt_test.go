package main

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/nsferry/nsferry/sstate/debs"
	"github.com/nsferry/nsferry/tier"
)

// debProxy is an HTTP proxy on the loopback that counts the debs that go through it.
type debProxy struct {
	address string
	mu      sync.Mutex
	debs    int
}

func newDebProxy(t *testing.T) *debProxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p := &debProxy{address: "http://" + l.Addr().String()}
	s := &http.Server{Handler: p}
	go s.Serve(l) // until Close
	t.Cleanup(func() { s.Close() })
	return p
}

// ServeHTTP passes a request on.
func (p *debProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, ".deb") {
		p.mu.Lock()
		p.debs++
		p.mu.Unlock()
	}
	r.RequestURI = ""
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	for k, v := range resp.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body) // who went away has noticed
}

// taken returns how many debs were asked for since the last call.
func (p *debProxy) taken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.debs
	p.debs = 0
	return n
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// debSite is a directory of an ordinary user's, which inner root can reach by path.
type debSite struct{ dir, nsferry string }

func newDebSite(t *testing.T) *debSite {
	t.Helper()
	dir, err := os.MkdirTemp("", "nsferry-debs")
	must(t, err)
	must(t, os.Chmod(dir, 0o777))
	s := &debSite{dir, filepath.Join(dir, "nsferry")}
	self, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	must(t, os.WriteFile(s.nsferry, self, 0o755)) // under this name the test binary is nsferry, see TestMain
	must(t, os.Chmod(s.nsferry, 0o755))
	must(t, os.Mkdir(s.path("cache"), 0o700)) // the hooks inherit the variable, and may not write there
	t.Setenv("XDG_CACHE_HOME", s.path("cache"))
	t.Cleanup(func() {
		for _, name := range []string{"online", "offline", "stage"} {
			_ = exec.Command(s.nsferry, "rm", "--force", s.path(name)).Run() // RemoveAll says what is left
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *debSite) path(name string) string { return filepath.Join(s.dir, name) }

// try runs nsferry.
func (s *debSite) try(args ...string) (string, error) {
	out, err := exec.Command(s.nsferry, args...).CombinedOutput()
	return string(out), err
}

func (s *debSite) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := s.try(args...)
	if err != nil {
		t.Fatalf("nsferry %q: %v\n%s", args, err, out)
	}
	return out
}

// result runs nsferry and reads the result out of its JSON.
func result[R any](t *testing.T, s *debSite, args ...string) (r R) {
	t.Helper()
	cmd := exec.Command(s.nsferry, append([]string{"--json"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	var report struct{ Result *R }
	report.Result = &r
	if err != nil || json.Unmarshal(out, &report) != nil {
		t.Fatalf("nsferry %q: %v\n%s", args, err, out)
	}
	return r
}

// apt is the command line of apt-get in a rootfs, by a proxy.
func (s *debSite) apt(root, proxy string, args ...string) []string {
	return append([]string{"run", "--rootfs", s.path(root), "--apt", "--clean-env", "--env", "DEBIAN_FRONTEND=noninteractive", "--",
		"apt-get", "-q", "-y", "-oAcquire::http::Proxy=" + proxy, "-oAPT::Update::Error-Mode=any", "-oDpkg::Options::=--force-unsafe-io"}, args...)
}

// TestDebsAptSoak is the whole way with real apt and a real mirror: what one rootfs downloads, another one installs with the network cut off.
func TestDebsAptSoak(t *testing.T) {
	tier.User(t, "is about an ordinary user")
	packages := tier.Soaking([]string{"git", "python3", "vim", "build-essential"}, []string{"hello", "less"})
	least := tier.Soaking(60, 2)
	s, p := newDebSite(t), newDebProxy(t)
	tarball := tier.Debian(t, "minbase", "--variant=minbase")
	dl := s.path("dl")
	s.run(t, "unpack", tarball, s.path("online"))
	s.run(t, "debs", "import", dl, s.path("online"))
	s.run(t, s.apt("online", p.address, "update")...)
	s.run(t, s.apt("online", p.address, append([]string{"install", "--download-only"}, packages...)...)...)
	sum := result[debs.Exported](t, s, "debs", "export", "--unlisted=fail", s.path("online"), dl)
	if n := p.taken(); n < least || sum.Copied != n {
		t.Errorf("downloaded %d, export %+v", n, sum)
	}
	if v := result[debs.Verified](t, s, "debs", "verify", "--lists", s.path("online"), dl); v.Right != sum.Copied {
		t.Errorf("verify: %+v", v)
	}

	s.run(t, "unpack", tarball, s.path("offline"))
	const lists = "/var/lib/apt/lists"
	s.run(t, "run", "--", "sh", "-c", `cp "$1"/*_* "$2"`, "sh", s.path("online")+lists, s.path("offline")+lists)
	const nowhere = "http://127.0.0.1:9"
	install := s.apt("offline", nowhere, append([]string{"install"}, packages...)...)
	if out, err := s.try(install...); err == nil {
		t.Fatalf("apt has found a way past the proxy\n%s", out)
	}
	if got := result[debs.Imported](t, s, "debs", "import", dl, s.path("offline")); got.Brought != sum.Copied {
		t.Errorf("import: %+v", got)
	}
	s.run(t, install...)
	if out := s.run(t, "run", "--rootfs", s.path("offline"), "--", "dpkg", "--audit"); out != "" {
		t.Errorf("dpkg --audit: %s", out)
	}
	s.run(t, "run", "--rootfs", s.path("offline"), "--", packages[0], "--version")
	t.Logf("%d debs, %d bytes", sum.Copied, sum.Bytes)
}

// TestDebsMmdebstrapSoak builds twice with the hooks of contrib: the second time nothing is downloaded, and the trees are the same.
func TestDebsMmdebstrapSoak(t *testing.T) {
	tier.User(t, "is about an ordinary user")
	tier.Program(t, "mmdebstrap")
	s, p := newDebSite(t), newDebProxy(t)
	must(t, os.CopyFS(s.path("hooks"), os.DirFS("../../contrib/mmdebstrap/hooks")))
	must(t, exec.Command("chmod", "-R", "go+rX", s.path("hooks")).Run())
	variant := tier.Soaking("--variant=minbase", "--variant=extract")
	stage, dl := s.path("stage"), s.path("dl")
	mmdebstrap := func(out, nsferry string) ([]byte, error) {
		cmd := exec.Command("mmdebstrap", "--quiet", variant, "--include=hello", `--aptopt=Acquire::http::Proxy "`+p.address+`"`, "--hook-dir="+s.path("hooks"), "bookworm", s.path(out))
		cmd.Env = append(os.Environ(), "TMPDIR="+s.dir, "NSFERRY_STAGE="+stage, "NSFERRY="+nsferry, "SOURCE_DATE_EPOCH=1700000000")
		return cmd.CombinedOutput()
	}
	build := func(out string) int {
		s.run(t, "debs", "stage", dl, stage)
		if said, err := mmdebstrap(out, s.nsferry); err != nil {
			t.Fatalf("mmdebstrap: %v\n%s", err, said)
		}
		s.run(t, "debs", "unstage", "--unlisted=fail", stage, dl)
		if _, err := os.Lstat(stage); !os.IsNotExist(err) {
			t.Errorf("the stage is still there: %v", err)
		}
		return p.taken()
	}
	first := build("first.tar")
	cached, err := os.ReadDir(dl)
	if err != nil || first == 0 || len(cached) != first {
		t.Errorf("downloaded %d, cached %d, %v", first, len(cached), err)
	}
	if again := build("second.tar"); again != 0 {
		t.Errorf("downloaded %d debs again", again)
	}
	if said, err := exec.Command("cmp", s.path("first.tar"), s.path("second.tar")).CombinedOutput(); err != nil {
		t.Errorf("the trees differ: %s", said)
	}
	// A copy-in that fails ends the build, and nothing is downloaded in its place.
	if said, err := mmdebstrap("third.tar", "/bin/false"); err == nil {
		t.Errorf("a failed copy-in was no error\n%s", said)
	}
	if n := p.taken(); n != 0 {
		t.Errorf("after a failed copy-in %d debs were downloaded", n)
	}
	t.Logf("%d debs", first)
}
