package idshift

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSubIDFile(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []Range
		notes      []string // parts of the notes, in order
		err        string
	}{
		{name: "by name", text: "builder:100000:65536\n", want: []Range{{100000, 65536}}},
		{name: "by uid", text: "1001:100000:65536", want: []Range{{100000, 65536}}},
		{name: "by second name", text: "build2:100000:65536", want: []Range{{100000, 65536}}},
		{name: "order of the file", text: "builder:300000:5\nother:1:1\n1001:100000:65536\n", want: []Range{{300000, 5}, {100000, 65536}}},
		{name: "blank, comment, CRLF", text: "\r\n# builder:1:1\r\n\n  \nbuilder:100000:65536\r\n#\r\n", want: []Range{{100000, 65536}}},
		{name: "names that contain the name", text: "builder2:1:1\nmybuilder:2:1\n10010:3:1\n", want: nil},
		{name: "bad lines of others", text: "other:x:1\nother\n:::\n:\nother:1:1:1\nother:5:0\nbuilder:7:1\n", want: []Range{{7, 1}}},
		{name: "last id", text: "builder:4294967294:1", want: []Range{{4294967294, 1}}},
		{name: "same line twice, name and uid", text: "builder:100000:65536\n1001:100000:65536\n", want: []Range{{100000, 65536}},
			notes: []string{"subuid:2: shares ids 100000 to 165535 with line 1, which are counted once"}},
		{name: "overlap", text: "builder:100:10\n#\nbuilder:95:10\nbuilder:90:30", want: []Range{{100, 10}, {95, 5}, {90, 5}, {110, 10}},
			notes: []string{":3: shares ids 100 to 104 with line 1,", ":4: shares ids 100 to 109 with line 1,", ":4: shares ids 95 to 104 with line 3,"}},
		{name: "overlap with others", text: "other:105:10\nbuilder:100:10\nlast:0:101\n", want: []Range{{100, 10}},
			notes: []string{`subuid:2: shares ids 105 to 109 with line 1, which belong to "other" as well`, `with line 3, which belong to "last"`}},
		{name: "others overlap", text: "other:105:10\nthird:100:10\nbuilder:1:1\n", want: []Range{{1, 1}}},
		{name: "bad first", text: "\nbuilder:x:1\n", err: `subuid:2: "x" is not a number`},
		{name: "bad count", text: "other:1:1\nbuilder:1:-1\n", err: `subuid:2: "-1" is not a number`},
		{name: "too large", text: "1001:1:4294967296\n", err: `subuid:1: "4294967296" is not a number`},
		{name: "empty count", text: "builder:1:\n", err: `subuid:1: "" is not a number`},
		{name: "missing count", text: "builder:1\n", err: `subuid:1: "builder:1" is not OWNER:FIRST:COUNT`},
		{name: "only the name", text: "builder\n", err: "subuid:1"},
		{name: "extra field", text: "builder:1:1:1\n", err: "subuid:1"},
		{name: "hexadecimal", text: "builder:0x10:1\n", err: "subuid:1"},
		{name: "no ids", text: "builder:1:0\n", err: "subuid:1: a range of 0 ids"},
		{name: "beyond the last id", text: "builder:4294967290:6\n", err: "subuid:1: 6 ids from 4294967290 on go beyond id 4294967294"},
		{name: "good line before bad line", text: "builder:1:1\nbuilder:b:1\n", err: "subuid:2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lines, err := parseSubIDs(strings.NewReader(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			got, notes, err := own("subuid", lines, []string{"builder", "build2", "1001"})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got %v, %v; want %q", got, err, tt.err)
				}
				return
			}
			if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
				t.Errorf("%v %s", err, diff)
			}
			if len(notes) != len(tt.notes) {
				t.Fatalf("notes: %q", notes)
			}
			for i, n := range notes {
				if !strings.Contains(n, tt.notes[i]) {
					t.Errorf("note %q, want %q", n, tt.notes[i])
				}
			}
		})
	}
	if _, err := parseSubIDs(strings.NewReader(strings.Repeat("x", 1<<20))); err == nil {
		t.Error("a line of a mebibyte was taken")
	}
}

func TestFreeID(t *testing.T) {
	for _, tt := range []struct {
		text string
		want uint32
	}{
		{"", 100000},
		{"a:100000:65536", 165536},
		{"a:165536:65536\nb:100000:65536\n", 231072},
		{"a:1000:1", 100000},
		{"a:165535:1", 165536},
		{"a:165536:1", 100000},
		{"a:90000:10001", 100001},
		{"a:0:4294967295", 0},
		{"a:100000:4294867295\n", 0},
		{"a:bad:1", 100000},
	} {
		lines, err := parseSubIDs(strings.NewReader(tt.text))
		if got := freeID(lines); got != tt.want || err != nil {
			t.Errorf("%q: got %d, want %d; %v", tt.text, got, tt.want, err)
		}
	}
}

// FuzzSubIDs checks that lines of others never change what the caller gets, and that his ranges are disjoint ids that his
// lines name.
func FuzzSubIDs(f *testing.F) {
	for _, s := range []string{
		"builder:100000:65536\n", "1001:1:5\r\nbuilder:3:9\n# x\n\n", "other:1\nbuilder:4294967294:1", "builder:1:0", ":::\x00\n\xff:1:1", "builder:1:1:builder",
	} {
		f.Add(s, "other:5:100\nbad\n")
	}
	f.Fuzz(func(t *testing.T, text, others string) {
		names := []string{"builder", "1001"}
		lines, err := parseSubIDs(strings.NewReader(text))
		if err != nil {
			return
		}
		got, _, err := own("f", lines, names)
		more, merr := parseSubIDs(strings.NewReader(text + "\n" + others))
		if merr != nil {
			return
		}
		foreign := more[len(lines):]
		for _, l := range foreign {
			if l.owner == "builder" || l.owner == "1001" {
				return
			}
		}
		got2, _, err2 := own("f", more, names)
		if diff := cmp.Diff(got, got2); diff != "" || fmt.Sprint(err) != fmt.Sprint(err2) {
			t.Fatalf("%q after %q: %v, %v %s", others, text, err, err2, diff)
		}
		for i, r := range got {
			if r.Count == 0 || r.end() > uint64(maxID)+1 {
				t.Fatalf("%q: range %v", text, r)
			}
			for _, o := range got[:i] {
				if uint64(r.First) < o.end() && uint64(o.First) < r.end() {
					t.Fatalf("%q: %v and %v overlap", text, r, o)
				}
			}
			if rest := without(r, named(lines, names)); len(rest) > 0 {
				t.Fatalf("%q: nobody gave %v", text, rest)
			}
		}
		if free := freeID(more); free != 0 && len(without(Range{free, usualCount}, named(more, nil))) != 1 {
			t.Fatalf("%q: %d is not free", text, free)
		}
	})
}

// named returns the ranges of the lines of the owners, nil meaning all.
func named(lines []subID, owners []string) []Range {
	var out []Range
	for _, l := range lines {
		if owners == nil || l.owner == owners[0] || l.owner == owners[1] {
			out = append(out, l.Range)
		}
	}
	return out
}
