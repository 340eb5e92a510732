package debs

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestAnswersText: answers come back as they were, and from no part of their text.
func TestAnswersText(t *testing.T) {
	a := answers{asked: map[string]bool{"a": true, "none": true}, index: Index{}}
	a.index.put(Package{"a", "1:2", "amd64"}, Sum{3, sha256.Sum256([]byte("x"))})
	a.index.put(Package{"a", "1:2", "amd64"}, Sum{4, sha256.Sum256([]byte("y"))})
	text, ok := a.text()
	back, whole := parseAnswers(text)
	if !ok || !whole || fmt.Sprint(back) != fmt.Sprint(a) {
		t.Fatalf("%v, %v: %v", ok, whole, back)
	}
	if !back.covers([]string{"a", "none"}) || back.covers([]string{"a", "b"}) {
		t.Error("what has been asked for is not what is covered")
	}
	for n := range text {
		if _, ok := parseAnswers(text[:n]); ok {
			t.Errorf("%q is taken for all", text[:n])
		}
		zeroed := bytes.Clone(text)
		clear(zeroed[n:]) // what a crash of the machine may leave
		if _, ok := parseAnswers(zeroed); ok {
			t.Errorf("%q is taken", zeroed)
		}
	}
	a.index.put(Package{"a", "1 2\nb", "amd64"}, Sum{})
	if _, ok := a.text(); ok {
		t.Error("a version of two words is written")
	}
}

// TestAnswersByContent: lists are parsed once for each content, whatever their stamps say, and what was said is not asked again.
func TestAnswersByContent(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	a, b := sample{Package{"a", "1", "all"}, []byte("a")}, sample{Package{"b", "1", "all"}, []byte("b")}
	dir := t.TempDir()
	list := filepath.Join(dir, "x_Packages")
	write := func(known ...sample) { check(t, os.WriteFile(list, []byte(packages(known...)), 0o644)) }
	get := func(names ...string) Index {
		x, err := lookUp(t.Context(), nil, dir, names)
		check(t, err)
		return x
	}
	write(a, b)
	if x := get("a"); len(x[a.Package]) != 1 {
		t.Fatalf("a is not found: %v", x)
	}
	d, err := listSource{nil, dir}.digest(t.Context())
	check(t, err)
	// A planted answer shows whether the record is used.
	planted := strings.Replace(read(t, answersPath(d)), hex.EncodeToString(digestOf("a")), hex.EncodeToString(digestOf("planted")), 1)
	check(t, os.WriteFile(answersPath(d), []byte(planted), 0o600))
	fromRecord := func() bool { return get("a")[a.Package][0].SHA256 == sha256.Sum256([]byte("planted")) }
	check(t, os.Chtimes(list, time.Unix(1, 0), time.Unix(1, 0)))
	if !fromRecord() {
		t.Error("the same content with another stamp is parsed again")
	}
	if x := get("a", "b"); len(x[b.Package]) != 1 || x[a.Package][0].SHA256 != sha256.Sum256(a.data) {
		t.Errorf("a name that is not on record does not make the lists be read: %v", x)
	}
	check(t, os.WriteFile(answersPath(d), []byte(planted), 0o600))
	before := stat(t, list)
	write(a, sample{Package{"c", "1", "all"}, []byte("b")}) // as long
	check(t, os.Chtimes(list, before.ModTime(), before.ModTime()))
	if after := stat(t, list); after.Size() != before.Size() || fromRecord() {
		t.Error("lists of another content with the same stamp are answered from the record")
	}
}

// TestAnswersOfWhatWasRead: what a half has parsed is recorded under the digest of just that, for the inner side may change its
// lists between the digest and the reading.
func TestAnswersOfWhatWasRead(t *testing.T) {
	dir := t.TempDir()
	good, forged := packages(sample{Package{"a", "1", "all"}, []byte("good")}), packages(sample{Package{"a", "1", "all"}, []byte("evil")})
	seen := map[listsDigest]string{}
	for _, text := range []string{good, forged} {
		check(t, os.WriteFile(filepath.Join(dir, "Packages"), []byte(text), 0o644))
		f, err := os.Open(dir)
		check(t, err)
		l, err := readLists(t.Context(), f, []string{"a"})
		check(t, err)
		only, err := digestLists(t.Context(), f)
		check(t, err)
		check(t, f.Close())
		if one := sha256.Sum256([]byte(text)); l.digest != only || l.digest != sha256.Sum256(one[:]) {
			t.Errorf("parsed under %x, digest %x", l.digest, only)
		}
		seen[l.digest] = text
	}
	if len(seen) != 2 {
		t.Error("two contents, one digest")
	}
}

// TestAnswersAreTrimmed: only the newest stay.
func TestAnswersAreTrimmed(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	for i := range maxAnswers + 5 {
		d := listsDigest{byte(i)}
		answers{map[string]bool{"a": true}, Index{}}.save(d)
		at := time.Unix(int64(1e9+i), 0)
		check(t, os.Chtimes(answersPath(d), at, at))
	}
	trimAnswers(filepath.Dir(answersPath(listsDigest{})))
	entries, err := os.ReadDir(filepath.Dir(answersPath(listsDigest{})))
	check(t, err)
	if len(entries) != maxAnswers || loadAnswers(listsDigest{4}).asked["a"] || !loadAnswers(listsDigest{5}).asked["a"] {
		t.Errorf("%d files of answers stay", len(entries))
	}
}

// TestRecord: a digest is known for as long as inode, size and time stay, and none is recorded that a change right after could have.
func TestRecord(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	at := t.TempDir()
	dir, err := os.Open(at)
	check(t, err)
	defer dir.Close()
	name := filepath.Join(at, "a_1_all.deb")
	check(t, os.WriteFile(name, []byte("abc"), 0o644))
	old := time.Unix(1_600_000_000, 5)
	sums := []Sum{{3, sha256.Sum256([]byte("abc"))}}
	judgeAgain := func() error { // with what an earlier run has left
		f, err := os.Open(name)
		check(t, err)
		defer f.Close()
		r := openRecord(dir)
		defer func() {
			l, err := list(dir)
			check(t, err)
			r.save(l)
		}()
		return checkFile(f, sums, r, make([]byte, bufSize))
	}
	known := func() int { return len(openRecord(dir).known) }

	check(t, judgeAgain())
	if n := known(); n != 0 {
		t.Errorf("%d digests of a file that was written just now are recorded", n)
	}
	check(t, os.Chtimes(name, old, old))
	check(t, judgeAgain())
	if n := known(); n != 1 {
		t.Fatalf("%d digests are recorded", n)
	}
	check(t, os.WriteFile(name, []byte("xyz"), 0o644)) // the same size
	if judgeAgain() == nil {
		t.Error("a file that was written to is not read again")
	}
	check(t, os.WriteFile(name+"~", []byte("xyz"), 0o644))
	check(t, os.Chtimes(name+"~", old, old))
	check(t, os.Rename(name+"~", name))
	if judgeAgain() == nil {
		t.Error("another inode with the time of the recorded one is not read")
	}
	check(t, os.WriteFile(name, []byte("xyz"), 0o644))
	future := time.Now().Add(time.Hour)
	check(t, os.Chtimes(name, future, future))
	if judgeAgain() == nil || len(openRecord(dir).known) != 1 { // that of the line above
		t.Errorf("a time in the future is recorded: %v", openRecord(dir).known)
	}
}

// TestRecordText: a line that is none ends a record.
func TestRecordText(t *testing.T) {
	good := fmt.Sprintf("1 2 3 %x\n", digestOf("x"))
	for text, want := range map[string]int{
		recordHead + good: 1, recordHead + good + good[:len(good)-1]: 1, recordHead + "1 2 3\n" + good: 0, good: 0,
		recordHead + good + "5 2 3 " + strings.Repeat("g", 64) + "\n" + "6" + good: 1, recordHead + "x" + good: 0, recordHead + "-1" + good[1:]: 0,
		recordHead + good + strings.Replace(good, "1", "4", 1): 2,
	} {
		r := &record{known: map[stamp]recorded{}}
		r.read([]byte(text))
		if len(r.known) != want {
			t.Errorf("%q: %d digests, not %d", text, len(r.known), want)
		}
	}
}

func digestOf(s string) []byte { d := sha256.Sum256([]byte(s)); return d[:] }

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	check(t, err)
	return string(text)
}

func stat(t *testing.T, path string) os.FileInfo {
	t.Helper()
	info, err := os.Stat(path)
	check(t, err)
	return info
}
