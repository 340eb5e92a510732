package debs

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/tier"
)

func TestParseName(t *testing.T) {
	for file, want := range map[string]Package{
		"hello_2.10-3_amd64.deb":                 {"hello", "2.10-3", "amd64"},
		"git_1%3a2.39.5-0+deb12u3_amd64.deb":     {"git", "1:2.39.5-0+deb12u3", "amd64"},
		"git_1%3A2.39.5_all.deb":                 {"git", "1:2.39.5", "all"},
		"libstdc++6_12.2.0~rc1-1_i386.deb":       {"libstdc++6", "12.2.0~rc1-1", "i386"},
		"a.b_1.0_kfreebsd-amd64.deb":             {"a.b", "1.0", "kfreebsd-amd64"},
		"Upper_1_all.deb":                        {"Upper", "1", "all"},
		"linux-image-6.1.0-40_6.1.153-1_all.deb": {"linux-image-6.1.0-40", "6.1.153-1", "all"},
	} {
		p, err := ParseName(file)
		if err != nil || p != want {
			t.Errorf("%s: %v, %v", file, p, err)
		}
		if back := p.FileName(); !strings.EqualFold(back, file) {
			t.Errorf("%s came back as %s", file, back)
		}
	}
	for _, bad := range []string{"", ".deb", "hello.deb", "a_1_all.DEB", "a_1.deb", "a_1_b_c.deb", "a b_1_all.deb", "a\n_1_all.deb", "a_1%_all.deb", "a_1%3_all.deb",
		"a_1%zz_all.deb", "a_1%\x103_all.deb", "a%2fb_1_all.deb", "../a_1_all.deb", "_1_all.deb", "a__all.deb", "-a_1_all.deb", "a_1_\xff.deb", "a_~1_all.deb"} {
		if p, err := ParseName(bad); err == nil {
			t.Errorf("%q was read as %v", bad, p)
		}
	}
}

// valid leaves out what perl lets through and dpkg itself refuses: nothing behind the epoch, an epoch beyond INT_MAX, a colon in
// the revision.
func valid(v string) bool {
	i := strings.IndexByte(v, ':')
	dash := strings.LastIndexByte(v, '-')
	return i != len(v)-1 && i < 10 && (dash < 0 || dash < i || !strings.Contains(v[dash:], ":"))
}

// TestCompareVersionsSoak compares thousands of pairs with dpkg's own order, asked of the one program that compares them by a batch: perl's
// Dpkg::Version, which is dpkg's.
func TestCompareVersionsSoak(t *testing.T) {
	tier.Program(t, "perl")
	tier.Have(t, exec.Command("perl", "-MDpkg::Version", "-e1").Run() == nil, "perl's Dpkg::Version (package libdpkg-perl)")
	r := rand.New(rand.NewPCG(1, 2))
	parts := []string{"0", "1", "9", "10", "00", "007", "a", "Z", "b", "~", "~~", "+", ".", "-", "rc", "dfsg", "1:", "2:", "deb12u1", "18446744073709551616"}
	random := func() string {
		v := fmt.Sprint(r.IntN(3))
		for range r.IntN(6) {
			v += parts[r.IntN(len(parts))]
		}
		return v
	}
	n := tier.Soaking(200000, 6000)
	var in strings.Builder
	pairs := make([][2]string, n)
	for i := range pairs {
		a, b := random(), random()
		if r.IntN(3) == 0 {
			b = a + parts[r.IntN(len(parts))]
		}
		pairs[i] = [2]string{a, b}
		fmt.Fprintln(&in, a, b)
	}
	cmd := exec.Command("perl", "-MDpkg::Version", "-e", `while (<>) { chomp; my ($a, $b) = split / /; my ($x, $y) = map { Dpkg::Version->new($_, check => 1) } $a, $b;
		print defined $x && defined $y ? $x <=> $y : "bad", "\n" }`)
	cmd.Stdin = strings.NewReader(in.String())
	out, err := cmd.Output()
	check(t, err)
	sc := bufio.NewScanner(strings.NewReader(string(out)))
	compared := 0
	for _, p := range pairs {
		if !sc.Scan() {
			t.Fatal("perl said too little")
		}
		if sc.Text() == "bad" || !valid(p[0]) || !valid(p[1]) {
			continue
		}
		compared++
		got := compareVersions(p[0], p[1])
		if sign := fmt.Sprint(max(-1, min(1, got))); sign != sc.Text() {
			t.Errorf("%s and %s: %s, dpkg says %s", p[0], p[1], sign, sc.Text())
		}
	}
	if compared < n/4 {
		t.Errorf("only %d of %d pairs were versions", compared, n)
	}
	for _, p := range pairs[:min(n, 300)] { // and some by the program itself
		if strings.ContainsAny(p[0]+p[1], ":") {
			continue
		}
		lt := exec.Command("dpkg", "--compare-versions", p[0], "lt", p[1]).Run() == nil
		if bad := exec.Command("dpkg", "--validate-version", p[0]).Run() != nil || exec.Command("dpkg", "--validate-version", p[1]).Run() != nil; bad {
			continue
		}
		if lt != (compareVersions(p[0], p[1]) < 0) {
			t.Errorf("%s and %s: dpkg says lt=%v", p[0], p[1], lt)
		}
	}
}
