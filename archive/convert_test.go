package archive_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/archive/tarfmt"
	"github.com/nsferry/nsferry/archive/treetest"
	"github.com/nsferry/nsferry/archive/zframe"
	"github.com/nsferry/nsferry/archive/zframe/toc"
	"github.com/nsferry/nsferry/tier"
)

func conversion(t testing.TB) archive.ConvertOptions {
	return archive.ConvertOptions{Workers: 2, Temp: func() (*os.File, error) { return os.CreateTemp(t.TempDir(), "") }}
}

// convert converts an archive that must be good.
func convert(t testing.TB, in *os.File, o archive.ConvertOptions) []byte {
	t.Helper()
	var out bytes.Buffer
	sum, err := archive.Convert(t.Context(), in, &out, o)
	check(t, err)
	if sum.Stored != int64(out.Len()) {
		t.Fatalf("the summary says %d bytes, %d were written", sum.Stored, out.Len())
	}
	return out.Bytes()
}

// repacked is what unpacking and packing makes of a plain tar; directories that it does not name get the epoch as their time.
func repacked(t testing.TB, archived []byte, o archive.ConvertOptions) []byte {
	t.Helper()
	x := extraction()
	x.Top, x.KeepTop = o.Top, o.KeepTop
	dir, _ := unpack(t, archived, x)
	named := map[string]bool{}
	for r := tarfmt.NewReader(bytes.NewReader(archived), tarfmt.Limits{}); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		check(t, err)
		named[path.Clean(h.Name)] = true
	}
	top := o.Top
	if named["rootfs"] && !named["."] && !o.KeepTop {
		top = "rootfs"
	}
	for _, n := range slices.Backward(dump(t, dir)) {
		if n.Type == listing.Dir && !named[path.Join(top, n.Name)] {
			tool(t, nil, "touch", "-d", "@0", filepath.Join(dir.Name(), n.Name))
		}
	}
	c := options()
	c.Exclude, c.ClampMTime, c.Format, c.Level, c.Policy = o.Exclude, o.ClampMTime, o.Format, o.Level, o.Policy.WithDefaults(true)
	packed, _ := pack(t, dir, c)
	return packed
}

// wrappers put an archive into something. What they make is read in place, by frames, or kept in a file first.
var wrappers = map[string][]string{
	"plain": nil, "gzip": {"gzip", "-1"}, "bzip2": {"bzip2", "-1"}, "xz": {"xz", "-0"}, "zstd": {"zstd", "-q"}, "pzstd": {"pzstd", "-q", "-3"},
}

// wrap compresses a tar stream.
func wrap(t testing.TB, archived []byte, argv []string) []byte {
	t.Helper()
	if argv == nil {
		return archived
	}
	path := file(t, archived).Name()
	return []byte(tool(t, nil, argv[0], append(slices.Clone(argv[1:]), "-c", path)...))
}

// sameArchive tells how two archives differ that should not.
func sameArchive(t testing.TB, want, got []byte) {
	t.Helper()
	if bytes.Equal(want, got) {
		return
	}
	a, b := listed(t, want), listed(t, got)
	for i := range min(len(a), len(b)) {
		if a[i].Name != b[i].Name {
			t.Errorf("entry %d is %q, and should be %q", i, b[i].Name, a[i].Name)
			break
		}
	}
	t.Errorf("other bytes; listed:\n%s", treetest.Diff(a, b))
}

// makers are tars and what they make of a directory that they are in.
var makers = map[string]string{
	"GNU tar":              "tar --xattrs --xattrs-include='*' --numeric-owner -cSf -",
	"GNU tar, old headers": "tar --format=gnu -cSf -",
	"GNU tar, sparse 0.1":  "tar --format=posix --sparse-version=0.1 -cSf -",
	"GNU tar, one top":     "tar --xattrs --transform='s,^\\./,rootfs/,;s,^\\.$,rootfs,' -cSf -",
	"bsdtar":               "bsdtar --format=pax --numeric-owner -cf -",
}

// TestConvertIsUnpackAndPack converts what several tars make of trees, compressed by whatever: the result is what unpacking
// and packing again gives, byte for byte.
func TestConvertIsUnpackAndPack(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	for name, nodes := range map[string][]listing.Node{"oddities": treetest.Oddities(), "random": treetest.Random(41, 200)} {
		nodes, _ = without(nodes, listing.Sock)
		dir := build(t, nodes)
		for maker, command := range makers {
			t.Run(name+"/"+maker, func(t *testing.T) {
				made := []byte(tool(t, nil, "sh", "-c", "cd \"$0\" && "+command+" .", dir.Name()))
				want := repacked(t, made, archive.ConvertOptions{})
				for how, argv := range wrappers {
					if (name == "random" || maker != "GNU tar") && how != "pzstd" && how != "plain" {
						continue // all in one place
					}
					t.Run(how, func(t *testing.T) { sameArchive(t, want, convert(t, file(t, wrap(t, made, argv)), conversion(t))) })
				}
			})
		}
	}
}

// TestConvertOwn: an archive of ours is its own conversion, and of other formats and levels it becomes what pack would have made.
func TestConvertOwn(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	for name, nodes := range map[string][]listing.Node{"oddities": treetest.Oddities(), "random": treetest.Random(42, 300), "empty": {{Type: listing.Dir, Name: ".", Mode: 0o700}}} {
		dir := build(t, nodes)
		for _, from := range []archive.Format{archive.Framed, archive.Gzip, archive.Plain} {
			for _, to := range []archive.Format{archive.Framed, archive.Gzip, archive.Plain} {
				for _, level := range []int{0, 1} {
					if level == 1 && (from != archive.Framed || name != "random") {
						continue
					}
					o := options()
					o.Format = from
					in, _ := pack(t, dir, o)
					o.Format, o.Level = to, level
					want, _ := pack(t, dir, o)
					c := conversion(t)
					c.Format, c.Level, c.Workers = to, level, 1+len(want)%7
					if !bytes.Equal(want, convert(t, file(t, in), c)) {
						t.Errorf("%s: %s to %s at level %d is not what pack makes", name, from, to, level)
					}
				}
			}
		}
	}
}

// TestConvertPipe reads and writes no file but the one that it keeps the stream in.
func TestConvertPipe(t *testing.T) {
	r, w, err := os.Pipe()
	check(t, err)
	defer r.Close()
	in := vector(t)
	go func() {
		_, _ = w.Write(in)
		w.Close()
	}()
	sameArchive(t, in, convert(t, r, conversion(t)))
}

// entry is one of a tar stream.
func tarEntry(t testing.TB, h tarfmt.Header, data string) []byte {
	t.Helper()
	h.Size = int64(len(data))
	b, err := h.Append(nil)
	check(t, err)
	return append(append(b, data...), make([]byte, tarfmt.Padding(h.Size))...)
}

func tarOf(entries ...[]byte) []byte {
	return append(slices.Concat(entries...), tarfmt.Trailer[:]...)
}

// TestConvertNames has entries that come twice, in any order, through symlinks, or not at all.
func TestConvertNames(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	dir := func(name string) []byte {
		return tarEntry(t, tarfmt.Header{Name: name, Type: tarfmt.Dir, Mode: 0o755}, "")
	}
	reg := func(name, data string) []byte {
		return tarEntry(t, tarfmt.Header{Name: name, Type: tarfmt.Reg, Mode: 0o644, UID: uint32(len(data))}, data)
	}
	link := func(name, to string) []byte {
		return tarEntry(t, tarfmt.Header{Name: name, Link: to, Type: tarfmt.Link}, "")
	}
	sym := func(name, to string) []byte {
		return tarEntry(t, tarfmt.Header{Name: name, Link: to, Type: tarfmt.Symlink, Mode: 0o644}, "")
	}
	dev := func(name string, minor uint32) []byte {
		return tarEntry(t, tarfmt.Header{Name: name, Type: tarfmt.Char, DevMajor: 1, DevMinor: minor, Mode: 0o666}, "")
	}
	for name, c := range map[string]struct {
		tar []byte
		o   archive.ConvertOptions
	}{
		"no root":                    {tarOf(reg("z", "1"), dir("a/"), reg("a/b", "22")), archive.ConvertOptions{}},
		"root last":                  {tarOf(reg("./z", "1"), reg("./a", "22"), dir("./")), archive.ConvertOptions{}},
		"no parents":                 {tarOf(reg("a/b/c", "1"), reg("a.x", "22"), dir("a/b/")), archive.ConvertOptions{}},
		"twice":                      {tarOf(dir("./"), reg("./a", "1"), reg("./b", "22"), reg("./a", "333")), archive.ConvertOptions{}},
		"twice, linked before":       {tarOf(dir("./"), reg("./a", "1"), link("./b", "./a"), reg("./a", "333")), archive.ConvertOptions{}},
		"twice, the link replaced":   {tarOf(dir("./"), reg("./a", "1"), link("./b", "./a"), reg("./b", "333")), archive.ConvertOptions{}},
		"link sorted first":          {tarOf(dir("./"), reg("./z", "1"), link("./b", "./z"), link("./a", "./b")), archive.ConvertOptions{}},
		"file, then directory":       {tarOf(dir("./"), reg("./a", "1"), dir("./a/"), reg("./a/b", "22")), archive.ConvertOptions{}},
		"empty directory, then file": {tarOf(dir("./"), dir("./a/"), reg("./a", "1")), archive.ConvertOptions{}},
		"through a symlink":          {tarOf(dir("./"), dir("./usr/"), dir("./usr/lib/"), sym("./lib", "usr/lib"), reg("./lib/a", "1"), link("./b", "./lib/a")), archive.ConvertOptions{}},
		"through absolute symlinks":  {tarOf(dir("./"), dir("./usr/"), dir("./usr/lib/"), sym("./lib", "/usr/../../lib2"), sym("./lib2", "/usr/lib/."), reg("./lib/a", "1")), archive.ConvertOptions{}},
		"excluded link target":       {tarOf(dir("./"), reg("./a", "1"), link("./b", "./a"), link("./c", "./b")), archive.ConvertOptions{Exclude: archive.Excludes{"a"}}},
		"excluded tree":              {tarOf(dir("./"), dir("./a/"), reg("./a/x", "1"), link("./b", "./a/x"), reg("./c", "22")), archive.ConvertOptions{Exclude: archive.Excludes{"./a/"}}},
		"excluded content":           {tarOf(dir("./"), dir("./a/"), reg("./a/x", "1"), link("./b", "./a/x")), archive.ConvertOptions{Exclude: archive.Excludes{"a/*"}}},
		"one top":                    {tarOf(dir("rootfs/"), reg("rootfs/a", "1"), link("rootfs/b", "rootfs/a")), archive.ConvertOptions{}},
		"one top, kept":              {tarOf(dir("rootfs/"), reg("rootfs/a", "1")), archive.ConvertOptions{KeepTop: true}},
		"another top":                {tarOf(dir("x/"), reg("x/a", "1")), archive.ConvertOptions{Top: "x"}},
		"devices":                    {tarOf(dir("./"), dev("./null", 3), link("./null2", "./null"), reg("./a", "1")), archive.ConvertOptions{}},
		"devices, skipped":           {tarOf(dir("./"), dev("./null", 3), link("./null2", "./null"), reg("./a", "1")), archive.ConvertOptions{Policy: archive.Policy{Devices: archive.Skip}}},
		"clamped":                    {tarOf(dir("./"), tarEntry(t, tarfmt.Header{Name: "./a", Type: tarfmt.Fifo, ModTime: tarfmt.Time{Sec: 5, Nsec: 1}}, "")), archive.ConvertOptions{ClampMTime: new(int64)}},
	} {
		t.Run(name, func(t *testing.T) {
			o := c.o
			o.Temp, o.Workers = conversion(t).Temp, 2
			sameArchive(t, repacked(t, c.tar, o), convert(t, file(t, c.tar), o))
		})
	}
	o := conversion(t)
	for name, c := range map[string]struct {
		tar   []byte
		words []string
	}{
		"outside":              {tarOf(dir("./"), reg("./../a", "1")), []string{".."}},
		"below a file":         {tarOf(dir("./"), reg("./a", "1"), reg("./a/b", "1")), []string{"a/b", "no directory"}},
		"below nothing":        {tarOf(dir("./"), sym("./a", "x"), reg("./a/b", "1")), []string{"a/b", "leads to nothing"}},
		"a full directory":     {tarOf(dir("./"), reg("./a/b", "1"), reg("./a", "1")), []string{`"./a"`, "not empty"}},
		"symlinks in a circle": {tarOf(dir("./"), sym("./a", "b"), sym("./b", "a"), reg("./a/c", "1")), []string{"symlinks"}},
		"link to nothing":      {tarOf(dir("./"), link("./a", "./b")), []string{"./a", "./b"}},
		"link to itself":       {tarOf(dir("./"), reg("./a", "1"), link("./a", "a")), []string{"itself"}},
		"link to a directory":  {tarOf(dir("./"), dir("./a/"), link("./b", "a")), []string{"directory"}},
		"root is a file":       {tarOf(reg(".", "x")), []string{"root"}},
		"nothing":              {tarOf(), []string{"no entries"}},
		"a device, refused":    {tarOf(dir("./"), dev("./null", 3)), []string{"null", "device"}},
	} {
		t.Run(name, func(t *testing.T) {
			o := o
			if strings.HasPrefix(name, "a device") {
				o.Policy.Devices = archive.Fail
			}
			_, err := archive.Convert(t.Context(), file(t, c.tar), &bytes.Buffer{}, o)
			wantError(t, err, c.words...)
		})
	}
}

// TestConvertMember takes archives out of others, whatever both are compressed with.
func TestConvertMember(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	nodes, _ := without(treetest.Random(43, 100), listing.Sock)
	dir := build(t, nodes)
	made := []byte(tool(t, nil, "sh", "-c", "cd \"$0\" && tar --xattrs --numeric-owner -cpSf - .", dir.Name()))
	want := repacked(t, made, archive.ConvertOptions{})
	for _, inner := range []string{"plain", "gzip", "zstd"} {
		for _, outer := range []string{"plain", "xz", "zstd", "pzstd"} {
			object := filepath.Join(t.TempDir(), "object")
			check(t, os.Mkdir(object, 0o755))
			check(t, os.WriteFile(filepath.Join(object, "rootfs.tar"), wrap(t, made, wrappers[inner]), 0o644))
			check(t, os.WriteFile(filepath.Join(object, "other"), []byte(strings.Repeat("x", 100000)), 0o644))
			made := wrap(t, []byte(tool(t, nil, "tar", "-C", object, "-cf", "-", "./other", "./rootfs.tar")), wrappers[outer])
			o := conversion(t)
			o.Member = "rootfs.tar"
			t.Run(fmt.Sprintf("%s in %s", inner, outer), func(t *testing.T) {
				sameArchive(t, want, convert(t, file(t, made), o))
				o.Member = "./other"
				_, err := archive.Convert(t.Context(), file(t, made), &bytes.Buffer{}, o)
				wantError(t, err, "member ./other", "neither a tar archive")
				o.Member = "rootfs"
				_, err = archive.Convert(t.Context(), file(t, made), &bytes.Buffer{}, o)
				wantError(t, err, "no member rootfs", "./rootfs.tar")
			})
		}
	}
}

// relabelled is an archive of the same frames whose table of contents says that another encoder made them.
func relabelled(t testing.TB, archived []byte, encoder string) []byte {
	t.Helper()
	f, c := contents(t, archived)
	z, err := zframe.NewEncoder(3)
	check(t, err)
	w := toc.NewWriter(z)
	for i := range c.Entries {
		check(t, w.Add(&c.Entries[i]))
	}
	tail, err := w.Finish(toc.Header{Encoder: encoder, Policy: c.Header.Policy}, c.Frames)
	check(t, err)
	return append(slices.Clone(archived[:f.End()]), tail...)
}

// TestConvertReuses: frames that an exclusion does not touch are copied compressed. The input's were made at another level than its
// table says, so that nobody would make them so.
func TestConvertReuses(t *testing.T) {
	dir := ownTree(t, 900, 16<<10)
	check(t, filepath.Walk(dir.Name(), func(path string, st os.FileInfo, err error) error {
		if err != nil || st.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		for i := range b {
			b[i] &= 0x13 // else no level can do anything
		}
		return errors.Join(err, os.WriteFile(path, b, 0o644))
	}))
	settle(t, dir)
	o := ownOptions()
	level3, _ := pack(t, dir, o)
	_, c := contents(t, level3)
	o.Level = 1
	level1, _ := pack(t, dir, o)
	o.Level, o.Exclude = 0, archive.Excludes{"d0009/f0455"}
	without, _ := pack(t, dir, o)

	before, _ := contents(t, level1)
	had := map[string]bool{}
	for i := range before.Frames() {
		stored, err := before.ReadStored(i, nil)
		check(t, err)
		had[string(stored)] = true
	}
	conv := conversion(t)
	conv.Exclude, conv.Policy = o.Exclude, o.Policy
	got := convert(t, file(t, relabelled(t, level1, c.Header.Encoder)), conv)
	after, _ := contents(t, got)
	made, _ := contents(t, without)
	copied, anew := 0, 0
	for i := range after.Frames() {
		stored, err := after.ReadStored(i, nil)
		check(t, err)
		if had[string(stored)] {
			copied++
			continue
		}
		anew++
		if want, err := made.ReadStored(i, nil); err != nil || !bytes.Equal(stored, want) {
			t.Errorf("frame %d is neither the input's nor what pack makes", i)
		}
	}
	t.Logf("%d frames copied, %d made", copied, anew)
	if copied < 4 || anew < 1 || anew > 5 {
		t.Errorf("%d frames are copies and %d are new, of %d", copied, anew, len(before.Frames()))
	}
	if !bytes.Equal(raw(t, without), raw(t, got)) {
		t.Error("the tar stream is not that of the tree without the file")
	}
	_, err := archive.Verify(t.Context(), file(t, got), 2)
	check(t, err)

	honest := convert(t, file(t, level1), conv) // its table tells that level 3 makes others
	sameArchive(t, without, honest)
}
