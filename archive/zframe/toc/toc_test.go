package toc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/nsferry/nsferry/archive/zframe"
)

const digestA = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// Every kind of entry and the line that FORMAT §3 gives it.
var golden = []struct {
	entry Entry
	line  string
}{
	{Entry{Name: ".", Type: Dir, Mode: 0o755, HeaderLen: 1536}, `{"n":".","t":"d","m":493,"hl":1536}`},
	{Entry{Name: "a", Type: File, Digest: [32]byte{1}, Offset: 1536, HeaderLen: 512},
		`{"n":"a","t":"f","d":"` + digestA + `","o":1536,"hl":512}`},
	{Entry{Name: "b%\n\x7f\xff\"\\é\u2028/x", Type: File, Mode: 0o4755, UID: 65534, GID: 4294967294, Size: 5, ModTime: Time{1700000000, 500000000}, Digest: [32]byte{1},
		Xattrs: []Xattr{{"user.a=%", []byte("\x00\xff")}, {"user.e", []byte{}}}, ACL: "user::rwx", DefaultACL: "x", Frame: 1, Offset: 512, HeaderLen: 2048},
		`{"n":"b%25%0A%7F%FF\"\\é` + "\u2028" + `/x","t":"f","m":2541,"u":65534,"g":4294967294,"s":5,"mt":1700000000.5,"d":"` + digestA +
			`","x":{"user.a=%25":"AP8","user.e":""},"a":"user::rwx","ad":"x","f":1,"o":512,"hl":2048}`},
	{Entry{Name: "c", Type: HardLink, Link: "a", Frame: 1, Offset: 4096, HeaderLen: 512}, `{"n":"c","t":"h","l":"a","f":1,"o":4096,"hl":512}`},
	{Entry{Name: "d", Type: Symlink, Link: "/usr/../bin\t", ModTime: Time{-1, 999999999}, Frame: 1, Offset: 5120, HeaderLen: 512},
		`{"n":"d","t":"l","mt":-0.000000001,"l":"/usr/../bin%09","f":1,"o":5120,"hl":512}`},
	{Entry{Name: "e", Type: Char, DevMajor: 1, DevMinor: 1048575, ModTime: Time{-2, 0}, Frame: 1, Offset: 6144, HeaderLen: 512},
		`{"n":"e","t":"c","mt":-2,"dev":[1,1048575],"f":1,"o":6144,"hl":512}`},
	{Entry{Name: "f", Type: Block, DevMinor: 7, Frame: 2, HeaderLen: 512}, `{"n":"f","t":"b","dev":[0,7],"f":2,"hl":512}`},
	{Entry{Name: "g", Type: Fifo, Frame: 2, Offset: 512, HeaderLen: 512}, `{"n":"g","t":"p","f":2,"o":512,"hl":512}`},
	{Entry{Name: "h", Type: File, Size: 1 << 40, Digest: [32]byte{1}, Sparse: []Segment{{0, 4096}, {1 << 30, 1}}, Frame: 2, Offset: 1024, HeaderLen: 512},
		`{"n":"h","t":"f","s":1099511627776,"d":"` + digestA + `","sp":[0,4096,1073741824,1],"f":2,"o":1024,"hl":512}`},
	{Entry{Name: "i", Type: File, Size: 70000, Digest: [32]byte{1}, Sparse: []Segment{}, Frame: 2, Offset: 7168, HeaderLen: 512},
		`{"n":"i","t":"f","s":70000,"d":"` + digestA + `","sp":[],"f":2,"o":7168,"hl":512}`},
}

func TestEntryLines(t *testing.T) {
	for _, c := range golden {
		if got := string(appendEntry(nil, &c.entry)); got != c.line {
			t.Errorf("line\n%s, want\n%s", got, c.line)
		}
		if !json.Valid([]byte(c.line)) || !utf8.ValidString(c.line) {
			t.Errorf("not JSON: %s", c.line)
		}
		var e Entry
		if err := parseEntry([]byte(c.line), &e); err != nil {
			t.Errorf("%s: %v", c.line, err)
		} else if d := cmp.Diff(c.entry, e); d != "" {
			t.Error(d)
		}
	}
}

func TestEscape(t *testing.T) {
	for name, want := range map[string]string{"plain/ü": "plain/ü", "%": "%25", "\x00\x1f\x7f": "%00%1F%7F", "\xff\xc3": "%FF%C3", `"\`: `"\`, "": "",
		"\xed\xa0\x80": "%ED%A0%80", "\uFFFD": "\uFFFD", "a\nb": "a%0Ab"} {
		if got := Escape(name); got != want {
			t.Errorf("Escape(%q) = %q, want %q", name, got, want)
		}
		if got, err := Unescape(want); err != nil || got != name {
			t.Errorf("Unescape(%q) = %q, %v", want, got, err)
		}
	}
	for _, text := range []string{"%", "a%2", "%2x", "%aF", "%%25"} {
		if got, err := Unescape(text); err == nil {
			t.Errorf("Unescape(%q) = %q", text, got)
		}
	}
}

func TestUnknownFieldsAreIgnored(t *testing.T) {
	for _, extra := range []string{`1`, `-1.5e3`, `"x\u0041%"`, `null`, `[1,[2,{"n":3}]]`, `{"t":"f"}`, `"\"}"`} {
		var e Entry
		line := `{"n":"a","new":` + extra + `,"t":"d","hl":512,"newer":` + extra + `}`
		if err := parseEntry([]byte(line), &e); err != nil || e.Name != "a" || e.HeaderLen != 512 {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestHostileEntryLines(t *testing.T) {
	for _, line := range []string{
		``, `{`, `{}`, `[]`, `null`, `{"n":"a"`, `{"n":"a","t":"d","hl":512}x`, `{"n":"a","t":"d","hl":512},`, `{"n":"a","t":"d","hl":512,}`, `{ "n":"a","t":"d","hl":512}`,
		`{"n":1,"t":"d","hl":512}`, `{"n":"a","t":"x","hl":512}`, `{"n":"a","t":"","hl":512}`, `{"n":"a","t":"dd","hl":512}`, `{"n":"a","t":1,"hl":512}`,
		`{"n":"a","t":"d"}`, `{"n":"a","hl":512}`, `{"t":"d","hl":512}`, `{"n":"a","n":"a","t":"d","hl":512}`, `{"n":"a","t":"d","hl":512,"hl":512}`,
		`{"n":"","t":"d","hl":512}`, `{"n":"/a","t":"d","hl":512}`, `{"n":"a/","t":"d","hl":512}`, `{"n":"a//b","t":"d","hl":512}`, `{"n":"../a","t":"d","hl":512}`,
		`{"n":"a/..","t":"d","hl":512}`, `{"n":"./a","t":"d","hl":512}`, `{"n":"a%00","t":"d","hl":512}`, `{"n":"a%0a","t":"d","hl":512}`, `{"n":"a%","t":"d","hl":512}`,
		`{"n":"a\u0041","t":"d","hl":512}`, "{\"n\":\"a\xff\",\"t\":\"d\",\"hl\":512}", "{\"n\":\"a\x01\",\"t\":\"d\",\"hl\":512}", `{"n":"a\`, `{"n":"a\"`,
		`{"n":"a","t":"d","m":4096,"hl":512}`, `{"n":"a","t":"d","m":-1,"hl":512}`, `{"n":"a","t":"d","m":"7","hl":512}`, `{"n":"a","t":"d","m":07,"hl":512}`, `{"n":"a","t":"d","m":1.0,"hl":512}`, `{"n":"a","t":"d","m":1e2,"hl":512}`,
		`{"n":"a","t":"d","u":4294967295,"hl":512}`, `{"n":"a","t":"d","g":4294967295,"hl":512}`, `{"n":"a","t":"d","u":99999999999999999999999,"hl":512}`, `{"n":"a","t":"d","u":18446744073709551617,"hl":512}`,
		`{"n":"a","t":"d","mt":1.,"hl":512}`, `{"n":"a","t":"d","mt":1.50,"hl":512}`, `{"n":"a","t":"d","mt":1.0000000001,"hl":512}`, `{"n":"a","t":"d","mt":"1","hl":512}`, `{"n":"a","t":"d","mt":99999999999999999999,"hl":512}`,
		`{"n":"a","t":"f","hl":512}`, `{"n":"a","t":"f","d":"` + digestA[1:] + `","hl":512}`, `{"n":"a","t":"f","d":"` + digestA[1:] + `B","hl":512}`, `{"n":"a","t":"f","d":"` + digestA[1:] + `+","hl":512}`, `{"n":"a","t":"d","d":"` + digestA + `","hl":512}`,
		`{"n":"a","t":"l","hl":512}`, `{"n":"a","t":"d","l":"x","hl":512}`, `{"n":"a","t":"h","l":"/x","hl":512}`, `{"n":"a","t":"d","s":1,"hl":512}`, `{"n":"a","t":"d","sp":[],"hl":512}`,
		`{"n":"a","t":"c","dev":[1],"hl":512}`, `{"n":"a","t":"c","dev":[1,2,3],"hl":512}`, `{"n":"a","t":"c","dev":[1,-2],"hl":512}`, `{"n":"a","t":"c","dev":[1,4294967296],"hl":512}`, `{"n":"a","t":"d","dev":[1,2],"hl":512}`,
		`{"n":"a","t":"d","x":[],"hl":512}`, `{"n":"a","t":"d","x":{"k":1},"hl":512}`, `{"n":"a","t":"d","x":{"k":"A"},"hl":512}`, `{"n":"a","t":"d","x":{"k":"AA=="},"hl":512}`, `{"n":"a","t":"d","x":{"k":"AB"},"hl":512}`, `{"n":"a","t":"d","x":{"k":"AA","k":"AA"},"hl":512}`, `{"n":"a","t":"d","x":{"l":"AA","k":"AA"},"hl":512}`,
		`{"n":"a","t":"f","s":10,"d":"` + digestA + `","sp":[0],"hl":512}`, `{"n":"a","t":"f","s":10,"d":"` + digestA + `","sp":[0,11],"hl":512}`, `{"n":"a","t":"f","s":10,"d":"` + digestA + `","sp":[5,2,6,1],"hl":512}`, `{"n":"a","t":"f","s":10,"d":"` + digestA + `","sp":[0,1,],"hl":512}`,
		`{"n":"a","t":"f","s":10,"d":"` + digestA + `","sp":[9,9223372036854775807],"hl":512}`,
		`{"n":"a","t":"d","hl":0}`, `{"n":"a","t":"d","hl":100}`, `{"n":"a","t":"d","o":1,"hl":512}`, `{"n":"a","t":"d","f":-1,"hl":512}`, `{"n":"a","t":"d","new":tru,"hl":512}`, `{"n":"a","t":"d","new":,"hl":512}`, `{"n":"a","t":"d","new":[1,"hl":512}`,
	} {
		var e Entry
		if err := parseEntry([]byte(line), &e); err == nil {
			t.Errorf("accepted: %s", line)
		}
	}
}

func TestCompareNames(t *testing.T) {
	sorted := []string{"a", "a/b", "a/b/c", "a/z", "a b", "a!", "a-b", "a.b", "a0", "aa", "b", "\xff"}
	for i, a := range sorted {
		for j, b := range sorted {
			// The oracle compares as FORMAT §1 says: bytewise, component by component.
			want := slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
			if got := compareNames(a, b); (got < 0) != (want < 0) || (got > 0) != (want > 0) {
				t.Errorf("compareNames(%q, %q) = %d, want %d (%d, %d)", a, b, got, want, i, j)
			}
		}
	}
}

// seal makes an archive of lines, whose frames are those that head and frames tell of, or not.
func seal(tb testing.TB, lines ...string) *zframe.File {
	tb.Helper()
	enc, err := zframe.NewEncoder(1)
	if err != nil {
		tb.Fatal(err)
	}
	stored := enc.Encode(nil, make([]byte, 8192))
	if len(stored) != storedLen {
		tb.Fatalf("frames have %d bytes", len(stored))
	}
	file := bytes.Repeat(stored, 2)
	table, err := zframe.AppendTOCFrame(nil, enc.Encode(nil, []byte(strings.Join(lines, ""))))
	if err != nil {
		tb.Fatal(err)
	}
	spans := []zframe.Span{{Stored: storedLen, Raw: 8192}, {Stored: storedLen, Raw: 8192}, {Stored: int64(len(table))}}
	file, err = zframe.AppendSeekTable(append(file, table...), spans)
	if err != nil {
		tb.Fatal(err)
	}
	f, err := zframe.Open(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

const storedLen = 15

func TestHostileTables(t *testing.T) {
	end := fmt.Sprint(2 * storedLen)
	head := `{"nsferry":1,"encoder":"e/1","entries":3,"frames":2,"raw":16384,"end":` + end + `}` + "\n"
	root := `{"n":".","t":"d","hl":1024}` + "\n"
	a, b := `{"n":"a","t":"p","o":1024,"hl":512}`+"\n", `{"n":"b","t":"p","f":1,"hl":8192}`+"\n"
	frame := func(n int, raw, stored int64) string {
		return fmt.Sprintf(`{"F":%d,"i":"%s","r":%d,"c":%d,"h":"%s"}`+"\n", n, digestA, raw, stored, digestA)
	}
	f0, f1 := frame(0, 8192, storedLen), frame(1, 8192, storedLen)
	if c, err := ReadAll(seal(t, head, root, a, b, f0, f1)); err != nil || len(c.Entries) != 3 || len(c.Frames) != 2 {
		t.Fatalf("the good one: %v", err)
	}
	swap := func(old, new string) []string {
		return []string{strings.Replace(head, old, new, 1), root, a, b, f0, f1}
	}
	for name, lines := range map[string][]string{
		"empty": {""}, "no header": {root, a, b, f0, f1}, "version 2": swap(`"nsferry":1`, `"nsferry":2`), "no version": swap(`"nsferry":1,`, ``), "no encoder": swap(`"encoder":"e/1",`, ``),
		"entries too many": swap(`"entries":3`, `"entries":4`), "entries too few": swap(`"entries":3`, `"entries":2`), "entries absurd": swap(`"entries":3`, `"entries":33`),
		"entries text": swap(`"entries":3`, `"entries":"3"`), "frames": swap(`"frames":2`, `"frames":3`), "raw": swap(`16384`, `16385`), "end": swap(`"end":`+end, `"end":7`),
		"policy": swap(`"end":`+end, `"end":`+end+`,"policy":[]`), "policy twice": swap(`"end":`+end, `"end":`+end+`,"policy":{"a":"b","a":"b"}`),
		"cut":     {head, root, a, b, f0, f1[:len(f1)-1]},
		"no root": {head, strings.Replace(root, `"."`, `"A"`, 1), a, b, f0, f1}, "root is no directory": {head, strings.Replace(root, `"d"`, `"p"`, 1), a, b, f0, f1}, "root not at 0": {head, strings.Replace(root, `"hl"`, `"o":512,"hl"`, 1), a, b, f0, f1},
		"two roots": {head, root, strings.Replace(a, `"n":"a"`, `"n":"."`, 1), b, f0, f1}, "twice": {head, root, a, strings.Replace(b, `"n":"b"`, `"n":"a"`, 1), f0, f1},
		"unsorted": {head, root, strings.Replace(a, `"n":"a"`, `"n":"c"`, 1), b, f0, f1}, "overlap": {head, root, strings.Replace(a, `"o":1024`, `"o":512`, 1), b, f0, f1},
		"backwards":        {head, root, strings.Replace(a, `"o":1024`, `"f":1`, 1), strings.Replace(b, `"f":1,"hl":8192`, `"o":4096,"hl":512`, 1), f0, f1},
		"behind its frame": {head, root, strings.Replace(a, `"o":1024`, `"o":8192`, 1), b, f0, f1}, "headers too long": {head, root, a, strings.Replace(b, `8192`, `8704`, 1), f0, f1},
		"frame that is not": {head, root, a, strings.Replace(b, `"f":1`, `"f":2`, 1), f0, f1},
		"frame twice":       {head, root, a, b, f0, f0}, "frames swapped": {head, root, a, b, f1, f0}, "frame missing": {head, root, a, b, f0}, "frame too many": {head, root, a, b, f0, f1, frame(2, 1, 1)},
		"frame raw": {head, root, a, b, f0, frame(1, 8193, storedLen)}, "frame stored": {head, root, a, b, frame(0, 8192, 9), f1}, "frame field": {head, root, a, b, f0, strings.Replace(f1, `"i"`, `"j"`, 1)},
		"frame digest": {head, root, a, b, f0, strings.Replace(f1, digestA, digestA+"A", 1)}, "garbage behind": {head, root, a, b, f0, f1, "\n"}, "empty line": {head, root, "\n", a, b, f0, f1},
		"a line without end": {head, `{"n":"` + strings.Repeat("x", MaxLine)},
	} {
		_, err := ReadAll(seal(t, lines...))
		if bad := (*zframe.CorruptError)(nil); !errors.As(err, &bad) || !strings.HasPrefix(bad.Where, "table of contents line ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLongLines(t *testing.T) {
	e := Entry{Name: "x", Type: File, HeaderLen: 512, Size: math.MaxInt64}
	for i := range int64(100_000) {
		e.Sparse = append(e.Sparse, Segment{i << 30, 4096})
	}
	line := string(appendEntry(nil, &e)) + "\n"
	d := fmt.Sprintf(`,"i":"%s","r":8192,"c":%d,"h":"%s"}`+"\n", digestA, storedLen, digestA)
	c, err := ReadAll(seal(t, fmt.Sprintf(`{"nsferry":1,"encoder":"e/1","entries":2,"frames":2,"raw":16384,"end":%d}`+"\n", 2*storedLen),
		`{"n":".","t":"d","hl":512}`+"\n", strings.Replace(line, `"hl"`, `"o":512,"hl"`, 1), `{"F":0`+d, `{"F":1`+d))
	if err != nil || len(c.Entries) != 2 || len(c.Entries[1].Sparse) != 100_000 {
		t.Errorf("a line of %d bytes: %v", len(line), err)
	}
	enc, _ := zframe.NewEncoder(1)
	e.Xattrs = []Xattr{{"user.x", make([]byte, MaxLine)}}
	if err := NewWriter(enc).Add(&e); err == nil || !strings.Contains(err.Error(), "entry x") {
		t.Errorf("a line that no reader takes is written: %v", err)
	}
}

// FuzzEntry reads whatever comes; what is accepted must come back from its own line.
func FuzzEntry(f *testing.F) {
	for _, c := range golden {
		f.Add(c.line)
	}
	f.Add(`{"n":"a","new":[1,{"x":null}],"t":"d","hl":512}`)
	f.Fuzz(func(t *testing.T, line string) {
		var e, again Entry
		if parseEntry([]byte(line), &e) != nil {
			return
		}
		if !json.Valid([]byte(line)) {
			t.Fatalf("accepted, but no JSON: %q", line)
		}
		if err := parseEntry(appendEntry(nil, &e), &again); err != nil {
			t.Fatalf("%q: %v", appendEntry(nil, &e), err)
		}
		if d := cmp.Diff(e, again); d != "" {
			t.Fatal(d)
		}
	})
}

// FuzzTable reads whole tables.
func FuzzTable(f *testing.F) {
	f.Add(`{"nsferry":1,"encoder":"e/1","entries":1,"frames":2,"raw":16384,"end":30}` + "\n" + `{"n":".","t":"d","hl":512}` + "\n" +
		`{"F":0,"i":"` + digestA + `","r":8192,"c":15,"h":"` + digestA + `"}` + "\n" + `{"F":1,"i":"` + digestA + `","r":8192,"c":15,"h":"` + digestA + `"}` + "\n")
	f.Fuzz(func(t *testing.T, lines string) {
		_, err := ReadAll(seal(t, lines))
		if bad := (*zframe.CorruptError)(nil); err != nil && !errors.As(err, &bad) {
			t.Fatalf("untyped: %v", err)
		}
	})
}

func FuzzEscape(f *testing.F) {
	f.Add("a\xff%\n")
	f.Fuzz(func(t *testing.T, name string) {
		text := Escape(name)
		if back, err := Unescape(text); err != nil || back != name || !utf8.ValidString(text) {
			t.Errorf("%q becomes %q becomes %q, %v", name, text, back, err)
		}
	})
}

// TestInherit writes a table like an earlier one: the chunks that are alike are copied, and the result does not depend on it.
func TestInherit(t *testing.T) {
	enc, err := zframe.NewEncoder(3)
	if err != nil {
		t.Fatal(err)
	}
	frames := []zframe.Frame{{Raw: 20_000 * 512, Stored: 100, Sum: [32]byte{1}, Identity: [32]byte{2}}}
	table := func(known Chunks, changed int) []byte {
		t.Helper()
		w := NewWriter(enc)
		w.Inherit(known)
		for i := range 20_000 {
			e := Entry{Name: fmt.Sprintf("n%06d", i), Type: File, Size: 1, HeaderLen: 512, Offset: int64(i) * 512, Digest: [32]byte{byte(i), byte(i >> 8)}}
			if i == changed {
				e.Size = 2
			}
			if err := w.Add(&e); err != nil {
				t.Fatal(err)
			}
		}
		tail, err := w.Finish(Header{Encoder: enc.Name()}, frames)
		if err != nil {
			t.Fatal(err)
		}
		return tail
	}
	scratch := table(nil, -1)
	file := append(make([]byte, 100), scratch...)
	f, err := zframe.Open(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	_, got, chunks, err := ReadChunks(f)
	if err != nil || len(chunks) < 4 || !cmp.Equal(got, frames) {
		t.Fatalf("%d chunks, frames %+v, %v", len(chunks), got, err)
	}
	if !bytes.Equal(table(chunks, -1), scratch) {
		t.Error("with all chunks of the same table it is another one")
	}
	for _, changed := range []int{0, 10_000, 19_999} {
		if !bytes.Equal(table(chunks, changed), table(nil, changed)) {
			t.Errorf("line %d changed: not what it is from scratch", changed)
		}
	}
	// What is in the chunks is what is written.
	for sum := range chunks {
		chunks[sum] = nil
	}
	if !bytes.Equal(table(chunks, -1), scratch) {
		t.Error("an empty chunk is taken")
	}
	for sum := range chunks {
		chunks[sum] = []byte("here")
	}
	if n := bytes.Count(table(chunks, -1), []byte("here")); n < len(chunks)-1 { // all but the header's
		t.Errorf("of %d chunks %d are copied", len(chunks), n)
	}
}
