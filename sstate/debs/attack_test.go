package debs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nsferry/nsferry/tier"
)

// poison is a process inside that does to the debs of a directory whatever its rights allow, for a while, and now and then puts
// the right ones back.
const poison = `
import mmap, os, random, shutil, subprocess, sys, time
good, seconds = sys.argv[2], float(sys.argv[3])
os.chdir(sys.argv[1])
end = time.time() + seconds
def write(n):
    with open(n, 'r+b') as f: f.seek(random.randrange(400)); f.write(b'POISON')
def mapped(n):
    with open(n, 'r+b') as f:
        m = mmap.mmap(f.fileno(), 0); m[100:106] = b'POISON'; m.flush(); m.close()
def relink(n):
    os.link(n, n + '.other'); write(n + '.other'); os.unlink(n + '.other')
def swap(n):
    os.rename(n, n + '.away'); os.symlink('/etc/passwd', n); os.unlink(n); os.rename(n + '.away', n)
def restore(n):
    shutil.copy(os.path.join(good, n), n + '.new'); os.rename(n + '.new', n)
acts = [write, mapped, relink, swap, restore, restore, lambda n: os.truncate(n, 10), lambda n: os.chmod(n, 0o666), lambda n: os.chmod(n, 0),
    lambda n: os.utime(n, (1, 1)), lambda n: os.setxattr(n, 'user.poison', b'1'), lambda n: os.chown(n, 1, 1), lambda n: os.unlink(n),
    lambda n: subprocess.run(['setfacl', '-m', 'o::rwx,u:0:rwx', n], stderr=subprocess.DEVNULL)]
names = os.listdir(good)
while time.time() < end:
    try: random.choice(acts)(random.choice(names))
    except (OSError, ValueError, IndexError): pass
for n in names:
    try: restore(n)
    except OSError: pass
`

// state is all of a file that must not change: bytes, mode, owner, size, mtime, attributes.
func state(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	check(t, err)
	st, err := os.Lstat(path)
	check(t, err)
	sys := st.Sys().(*syscall.Stat_t)
	attrs, err := exec.Command("getfattr", "-d", "-m", "-", "-e", "hex", "--absolute-names", path).CombinedOutput()
	check(t, err)
	return fmt.Sprintf("%d:%d %v %v %d\n%s%q", sys.Uid, sys.Gid, st.Mode(), st.ModTime(), sys.Ino, attrs, data)
}

// TestPoisonSoak: whatever an inner process does to debs while and after they are exported and imported, nothing in the cache changes, and
// nothing gets there that is not right.
func TestPoisonSoak(t *testing.T) {
	tier.Program(t, "python3", "setfacl", "getfattr")
	all := []sample{deb(t, "alpha", "1", "amd64"), deb(t, "beta", "1", "all"), deb(t, "gamma", "1", "all")}
	seconds := tier.Soaking("20", "1")
	for _, e := range ways(t) {
		if e.Direct {
			continue // foreign code is as mighty as the caller
		}
		t.Run(e.Name, func(t *testing.T) {
			w := newWorld(t, e)
			w.lists(all...)
			good := filepath.Join(w.dir, "good")
			check(t, os.Mkdir(good, 0o755))
			for _, s := range all {
				check(t, os.WriteFile(filepath.Join(good, s.FileName()), s.data, 0o644))
				w.put(s.FileName(), s.data, 0o644)
			}
			exported := w.whilePoisoned(good, seconds, func() {
				check(t, os.RemoveAll(w.dl))
				_, err := Export(t.Context(), e.Lazy, w.root, w.dl, ExportOptions{})
				var r *RefusedError
				if err != nil && !errors.As(err, &r) {
					t.Error(err)
				}
				if _, err := os.Stat(w.dl); err == nil {
					w.wholeOrAbsent(all)
				}
			})
			settled()
			w.export(ExportOptions{})
			before := map[string]string{}
			for _, s := range all {
				w.ours(s)
				before[s.FileName()] = state(t, filepath.Join(w.dl, s.FileName()))
			}
			imported := w.whilePoisoned(good, seconds, func() {
				_, err := Import(t.Context(), e.Lazy, w.dl, w.root, ImportOptions{Mode: ModeACL})
				var r *RefusedError
				if err != nil && !errors.As(err, &r) {
					t.Error(err)
				}
			})
			for name, want := range before {
				if got := state(t, filepath.Join(w.dl, name)); got != want {
					t.Errorf("%s changed: %.300s\nwas %.300s", name, got, want)
				}
			}
			t.Logf("%d exports and %d imports", exported, imported)
		})
	}
}

// whilePoisoned calls f again and again while the poisoner works.
func (w *world) whilePoisoned(good, seconds string, f func()) (n int) {
	w.Helper()
	done := make(chan string)
	go func() {
		out, err := w.tryInside("python3", "-c", poison, w.archives(), good, seconds)
		if err != nil {
			out += err.Error()
		}
		done <- out
	}()
	for {
		select {
		case out := <-done:
			if out != "" {
				w.Errorf("the poisoner: %s", out)
			}
			return n
		default:
			f()
			n++
		}
	}
}

// wholeOrAbsent checks that the cache has nothing but whole debs.
func (w *world) wholeOrAbsent(all []sample) {
	w.Helper()
	right := map[string][]byte{}
	for _, s := range all {
		right[s.FileName()] = s.data
	}
	for _, name := range w.cached() {
		data, err := os.ReadFile(filepath.Join(w.dl, name))
		check(w, err)
		if want, ok := right[name]; !ok || !bytes.Equal(data, want) {
			w.Errorf("in the cache: %s with %d bytes", name, len(data))
		}
	}
}

// TestPlanted: a third user plants in the archives, which are open to all, what should lead export astray. All is refused by name, nothing is
// followed, nothing hangs, and right debs are exported all the same.
func TestPlanted(t *testing.T) {
	tier.Root(t, "acts as a third user")
	tier.Program(t, "python3", "setpriv")
	good := deb(t, "good", "1", "amd64")
	var listed []sample
	for _, n := range []string{"link", "fifo", "dir", "sparse", "wrong", "cut", "hard", "socket"} {
		listed = append(listed, deb(t, n, "1", "all"))
	}
	for _, mode := range []ArchivesMode{Mode0777, Mode1777} {
		for _, policy := range []Unlisted{SkipUnlisted, KeepUnlisted} {
			for _, e := range ways(t) {
				t.Run(strings.Join([]string{string(mode), string(policy), e.Name}, "/"), func(t *testing.T) {
					w := newWorld(t, e)
					wrong := filepath.Join(w.dir, "wrong")
					check(t, os.WriteFile(wrong, deb(t, "evil", "1", "all").data, 0o644))
					w.seed(good)
					w.lists(append(listed, good)...)
					w.imp(ImportOptions{Mode: mode, Link: LinkCopy})
					check(t, os.Remove(filepath.Join(w.dl, good.FileName())))
					secret := filepath.Join(w.dir, "secret")
					check(t, os.WriteFile(secret, good.data, 0o600))
					plant := `import os, shutil, socket, sys
os.chdir(sys.argv[1])
n = lambda s: s + '_1_all.deb'
os.symlink(sys.argv[3], n('link')); os.mkfifo(n('fifo')); os.mkdir(n('dir'))
open(n('sparse'), 'w').truncate(1 << 40); open(n('nolist'), 'w').truncate(1 << 40)
shutil.copy(sys.argv[2], n('wrong')); open(n('cut'), 'wb').write(open(sys.argv[2], 'rb').read()[:90])
socket.socket(socket.AF_UNIX).bind(n('socket')); os.symlink('/dev/zero', n('nolink'))
`
					out, err := exec.Command("setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "/usr/bin/python3", "-c", plant, w.archives(), wrong, secret).CombinedOutput()
					if err != nil {
						t.Fatalf("%v: %s", err, out)
					}
					settled()
					ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
					defer stop()
					sum, err := Export(ctx, e.Lazy, w.root, w.dl, ExportOptions{Unlisted: policy})
					var r *RefusedError
					if !errors.As(err, &r) {
						t.Fatalf("export: %+v, %v", sum, err)
					}
					want := 8 // with a list or without, what is no file is refused
					if policy == KeepUnlisted {
						want++ // the sparse file that no list knows
					}
					if len(r.All) != want || sum.Copied != 1 {
						t.Errorf("refused %d, export %+v", len(r.All), sum)
					}
					for _, name := range []string{"link", "fifo", "dir", "sparse", "wrong", "cut", "socket", "nolink"} {
						if !strings.Contains(err.Error(), name+"_1_all.deb") {
							t.Errorf("%s is not named", name)
						}
					}
					w.ours(good)
					if got := w.cached(); len(got) != 1 {
						t.Errorf("in the cache: %q", got)
					}
				})
			}
		}
	}
}
