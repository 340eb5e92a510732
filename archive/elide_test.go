package archive_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/nsferry/nsferry/archive"
)

// TestElide saves trees of which nothing, the first, or the last entry has changed, where the output may be left empty.
func TestElide(t *testing.T) {
	s := grown(t)
	s.write("large twin", filler(100, 9<<20)) // whose later frames have the identities of another one's
	s.save(ownOptions())
	save := func(o archive.CreateOptions, before string) (string, archive.Summary, error) {
		t.Helper()
		out := file(t, []byte(before))
		_, err := out.Seek(int64(len(before)), 0)
		check(t, err)
		o.Elide, o.Base = true, s.base
		o.Index, _ = s.read()
		sum, err := archive.Create(t.Context(), s.root, out, o)
		return string(contentOf(t, out)), sum, err
	}
	// changing calls f once, when the first frame has come.
	changing := func(f func()) archive.CreateOptions {
		o := ownOptions()
		o.Progress = func(int64) {
			if f != nil {
				f()
				f = nil
			}
		}
		return o
	}
	base := contentOf(t, s.base)
	same := func(what string, o archive.CreateOptions) {
		t.Helper()
		got, sum, err := save(o, "")
		check(t, err)
		if got != "" || !sum.Reuse.Same || sum.Stored != int64(len(base)) || sum.Reuse.Bytes != sum.Stored || sum.Reuse.Built != 0 {
			t.Errorf("%s: %d bytes written, %+v of %d, %+v", what, len(got), sum, len(base), sum.Reuse)
		}
	}
	same("unchanged", ownOptions())
	now := time.Now()
	same("the base is touched meanwhile", changing(func() { check(t, os.Chtimes(s.base.Name(), now, now)) }))
	if got, sum, err := save(ownOptions(), "before"); err != nil || got != "before"+string(base) || sum.Reuse.Same {
		t.Errorf("into a file that holds something: %d bytes, %+v, %v", len(got), sum.Reuse, err)
	}
	_, _, err := save(changing(func() { check(t, writeAt(s.base.Name(), 20, base[20]^1)) }), "")
	wantError(t, err, "of the base changed while it was")
	check(t, os.WriteFile(s.base.Name(), base, 0o644))
	f, _ := contents(t, base)
	for what, change := range map[string]func() error{
		"the table of contents": func() error { return writeAt(s.base.Name(), f.End()+50, base[f.End()+50]^1) },
		"the last byte":         func() error { return os.Truncate(s.base.Name(), int64(len(base))-1) },
		"one byte more":         func() error { return writeAt(s.base.Name(), int64(len(base)), 0) },
	} {
		if got, sum, err := save(changing(func() { check(t, change()) }), ""); err != nil || got != string(base) || sum.Reuse.Same {
			t.Errorf("%s of the base is changed meanwhile: %+v, %v", what, sum.Reuse, err)
		}
		check(t, os.WriteFile(s.base.Name(), base, 0o644))
	}
	same("as before", ownOptions())

	for _, name := range []string{"f00", "large", "link2", "z"} {
		s.write(name, []byte(fmt.Sprint("other", name)))
		want, _ := pack(t, s.root, ownOptions())
		got, sum, err := save(ownOptions(), "")
		check(t, err)
		if got != string(want) || sum.Reuse.Same || sum.Reuse.Built == 0 || sum.Reuse.Copied == 0 {
			t.Errorf("%s changed: not what a save from scratch gives: %+v", name, sum.Reuse)
		}
		s.scratch = nil
		s.save(ownOptions())
	}
	// The stream is the base's, the table of contents is not: a policy that it records.
	o := ownOptions()
	o.Policy.Sockets = archive.Fail
	want, _ := pack(t, s.root, o)
	if got, sum, err := save(o, ""); err != nil || got != string(want) || sum.Reuse.Same || sum.Reuse.Built != 0 {
		t.Errorf("another policy: %+v, %v", sum.Reuse, err)
	}
}

func writeAt(name string, at int64, b byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt([]byte{b}, at)
	return err
}
