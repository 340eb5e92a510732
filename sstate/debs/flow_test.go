package debs

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nsferry/nsferry/idshift/handoff"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/sstate/lock"
)

// TestFlow sends debs through a cache in every model: out of a rootfs, into another, and nothing is done twice.
func TestFlow(t *testing.T) {
	a, b := deb(t, "alpha", "1:2.0~rc1+b1", "amd64"), deb(t, "beta", "1", "all")
	for _, e := range ways(t) {
		t.Run(e.Name, func(t *testing.T) {
			w := newWorld(t, e)
			if sum := w.imp(ImportOptions{}); sum.Brought != 0 {
				t.Errorf("of no cache: %+v", sum)
			}
			w.lists(a, b)
			w.put(a.FileName(), a.data, 0o644)
			w.put(b.FileName(), b.data, 0o600)
			w.put("lock", nil, 0o640)
			w.put("partial/"+b.FileName(), b.data[:7], 0o644)
			settled()
			if sum := w.export(ExportOptions{}); sum.Copied != 2 || sum.Bytes != int64(len(a.data)+len(b.data)) {
				t.Errorf("export: %+v", sum)
			}
			if got := w.cached(); !slices.Equal(got, []string{a.FileName(), b.FileName()}) {
				t.Errorf("in the cache: %q", got)
			}
			w.ours(a)
			w.ours(b)
			w.mode("755")
			if sum := w.export(ExportOptions{}); sum.Copied != 0 || sum.Same != 2 {
				t.Errorf("export again: %+v", sum)
			}
			// A second rootfs.
			w.newRoot("second")
			sum := w.imp(ImportOptions{})
			if sum.Brought != 2 {
				t.Errorf("import: %+v", sum)
			}
			w.placed(sum)
			w.mode("777")
			w.readable(a)
			w.readable(b)
			if sum := w.imp(ImportOptions{}); sum.Brought != 0 || sum.Same != 2 {
				t.Errorf("import again: %+v", sum)
			}
			w.ours(a)
		})
	}
}

// ours checks that the cached file is whole and the caller's.
func (w *world) ours(s sample) {
	w.Helper()
	path := filepath.Join(w.dl, s.FileName())
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, s.data) {
		w.Errorf("%s: %d bytes, %v", path, len(got), err)
		return
	}
	st, err := os.Stat(path)
	check(w, err)
	if sys := st.Sys().(*syscall.Stat_t); sys.Uid != uint32(os.Geteuid()) || sys.Gid != uint32(os.Getegid()) || st.Mode() != 0o644 {
		w.Errorf("%s: mode %v, owner %d:%d", path, st.Mode(), sys.Uid, sys.Gid)
	}
}

// mode checks the mode of the archives.
func (w *world) mode(want string) {
	w.Helper()
	if got := strings.TrimSpace(w.inside("stat", "-c", "%a %u:%g", w.archives())); got != want+" "+w.rootID() {
		w.Errorf("the archives are %s", got)
	}
}

// rootID is inner root as a command sees him that inside runs.
func (w *world) rootID() string {
	if w.env.Arithmetic() {
		return "300000:300000"
	}
	return "0:0"
}

// placed checks that a hard link was chosen exactly where nobody inside can own or write the caller's file.
func (w *world) placed(sum Imported) {
	w.Helper()
	_, mapped := w.env.Plain.UID.ToInside(uint32(os.Geteuid()))
	if linked := sum.Methods[hardLink]; (linked > 0) == mapped || linked > 0 && linked != sum.Brought {
		w.Errorf("the caller is mapped: %v; methods %v", mapped, sum.Methods)
	}
}

// readable checks that inner root reads a deb in the archives.
func (w *world) readable(s sample) {
	w.Helper()
	if got := w.inside("cat", filepath.Join(w.archives(), s.FileName())); got != string(s.data) {
		w.Errorf("inside, %s has %d bytes", s.FileName(), len(got))
	}
}

// TestExportJudges has one deb for every verdict.
func TestExportJudges(t *testing.T) {
	good, other, local, stranger := deb(t, "good", "1", "amd64"), deb(t, "other", "2:1", "amd64"), deb(t, "local", "5:7", "amd64"), deb(t, "stranger", "1", "all")
	rebuilt := sample{local.Package, buildDeb(t, local.Package, "built again")}
	for _, e := range ways(t)[:1] {
		w := newWorld(t, e)
		w.lists(good, other, local, rebuilt)
		repo := filepath.Join(w.dir, "repo", "pool")
		check(t, os.MkdirAll(repo, 0o755))
		check(t, os.WriteFile(filepath.Join(repo, local.pool().FileName()), local.data, 0o644))
		flipped := bytes.Clone(good.data)
		flipped[len(flipped)/2] ^= 1
		refused := map[string]string{
			good.FileName():         "its SHA256 is",
			"other_2%3a1_amd64.deb": "the lists say",
			"empty_1_all.deb":       "empty",
			"Bad Name_1_all.deb":    "not named as apt names debs",
			"new\nline_1_all.deb":   "not named as apt names debs",
			"latin\xe91_1_all.deb":  "not named as apt names debs",
			"case_1_all.DEB":        "not named as apt names debs",
			"dir_1_all.deb":         "a directory",
			"link_1_all.deb":        "a symbolic link",
			"fifo_1_all.deb":        "a fifo",
		}
		w.put(good.FileName(), flipped, 0o644)
		w.put(other.FileName(), other.data[:100], 0o644)
		for _, name := range []string{"empty_1_all.deb"} {
			w.put(name, nil, 0o644)
		}
		for _, name := range []string{"Bad Name_1_all.deb", "new\nline_1_all.deb", "case_1_all.DEB"} {
			w.put(name, good.data, 0o644)
		}
		w.inside("sh", "-c", `cd "$1" && cp case_1_all.DEB "$(printf 'latin\3511_1_all.deb')" && mkdir dir_1_all.deb && ln -s /etc/passwd link_1_all.deb && mkfifo fifo_1_all.deb`, "sh", w.archives())
		w.put(local.FileName(), local.data, 0o644)
		w.put(stranger.FileName(), stranger.data, 0o644)
		settled()
		sum, err := Export(t.Context(), e.Lazy, w.root, w.dl, ExportOptions{LocalRepos: []string{filepath.Dir(repo)}})
		var r *RefusedError
		if !errors.As(err, &r) {
			t.Fatalf("export: %+v, %v", sum, err)
		}
		for _, f := range r.All {
			if want, ok := refused[f.File]; !ok || !strings.Contains(f.Reason, want) {
				t.Errorf("refused %v", f)
			}
			delete(refused, f.File)
		}
		if len(refused) > 0 {
			t.Errorf("not refused: %q", refused)
		}
		if sum.Local != 1 || !slices.Equal(sum.Unlisted, []string{stranger.FileName()}) || sum.Copied != 0 || len(w.cached()) != 0 {
			t.Errorf("export: %+v, cache %q", sum, w.cached())
		}
		w.inside("sh", "-c", `cd "$1" && rm -r ./*`, "sh", w.archives())
		// What is larger than all of that name is not read: this one would take a minute.
		w.inside("truncate", "-s", "64G", filepath.Join(w.archives(), local.FileName()))
		start := time.Now()
		sum, err = Export(t.Context(), e.Lazy, w.root, w.dl, ExportOptions{LocalRepos: []string{repo}})
		if len(sum.Refused) != 1 || !strings.Contains(sum.Refused[0].Reason, "68719476736 bytes") || time.Since(start) > 10*time.Second {
			t.Errorf("export: %+v, %v, after %v", sum, err, time.Since(start))
		}
		// The local package with other contents is no local package.
		w.put(rebuilt.FileName(), rebuilt.data, 0o644)
		w.put(stranger.FileName(), stranger.data, 0o644)
		settled()
		if sum := w.export(ExportOptions{LocalRepos: []string{repo}, Unlisted: KeepUnlisted}); sum.Copied != 2 || sum.Local != 0 {
			t.Errorf("export: %+v", sum)
		}
		// Without a list what counts is that name and content agree.
		w.put("liar_1_all.deb", stranger.data, 0o644)
		w.put("zip_1_all.deb", []byte("PK\x03\x04"+strings.Repeat("x", 1000)), 0o644)
		w.inside("truncate", "-s", "1T", filepath.Join(w.archives(), "huge_1_all.deb"))
		settled()
		sum, err = Export(t.Context(), e.Lazy, w.root, w.dl, ExportOptions{Unlisted: KeepUnlisted})
		if len(sum.Refused) != 3 || sum.Same != 2 {
			t.Errorf("export: %+v, %v", sum, err)
		}
		sum, err = Export(t.Context(), e.Lazy, w.root, w.dl, ExportOptions{Unlisted: FailUnlisted})
		if len(sum.Refused) != 3 || !errors.As(err, &r) {
			t.Errorf("export: %+v, %v", sum, err)
		}
	}
}

// TestDamageStaysBehind, whatever way debs come in: as links they are read before, as copies while they are copied. Either leaves the
// digests of both on record.
func TestDamageStaysBehind(t *testing.T) {
	good, bad := deb(t, "good", "1", "amd64"), deb(t, "bad", "1", "all")
	flipped := sample{bad.Package, bytes.Clone(bad.data)}
	flipped.data[len(flipped.data)-3] ^= 1
	for _, e := range ways(t) {
		for _, link := range []Link{LinkSafe, LinkCopy} {
			t.Run(e.Name+"/"+string(link), func(t *testing.T) {
				w := newWorld(t, e)
				w.lists(good, bad)
				w.seed(good, flipped)
				for _, name := range w.cached() {
					check(t, os.Chtimes(filepath.Join(w.dl, name), time.Unix(1e9, 1), time.Unix(1e9, 1)))
				}
				for _, root := range []string{w.root, "again"} {
					if root != w.root {
						w.newRoot(root)
						w.lists(good, bad)
					}
					sum := w.imp(ImportOptions{Link: link})
					if sum.Brought != 1 || len(sum.Damaged) != 1 || !strings.Contains(sum.Damaged[0].Reason, "damaged: its SHA256 is") {
						t.Errorf("import: %+v", sum)
					}
					w.readable(good)
					if got := w.inside("ls", w.archives()); got != good.FileName()+"\npartial\n" {
						t.Errorf("brought in: %q", got)
					}
				}
				dl, err := os.Open(w.dl)
				check(t, err)
				defer dl.Close()
				there, err := list(dl)
				check(t, err)
				r := openRecord(dl)
				for i, s := range []sample{flipped, good} {
					if got, ok := r.sum(there.Files[i]); !ok || got.SHA256 != sha256.Sum256(s.data) {
						t.Errorf("on record of %s: %v, %x", s.FileName(), ok, got.SHA256)
					}
				}
			})
		}
	}
}

// TestDamageInTheCache: a damaged deb stays behind on import and is replaced on export; a right one is not.
func TestDamageInTheCache(t *testing.T) {
	a, b, c := deb(t, "alpha", "1", "amd64"), deb(t, "beta", "1", "all"), deb(t, "gamma", "1", "all")
	e := ways(t)[0]
	w := newWorld(t, e)
	w.lists(a, b, c)
	w.seed(a, b, c)
	cut := filepath.Join(w.dl, a.FileName())
	check(t, os.Truncate(cut, 50))
	flipped := bytes.Clone(b.data)
	flipped[len(flipped)-3] ^= 1
	check(t, os.WriteFile(filepath.Join(w.dl, b.FileName()), flipped, 0o644))
	check(t, os.WriteFile(filepath.Join(w.dl, "zip_1_all.deb"), []byte("PK\x03\x04"), 0o644))
	check(t, os.WriteFile(filepath.Join(w.dl, "none_1_all.deb"), nil, 0o644))
	check(t, os.WriteFile(filepath.Join(w.dl, "my own notes.deb"), c.data, 0o644))
	sum := w.imp(ImportOptions{})
	if sum.Brought != 1 || len(sum.Damaged) != 5 {
		t.Errorf("import: %+v", sum)
	}
	v, err := Verify(t.Context(), e.Lazy, w.dl, VerifyOptions{Lists: []string{w.root}})
	if v.Right != 1 || len(v.Damaged) != 5 || err == nil {
		t.Errorf("verify: %+v, %v", v, err)
	}
	for _, s := range []sample{a, b, c} {
		w.put(s.FileName(), s.data, 0o644)
	}
	settled()
	if sum := w.export(ExportOptions{}); sum.Copied != 2 || sum.Replaced != 2 || sum.Same != 1 {
		t.Errorf("export: %+v", sum)
	}
	for _, s := range []sample{a, b, c} {
		w.ours(s)
	}
	v, err = Verify(t.Context(), e.Lazy, w.dl, VerifyOptions{Lists: []string{w.root}, Remove: true})
	if v.Right != 3 || len(v.Damaged) != 3 || v.Removed != 2 || err == nil {
		t.Errorf("verify --remove, which leaves alone what apt would not have named so: %+v, %v", v, err)
	}
	check(t, os.Truncate(cut, 50))
	if v, _ = Verify(t.Context(), e.Lazy, w.dl, VerifyOptions{Remove: true, DryRun: true}); v.Removed != 0 || len(v.Damaged) != 2 {
		t.Errorf("verify --dry-run: %+v", v)
	}
	if v, _ = Verify(t.Context(), e.Lazy, w.dl, VerifyOptions{Remove: true}); v.Removed != 1 || v.Whole != 2 {
		t.Errorf("verify --remove: %+v", v)
	}
}

// TestImportReplacesWhatIsWrong in the archives, whoever put it there, and leaves what is right.
func TestImportReplacesWhatIsWrong(t *testing.T) {
	var all []sample
	for _, n := range []string{"dir", "empty", "fifo", "link", "right", "wrong"} {
		all = append(all, deb(t, n, "1", "all"))
	}
	for _, e := range ways(t) {
		t.Run(e.Name, func(t *testing.T) {
			w := newWorld(t, e)
			w.seed(all...)
			w.lists(all...)
			w.put("right_1_all.deb", deb(t, "right", "1", "all").data, 0o644)
			w.put("wrong_1_all.deb", deb(t, "right", "1", "all").data, 0o644)
			w.put("empty_1_all.deb", nil, 0o644)
			w.inside("sh", "-c", `cd "$1" && mkdir -p dir_1_all.deb/x && mkfifo fifo_1_all.deb && ln -s /etc/passwd link_1_all.deb`, "sh", w.archives())
			sum, err := Import(t.Context(), e.Lazy, w.dl, w.root, ImportOptions{})
			var r *RefusedError
			if !errors.As(err, &r) || len(r.All) != 1 || r.All[0].File != "dir_1_all.deb" || sum.Brought != 4 || sum.Same != 1 {
				t.Errorf("import: %+v, %v", sum, err)
			}
			for _, s := range all[1:] {
				w.readable(s)
			}
			if sum, _ := Import(t.Context(), e.Lazy, w.dl, w.root, ImportOptions{}); sum.Same != 5 || sum.Brought != 0 {
				t.Errorf("import again: %+v", sum)
			}
		})
	}
}

// TestLinks forces every way in.
func TestLinks(t *testing.T) {
	a := deb(t, "alpha", "1", "amd64")
	for _, e := range ways(t) {
		_, mapped := e.Plain.UID.ToInside(uint32(os.Geteuid()))
		for _, link := range []Link{LinkSafe, LinkHard, LinkReflink, LinkCopy} {
			t.Run(e.Name+"/"+string(link), func(t *testing.T) {
				w := newWorld(t, e)
				w.seed(a)
				sum, err := Import(t.Context(), e.Lazy, w.dl, w.root, ImportOptions{Link: link})
				if link == LinkReflink && err != nil { // the filesystem decides
					if !strings.Contains(err.Error(), "share blocks") {
						t.Error(err)
					}
					return
				}
				if link == LinkHard && mapped {
					if err == nil || !strings.Contains(err.Error(), "own or write") {
						t.Errorf("an unsafe hard link: %+v, %v", sum, err)
					}
					return
				}
				check(t, err)
				w.readable(a)
				if link == LinkCopy && sum.Methods[handoff.Copy] != 1 || link == LinkHard && sum.Methods[hardLink] != 1 {
					t.Errorf("methods %v", sum.Methods)
				}
			})
		}
	}
	// What others may write, or inner root could not read, is never linked.
	e := ways(t)[0]
	for _, mode := range []os.FileMode{0o666, 0o640, 0o600, 0o644 | os.ModeSetuid} {
		w := newWorld(t, e)
		w.seed(a)
		check(t, os.Chmod(filepath.Join(w.dl, a.FileName()), mode))
		if sum := w.imp(ImportOptions{}); sum.Methods[hardLink] != 0 || sum.Brought != 1 {
			t.Errorf("mode %o: %+v", mode, sum)
		}
		w.readable(a)
	}
}

// TestLockIsHeldForMoments: between two debs anybody gets the lock.
func TestLockIsHeldForMoments(t *testing.T) {
	a := deb(t, "alpha", "1", "amd64")
	w := newWorld(t, ways(t)[0])
	w.lists(a)
	w.put(a.FileName(), a.data, 0o644)
	asked := 0
	progress := func(int64) {
		asked++
		l, err := lock.Take(t.Context(), w.dl+".lock", lock.Options{Note: func(s string) { t.Error(s) }})
		check(t, err)
		check(t, l.Release())
	}
	w.export(ExportOptions{Progress: progress})
	w.newRoot("second")
	w.imp(ImportOptions{Progress: progress})
	if asked != 2 {
		t.Errorf("progress was told %d times", asked)
	}
}

// TestNoNamespaceForNothing: a caller who can do all himself needs no sub-ids, and a sync with nothing to do enters no namespace.
func TestNoNamespaceForNothing(t *testing.T) {
	a := deb(t, "alpha", "1", "amd64")
	w := newWorld(t, ways(t)[0])
	none := func() (*userns.Env, error) { return nil, errors.New("asked for a namespace") }
	check(t, os.MkdirAll(w.archives(), 0o755))
	check(t, os.WriteFile(filepath.Join(w.archives(), a.FileName()), a.data, 0o644))
	for range 2 {
		_, err := Export(t.Context(), none, w.root, w.dl, ExportOptions{Unlisted: KeepUnlisted})
		check(t, err)
	}
	w.ours(a)
}
