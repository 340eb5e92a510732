package debs

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// removed returns the names that a prune took.
func removed(p Pruned) []string {
	var names []string
	for _, r := range p.Removed {
		names = append(names, r.File)
	}
	slices.Sort(names)
	return names
}

func (w *world) prune(o PruneOptions) Pruned {
	w.Helper()
	p, err := Prune(w.Context(), w.env.Lazy, w.dl, o)
	check(w, err)
	return p
}

func (w *world) plain(name, data string) {
	w.Helper()
	check(w, os.MkdirAll(filepath.Dir(filepath.Join(w.dl, name)), 0o755))
	check(w, os.WriteFile(filepath.Join(w.dl, name), []byte(data), 0o644))
}

// TestPrune: by version, by age, by size; what is used stays, and a dry run says the same and does nothing.
func TestPrune(t *testing.T) {
	w := newWorld(t, ways(t)[0])
	names := []string{"a_1.10-1_amd64.deb", "a_1.9-1_amd64.deb", "a_1%3a0.1_amd64.deb", "a_2.0~rc1_amd64.deb", "a_1.9-1_i386.deb", "b_1_all.deb"}
	for _, n := range names {
		w.plain(n, strings.Repeat("x", 100))
	}
	w.plain("README", "no package")
	w.plain("odd name.deb", "no package")
	w.rootfsFile("var/lib/dpkg/status", []byte("Package: a\nStatus: install ok installed\nArchitecture: amd64\nSource: src (1.8)\nVersion: 1.9-1\n\nPackage: b\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n"))
	o := PruneOptions{Versions: 1, Keep: []string{w.root}, DryRun: true}
	want := []string{"a_1.10-1_amd64.deb", "a_2.0~rc1_amd64.deb"}
	if p := w.prune(o); !slices.Equal(removed(p), want) || p.Kept != 4 || len(p.Odd) != 1 || p.Bytes != 200 {
		t.Errorf("dry run: %+v", p)
	}
	if got := len(w.cached()); got != 8 {
		t.Errorf("the dry run has left %d names", got)
	}
	o.DryRun = false
	if p := w.prune(o); !slices.Equal(removed(p), want) || p.Files != 2 {
		t.Errorf("prune: %+v", p)
	}
	manifest := filepath.Join(w.dir, "manifest")
	check(t, os.WriteFile(manifest, []byte("# made by a test\na:i386\t1.9-1\nsrc|1|b|1\n"), 0o644))
	later := PruneOptions{Age: time.Hour, Keep: []string{manifest}, Now: time.Now().Add(2 * time.Hour)}
	if p := w.prune(later); !slices.Equal(removed(p), []string{"a_1%3a0.1_amd64.deb", "a_1.9-1_amd64.deb"}) {
		t.Errorf("by age: %+v", p)
	}
	settled()
	w.plain("c_1_all.deb", strings.Repeat("x", 100))
	if p := w.prune(PruneOptions{Size: 150, Keep: []string{manifest}, DryRun: true}); !slices.Equal(removed(p), []string{"c_1_all.deb"}) {
		t.Errorf("by size, the old ones in use: %+v", p)
	}
	if p := w.prune(PruneOptions{Size: 250}); len(p.Removed) != 1 || p.Removed[0].File == "c_1_all.deb" || p.Left != 200 {
		t.Errorf("by size: %+v", p)
	}
	if got := w.cached(); !slices.Contains(got, "README") || !slices.Contains(got, "odd name.deb") {
		t.Errorf("what is no package is gone: %q", got)
	}
}

func dscText(name, version string, files map[string]string) string {
	text := fmt.Sprintf("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nFormat: 3.0 (quilt)\nSource: %s\nVersion: %s\nChecksums-Sha1:\n 0 0 x\nChecksums-Sha256:\n", name, version)
	for n, data := range files {
		text += fmt.Sprintf(" %x %d %s\n", sha256.Sum256([]byte(data)), len(data), n)
	}
	return text + "Files:\n 0 0 x\n\n-----BEGIN PGP SIGNATURE-----\n"
}

// TestSources: a .dsc and its files are one, a tarball that two revisions share stays for the other, and damage to any is found.
func TestSources(t *testing.T) {
	w := newWorld(t, ways(t)[0])
	orig := map[string]string{"s_1.orig.tar.xz": "original"}
	one := map[string]string{"s_1.orig.tar.xz": "original", "s_1-1.debian.tar.xz": "first"}
	two := map[string]string{"s_1.orig.tar.xz": "original", "s_1-2.debian.tar.xz": "second"}
	texts := map[string]string{"s/s_1-1.dsc": dscText("s", "1-1", one), "s/s_1-2.dsc": dscText("s", "1-2", two)}
	for _, files := range []map[string]string{orig, one, two} {
		for n, data := range files {
			w.plain("s/"+n, data)
		}
	}
	for n, text := range texts {
		w.plain(n, text)
	}
	lists := t.TempDir()
	text := texts["s/s_1-2.dsc"]
	check(t, os.WriteFile(filepath.Join(lists, "x_Sources"), fmt.Appendf(nil, "Package: s\nVersion: 1-2\nChecksums-Sha256:\n %x %d s_1-2.dsc\n\n", sha256.Sum256([]byte(text)), len(text)), 0o644))
	v, err := Verify(t.Context(), w.env.Lazy, w.dl, VerifyOptions{Lists: []string{lists}})
	if err != nil || v.Right != 1 || v.Whole != 1 {
		t.Errorf("verify: %+v, %v", v, err)
	}
	if p := w.prune(PruneOptions{Versions: 1}); !slices.Equal(removed(p), []string{"s/s_1-1.dsc"}) || p.Files != 2 {
		t.Errorf("prune: %+v", p)
	}
	v, err = Verify(t.Context(), w.env.Lazy, w.dl, VerifyOptions{Lists: []string{lists}})
	if err != nil || v.Right != 1 || v.Whole != 0 {
		t.Errorf("verify after prune: %+v, %v", v, err)
	}
	w.plain("s/s_1.orig.tar.xz", "0riginal")
	v, err = Verify(t.Context(), w.env.Lazy, w.dl, VerifyOptions{})
	if err == nil || len(v.Damaged) != 1 || !strings.Contains(v.Damaged[0].Reason, "s_1.orig.tar.xz") {
		t.Errorf("verify of a damaged tarball: %+v, %v", v, err)
	}
}

// TestNeeded reads every kind of list, and follows dependencies without deciding between alternatives.
func TestNeeded(t *testing.T) {
	w := newWorld(t, ways(t)[0])
	for _, n := range []string{"app", "liba", "libb", "mta", "other", "data"} {
		w.seed(deb(t, n, "1:1", "all"))
	}
	w.rootfsFile("var/lib/apt/lists/x_Packages", []byte("Package: app\nVersion: 1:1\nDepends: liba (>= 1:0~), mail-transport-agent | nothing\nRecommends: data:any\n\nPackage: liba\nPre-Depends: libb [amd64]\n\nPackage: mta\nProvides: mail-transport-agent (= 1)\n\nPackage: other\n\n"))
	for text, want := range map[string]int{
		"app\n":                             5,
		"# x\n\nliba:amd64\nother/stable\n": 3,
		"'http://x/pool/libb_1_all.deb' libb_1%3a1_all.deb 100 SHA256:00\n'http://x/dists/x/InRelease' x_InRelease 0\n": 1,
		"/some/where/data_1%3a1_all.deb\n": 1,
		"mta=1:1\n":                        1,
		"":                                 0,
	} {
		n, err := ParseNeeded(strings.NewReader(text))
		check(t, err)
		if sum := w.imp(ImportOptions{Needed: n, DryRun: true}); sum.Brought != want || sum.Left != 6-want {
			t.Errorf("%q: %+v", text, sum)
		}
	}
	for _, bad := range []string{"'http://x", "a b", "x.deb", "../x"} {
		if n, err := ParseNeeded(strings.NewReader(bad)); err == nil {
			t.Errorf("%q: %+v", bad, n)
		}
	}
}
