package idshift_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/idshift"
)

// caller has the same ids and ranges for both kinds.
func caller(id uint32, ranges ...idshift.Range) idshift.Caller {
	return idshift.Caller{UID: id, GID: id, Name: "builder", UIDRanges: ranges, GIDRanges: ranges}
}

// TestPlanLengths is the table of the nobody rule: B is 100000, the caller 1001, "-" stands for a RangeError.
func TestPlanLengths(t *testing.T) {
	for _, tt := range []struct {
		n                      uint32
		base, caller, identity string
	}{
		{65537, "0:100000:65537", "0:1001:1,1:100001:65536", "0:100000:1001,1001:1001:1,1002:101002:64535"},
		{65536, "0:100000:65536", "0:1001:1,1:100001:65535", "0:100000:1001,1001:1001:1,1002:101002:64534"},
		{65535, "0:100000:65535", "0:1001:1,1:100001:65534", "0:100000:1001,1001:1001:1,1002:101002:64533"},
		{65534, "0:100000:65533,65534:165533:1", "0:1001:1,1:100001:65532,65534:165533:1",
			"0:100000:1001,1001:1001:1,1002:101002:64531,65534:165533:1"},
		{65533, "0:100000:65532,65534:165532:1", "0:1001:1,1:100001:65531,65534:165532:1",
			"0:100000:1001,1001:1001:1,1002:101002:64530,65534:165532:1"},
		{64536, "0:100000:64535,65534:164535:1", "0:1001:1,1:100001:64534,65534:164535:1",
			"0:100000:1001,1001:1001:1,1002:101002:63533,65534:164535:1"},
		{1000, "0:100000:999,65534:100999:1", "0:1001:1,1:100001:998,65534:100999:1", "0:100000:999,1001:1001:1,65534:100999:1"},
		{2, "0:100000:1,65534:100001:1", "0:1001:1,65534:100001:1", "0:100000:1,1001:1001:1,65534:100001:1"},
		// One id can be root or nobody. The caller model brings an id for root along.
		{1, "-", "0:1001:1,65534:100000:1", "-"},
		{0, "-", "-", "-"},
	} {
		for model, want := range map[idshift.Model]string{
			idshift.ModelBase: tt.base, idshift.ModelCaller: tt.caller, idshift.ModelIdentity: tt.identity,
		} {
			t.Run(fmt.Sprintf("%d/%s", tt.n, model), func(t *testing.T) {
				c := caller(1001, idshift.Range{First: 100000, Count: tt.n})
				m, err := idshift.Plan(model, c)
				var short *idshift.RangeError
				if want == "-" {
					if !errors.As(err, &short) || short.Have != tt.n {
						t.Fatalf("got %v, %v; want a RangeError", m, err)
					}
					return
				}
				if err != nil || m.UID.String() != want || m.GID.String() != want {
					t.Fatalf("got %s and %s, want %s; %v", m.UID, m.GID, want, err)
				}
			})
		}
	}
}

// TestPlanOwnID puts the caller's own id at every place that matters.
func TestPlanOwnID(t *testing.T) {
	full, short := idshift.Range{First: 100000, Count: 65536}, idshift.Range{First: 100000, Count: 1000}
	for _, tt := range []struct {
		name  string
		model idshift.Model
		own   uint32
		r     []idshift.Range
		want  string
	}{
		{"root", idshift.ModelIdentity, 0, []idshift.Range{full}, "0:0:1,1:100001:65535"},
		{"root", idshift.ModelCaller, 0, []idshift.Range{full}, "0:0:1,1:100001:65535"},
		{"root", idshift.ModelBase, 0, []idshift.Range{full}, "0:100000:65536"},
		{"root with one id", idshift.ModelIdentity, 0, []idshift.Range{{First: 7, Count: 1}}, "0:0:1,65534:7:1"},
		{"nobody", idshift.ModelIdentity, 65534, []idshift.Range{full}, "0:100000:65534,65534:65534:1,65535:165535:1"},
		{"nobody beyond the range: nothing is spent", idshift.ModelIdentity, 65534, []idshift.Range{short}, "0:100000:1000,65534:65534:1"},
		{"nobody with one id", idshift.ModelIdentity, 65534, []idshift.Range{{First: 7, Count: 1}}, "0:7:1,65534:65534:1"},
		{"nobody as caller", idshift.ModelCaller, 65534, []idshift.Range{short}, "0:65534:1,1:100001:998,65534:100999:1"},
		{"last position, which is idle", idshift.ModelIdentity, 999, []idshift.Range{short}, "0:100000:999,999:999:1,65534:100999:1"},
		{"last but one", idshift.ModelIdentity, 998, []idshift.Range{short}, "0:100000:998,998:998:1,65534:100999:1"},
		{"just beyond", idshift.ModelIdentity, 1000, []idshift.Range{short}, "0:100000:999,1000:1000:1,65534:100999:1"},
		{"last of a full range", idshift.ModelIdentity, 65535, []idshift.Range{full}, "0:100000:65535,65535:65535:1"},
		{"far beyond", idshift.ModelIdentity, 4294967294, []idshift.Range{full}, "0:100000:65536,4294967294:4294967294:1"},
		// A range that holds the caller's own id: the id that its model leaves idle takes the place.
		{"own id in the range", idshift.ModelBase, 100005, []idshift.Range{full}, "0:100000:65536"},
		{"own id in the range", idshift.ModelCaller, 100005, []idshift.Range{full}, "0:100005:1,1:100001:4,5:100000:1,6:100006:65530"},
		{"own id first in the range", idshift.ModelCaller, 100000, []idshift.Range{full}, "0:100000:65536"},
		{"range maps itself", idshift.ModelIdentity, 5, []idshift.Range{{First: 0, Count: 65536}}, "0:0:65536"},
		{"own id in the range", idshift.ModelIdentity, 5, []idshift.Range{{First: 1, Count: 65536}}, "0:1:4,4:6:1,5:5:1,6:7:65530"},
		{"own id last in the range", idshift.ModelCaller, 1002, []idshift.Range{{First: 1000, Count: 3}}, "0:1002:1,2:1000:1,65534:1001:1"},
		// Several ranges: the first is the base, the others continue.
		{"two lines", idshift.ModelBase, 1001, []idshift.Range{{First: 200000, Count: 1000}, full}, "0:200000:1000,1000:100000:65536"},
		{"two short lines", idshift.ModelBase, 1001, []idshift.Range{{First: 300, Count: 2}, {First: 100, Count: 3}}, "0:300:2,2:100:2,65534:102:1"},
		{"last line of one id", idshift.ModelBase, 1001, []idshift.Range{short, {First: 5, Count: 1}}, "0:100000:1000,65534:5:1"},
		{"adjacent lines", idshift.ModelBase, 1001, []idshift.Range{short, {First: 101000, Count: 64536}}, "0:100000:65536"},
		{"overlap", idshift.ModelBase, 1001, []idshift.Range{short, {First: 99990, Count: 1020}, {}}, "0:100000:1000,1000:99990:10,1010:101000:9,65534:101009:1"},
		{"LXD's line for the own id", idshift.ModelCaller, 1001, []idshift.Range{{First: 1001, Count: 1}, full}, "0:1001:1,1:100000:65536"},
		{"two lines", idshift.ModelIdentity, 1001, []idshift.Range{short, {First: 500000, Count: 65536}},
			"0:100000:1000,1000:500000:1,1001:1001:1,1002:500002:65534"},
		{"two lines", idshift.ModelCaller, 1001, []idshift.Range{{First: 7, Count: 1}, full}, "0:1001:1,1:100000:65536"},
	} {
		t.Run(tt.name+"/"+string(tt.model), func(t *testing.T) {
			m, err := idshift.Plan(tt.model, caller(tt.own, tt.r...))
			if err != nil || m.UID.String() != tt.want {
				t.Fatalf("got %s, want %s; %v", m.UID, tt.want, err)
			}
		})
	}
}

func TestPlanKindsSeparately(t *testing.T) {
	c := idshift.Caller{
		UID: 1001, GID: 100, UIDRanges: []idshift.Range{{First: 100000, Count: 65536}}, GIDRanges: []idshift.Range{{First: 300000, Count: 10}},
	}
	m, err := idshift.Plan(idshift.ModelIdentity, c)
	if err != nil {
		t.Fatal(err)
	}
	if got := m.UID.String(); got != "0:100000:1001,1001:1001:1,1002:101002:64534" {
		t.Errorf("uids: %s", got)
	}
	if got := m.GID.String(); got != "0:300000:9,100:100:1,65534:300009:1" {
		t.Errorf("gids: %s", got)
	}
}

func TestPlanErrors(t *testing.T) {
	ok := []idshift.Range{{First: 100000, Count: 65536}}
	var many []idshift.Range
	for i := range uint32(400) {
		many = append(many, idshift.Range{First: 100000 + 2*i, Count: 1})
	}
	for _, tt := range []struct {
		name string
		c    idshift.Caller
		want string
	}{
		{"no uids", idshift.Caller{UID: 1001, Name: "builder", GIDRanges: ok}, "add this line to /etc/subuid: builder:100000:65536"},
		{"no gids", idshift.Caller{UID: 1001, Name: "builder", UIDRanges: ok, FreeGID: 231072}, "add this line to /etc/subgid: builder:231072:65536"},
		{"no name", idshift.Caller{UID: 1001, GIDRanges: ok, FreeUID: 165536}, "no sub-uids: as root, add this line to /etc/subuid: 1001:165536:65536"},
		{"one id", caller(1001, idshift.Range{First: 7, Count: 1}), "1 sub-uids are too few for model base"},
		{"directory service", idshift.Caller{UID: 1001, Name: "builder", Source: "sss"}, `source "sss"`},
		{"range beyond the last id", caller(1001, idshift.Range{First: 4294967290, Count: 6}), "go beyond id 4294967294"},
		{"no own id", caller(4294967295, ok...), "4294967295 is no id"},
		{"too many lines", caller(1001, many...), "the kernel takes 340"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := idshift.Plan(idshift.ModelBase, tt.c)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, %v; want %q", m, err, tt.want)
			}
		})
	}
	if _, err := idshift.Plan("root", caller(1001, ok...)); err == nil || !strings.Contains(err.Error(), `"root"`) {
		t.Errorf("unknown model: %v", err)
	}
	if _, err := idshift.Handoff(idshift.Identity(), caller(4294967295, ok...)); err == nil {
		t.Error("handoff for an id that is none")
	}
	// 300 lines pass as a number but not as text: 300 * 19 bytes do not go into one page.
	for i := range many {
		many[i].First += 3000000000 + uint32(i)*100
	}
	if _, err := idshift.Plan(idshift.ModelBase, caller(1001, many[:300]...)); err == nil || !strings.Contains(err.Error(), "bytes") {
		t.Errorf("text longer than a page: %v", err)
	}
}

func TestHandoff(t *testing.T) {
	full := idshift.Range{First: 100000, Count: 65536}
	for _, tt := range []struct {
		name  string
		plain string
		own   uint32
		r     []idshift.Range
		want  string
	}{
		{"base", "0:100000:65536", 1001, []idshift.Range{full}, "0:100000:65536,65536:1001:1"},
		{"base, short", "0:100000:999,65534:100999:1", 1001, []idshift.Range{{First: 100000, Count: 1000}}, "0:100000:999,999:1001:1,65534:100999:1"},
		{"caller", "0:1001:1,1:100001:65535", 1001, []idshift.Range{full}, "0:1001:1,1:100001:65535,65536:100000:1"},
		{"identity", "0:100000:1001,1001:1001:1,1002:101002:64534", 1001, []idshift.Range{full},
			"0:100000:1001,1001:1001:1,1002:101002:64534,65536:101001:1"},
		{"own map", "0:100000:10,20:100020:10", 1001, []idshift.Range{full, {First: 5, Count: 3}},
			"0:100000:10,10:1001:1,11:100010:9,20:100020:10,30:100019:1,31:100030:65506,65537:5:3"},
		{"already mapped", "0:100000:65536,70000:1001:1", 1001, []idshift.Range{full}, "0:100000:65536,70000:1001:1"},
		{"own id in the range", "0:100000:65536", 100007, []idshift.Range{full}, "0:100000:65536"},
		{"root", "0:0:4294967295", 0, []idshift.Range{full}, "0:0:4294967295"},
		{"overlapping lines", "0:100000:2", 1001, []idshift.Range{{First: 100000, Count: 4}, {First: 100001, Count: 4}}, "0:100000:2,2:1001:1,3:100002:3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			plain, err := idshift.ParseSpec(tt.plain)
			if err != nil {
				t.Fatal(err)
			}
			m, err := idshift.Handoff(plain, caller(tt.own, tt.r...))
			if err != nil || m.UID.String() != tt.want || m.GID.String() != tt.want {
				t.Fatalf("got %s, want %s; %v", m.UID, tt.want, err)
			}
		})
	}
	full1, err := idshift.ParseSpec("0:1:4294967294,4294967294:0:1")
	if err != nil {
		t.Fatal(err)
	}
	if m, err := idshift.Handoff(full1, caller(1001, full)); err != nil || !m.Equal(full1) {
		t.Errorf("a map of all ids: %v, %v", m, err)
	}
	tight, err := idshift.ParseSpec("0:1011:4294966284,4294966284:0:1001")
	if err != nil {
		t.Fatal(err)
	}
	// Only the last ten inside ids are free; the caller and nine of his range take them, the last one is mapped already.
	m, err := idshift.Handoff(tight, caller(1001, idshift.Range{First: 1002, Count: 10}))
	if want := "0:1011:4294966284,4294966284:0:1011"; err != nil || m.UID.String() != want {
		t.Errorf("got %s, want %s; %v", m.UID, want, err)
	}
}

func TestVisible(t *testing.T) {
	parent := idMap(t, "0:1000:1,1:100000:65536")
	for _, tt := range []struct{ name, parent, in, want string }{
		{"whole", "0:0:4294967295", "100000:65536", "100000:65536"},
		{"podman: usual range is not there", "", "100000:65536", ""},
		{"podman: cut at the end", "", "60000:65536", "60000:5537"},
		{"across the lines of the parent", "", "0:1000", "0:1000"},
		{"all of it, twice", "", "0:4294967295 1:5", "0:65537 1:5"},
		{"gap", "0:0:10,20:20:10", "5:20 29:5", "5:5 20:5 29:1"},
		{"adjacent ranges stay apart", "", "1:5 6:5", "1:5 6:5"},
		{"order kept", "0:0:100", "50:10 10:10", "50:10 10:10"},
		{"nothing mapped", "-", "0:100", ""},
		{"last id", "4294967290:4294967290:5", "4294967293:2", "4294967293:2"},
	} {
		p := parent
		switch tt.parent {
		case "":
		case "-":
			p = idshift.Map{}
		default:
			p = idMap(t, tt.parent)
		}
		var in []idshift.Range
		for s := range strings.FieldsSeq(tt.in) {
			var r idshift.Range
			if _, err := fmt.Sscanf(s, "%d:%d", &r.First, &r.Count); err != nil {
				t.Fatal(err)
			}
			in = append(in, r)
		}
		var got []string
		for _, r := range idshift.Visible(in, p) {
			got = append(got, fmt.Sprintf("%d:%d", r.First, r.Count))
		}
		if g := strings.Join(got, " "); g != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, g, tt.want)
		}
	}
}

// FuzzPlan checks what holds for any caller: only his ids are used; 0 and nobody are there; the base model agrees with the
// first line wherever it is linear; the handoff map adds to plain and reaches every id that the caller owns.
func FuzzPlan(f *testing.F) {
	f.Add(uint8(0), uint32(1001), uint32(100000), uint32(65536), uint32(0), uint32(0))
	f.Add(uint8(1), uint32(1001), uint32(100000), uint32(65534), uint32(1001), uint32(1))
	f.Add(uint8(2), uint32(65534), uint32(100000), uint32(3), uint32(100001), uint32(70000))
	f.Add(uint8(2), uint32(5), uint32(0), uint32(65536), uint32(4294967290), uint32(5))
	f.Add(uint8(1), uint32(2), uint32(1), uint32(2), uint32(0), uint32(0))
	f.Fuzz(func(t *testing.T, model uint8, own, first1, count1, first2, count2 uint32) {
		c := caller(own, idshift.Range{First: first1, Count: count1}, idshift.Range{First: first2, Count: count2})
		m := idshift.Models()[int(model)%3]
		plain, err := idshift.Plan(m, c)
		if err != nil {
			return
		}
		mine := func(id uint32) bool {
			return id == own && m != idshift.ModelBase || id-first1 < count1 && id >= first1 || id-first2 < count2 && id >= first2
		}
		total := uint64(0)
		for _, e := range plain.UID.Extents() {
			total += uint64(e.Count)
			if !mine(e.Outside) || !mine(e.Outside+e.Count-1) {
				t.Fatalf("%s maps what is not the caller's", plain.UID)
			}
		}
		if max := uint64(count1) + uint64(count2) + 1; total > max {
			t.Fatalf("%s maps %d ids, there are %d", plain.UID, total, max)
		}
		for _, id := range []uint32{0, 65534} {
			if _, ok := plain.UID.ToOutside(id); !ok {
				t.Fatalf("%s lacks %d", plain.UID, id)
			}
		}
		if out, _ := plain.UID.ToOutside(0); m == idshift.ModelCaller && out != own || m == idshift.ModelBase && count1 > 1 && out != first1 {
			t.Fatalf("%s: root is %d", plain.UID, out)
		}
		if out, ok := plain.UID.ToOutside(own); m == idshift.ModelIdentity && (!ok || out != own) {
			t.Fatalf("%s: the caller is %d", plain.UID, out)
		}
		hand, err := idshift.Handoff(plain, c)
		if err != nil {
			t.Skip()
		}
		for _, id := range []uint32{own, first1, first1 + count1 - 1, first2, first2 + count2 - 1} {
			if _, ok := hand.UID.ToInside(id); !ok && (mine(id) || id == own) {
				t.Fatalf("handoff %s of %s lacks %d", hand.UID, plain.UID, id)
			}
		}
		for _, e := range plain.UID.Extents() {
			for _, id := range []uint32{e.Inside, e.Inside + e.Count - 1} {
				x, _ := plain.UID.ToOutside(id)
				if y, ok := hand.UID.ToOutside(id); !ok || x != y {
					t.Fatalf("handoff %s changes %d of %s", hand.UID, id, plain.UID)
				}
			}
		}
	})
}
