package deploy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/idshift/userns/usernstest"
	"github.com/nsferry/nsferry/tier"
)

// images are files with data and holes in all positions that frames and blocks can be cut at.
func images() map[string]plant {
	noise := make([]byte, 5<<20)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	long := string(noise)
	return map[string]plant{
		"empty":      {Data: map[int64]string{0: ""}},
		"byte":       {Data: map[int64]string{0: "x"}},
		"block":      {Data: map[int64]string{0: long[:4096]}},
		"odd":        {Data: map[int64]string{0: long[:4097]}},
		"hole":       {Size: 9 << 20},
		"odd hole":   {Size: 8<<20 + 5},
		"frame":      {Data: map[int64]string{0: long[:4<<20]}},
		"frames":     {Data: map[int64]string{0: long}},
		"scattered":  {Size: 32<<20 + 1, Data: map[int64]string{5: "a", 4 << 20: "b", 12<<20 - 1: "cd", 22 << 20: long[:70000], 32 << 20: "e"}},
		"late start": {Size: 17 << 20, Data: map[int64]string{7<<20 + 77: long[:5<<20]}},
	}
}

// TestCompressed wants what zstd(1) and gzip(1) unpack to be the source.
func TestCompressed(t *testing.T) {
	tier.Program(t, "zstd", "gzip", "cmp")
	for name, image := range images() {
		if name == "block" || name == "odd" || name == "hole" {
			continue // what maps care for
		}
		image.Path, image.Mode = "img", 0o644
		g := newGround(t, usernstest.Models(t)[0], image)
		for _, c := range []Compression{Zstd, Gzip} {
			t.Run(fmt.Sprint(name, " ", c), func(t *testing.T) {
				var first string
				workers := []int{1}
				if name == "scattered" {
					workers = []int{1, 2, 7}
				}
				for _, n := range workers {
					d := g.must(t, "img", g.out(), Options{Compress: c, Workers: n, Sum: true, Map: true, Replace: true})
					stored := read(t, g.out("img."+string(c)))
					if first == "" {
						first = stored
					}
					if stored != first || d.Stored != int64(len(stored)) {
						t.Errorf("%d workers: %d bytes, %d reported, %d by one worker", n, len(stored), d.Stored, len(first))
					}
				}
				unpack := map[Compression]string{Zstd: "zstd -dcq img.zst", Gzip: "gzip -dc img.gz"}[c]
				tool(t, g.out(), "sh", "-ec", unpack+" >img; cmp img "+filepath.Join(g.root(), "img"))
				tool(t, g.out(), "sha256sum", "--check", "img."+string(c)+".sha256")
			})
		}
	}
}

// TestMaps has bmaptool copy by our maps, plain and compressed; it checks every digest.
func TestMaps(t *testing.T) {
	tier.Program(t, "bmaptool", "cmp")
	for name, image := range images() {
		if name == "empty" {
			continue // bmaptool divides by its size
		}
		t.Run(name, func(t *testing.T) {
			image.Path, image.Mode = "img", 0o644
			g := newGround(t, usernstest.Models(t)[0], image)
			ways := []Options{{Map: true}}
			if name == "scattered" {
				ways = append(ways, Options{Map: true, Sum: true, Replace: true}, Options{Map: true, Compress: Gzip, Replace: true}, Options{Map: true, Compress: Zstd, Replace: true})
			}
			for _, o := range ways {
				d := g.must(t, "img", g.out(), o)
				if name != "scattered" && name != "odd" {
					continue // the maps are compared below, digests and all
				}
				tool(t, g.out(), "bmaptool", "--quiet", "copy", "--bmap", "img.bmap", d.Output, "copy")
				tool(t, g.out(), "cmp", "copy", filepath.Join(g.root(), "img"))
				check(t, os.Remove(g.out("copy")))
			}
			ours := bareMap(read(t, g.out("img.bmap")))
			tool(t, g.out(), "bmaptool", "create", "-o", "theirs", "img")
			if theirs := bareMap(read(t, g.out("theirs"))); theirs != ours {
				t.Errorf("our map, and bmaptool's:\n%s\n%s", ours, theirs)
			}
		})
	}
}

// bareMap is a map without comments and white space.
func bareMap(text string) string {
	for {
		before, rest, ok := strings.Cut(text, "<!--")
		if !ok {
			break
		}
		_, after, _ := strings.Cut(rest, "-->")
		text = before + after
	}
	if before, rest, ok := strings.Cut(text, "<BmapFileChecksum>"); ok { // that of the text itself
		_, after, _ := strings.Cut(rest, "</BmapFileChecksum>")
		text = before + after
	}
	return strings.Join(strings.Fields(text), " ")
}

// TestMapIsChecked damages one byte, and wants bmaptool to find it: the maps are not for show.
func TestMapIsChecked(t *testing.T) {
	tier.Program(t, "bmaptool")
	image := images()["scattered"]
	image.Path = "img"
	g := newGround(t, usernstest.Models(t)[0], image)
	g.must(t, "img", g.out(), Options{Map: true})
	f, err := os.OpenFile(g.out("img"), os.O_WRONLY, 0)
	check(t, err)
	_, err = f.WriteAt([]byte("X"), 22<<20+5)
	check(t, err)
	check(t, f.Close())
	if out := tool(t, g.out(), "sh", "-c", "bmaptool copy --bmap img.bmap img copy 2>&1 || echo refused"); !strings.Contains(out, "refused") {
		t.Error(out)
	}
}

// TestStream pipes images in, and wants them back with their holes; what is not what was expected is not there.
func TestStream(t *testing.T) {
	for name, image := range images() {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			src, out := filepath.Join(dir, "src"), filepath.Join(dir, "out")
			check(t, image.write(src))
			want := read(t, src)
			size, wrong := int64(len(want)), int64(len(want)+1)
			stream := func(o Options) (Summary, error) {
				r, w, err := os.Pipe()
				check(t, err)
				defer r.Close()
				go func() {
					_, _ = w.WriteString(want) // cut off when it is too long
					w.Close()
				}()
				return Stream(t.Context(), r, out, o)
			}
			if _, err := stream(Options{Expect: Expectation{Size: &wrong}}); err == nil {
				t.Error("a wrong size was taken")
			}
			if size > 0 {
				short := size - 1
				if _, err := stream(Options{Expect: Expectation{Size: &short}}); err == nil {
					t.Error("a wrong size was taken")
				}
			} else if _, err := stream(Options{}); err == nil {
				t.Error("an empty stream was taken")
			}
			if _, err := stream(Options{Expect: Expectation{Size: &size, SHA256: strings.Repeat("0", 64)}}); err == nil {
				t.Error("a wrong digest was taken")
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
				t.Errorf("left: %v %v", entries, err)
			}
			s, err := stream(Options{Expect: Expectation{Size: &size}, Sum: true, Map: true})
			check(t, err)
			if d := s.Outputs[0]; read(t, out) != want || d.Bytes != size || d.Holes > d.Bytes {
				t.Errorf("not what was sent: %+v", d)
			}
			tool(t, dir, "sha256sum", "--check", "out.sha256")
			if name == "scattered" {
				tool(t, dir, "bmaptool", "--quiet", "copy", "--bmap", "out.bmap", "out", "copy")
				tool(t, dir, "cmp", "copy", "out")
			}
		})
	}
}

// TestStreamNeedsName wants a file's name for what has none.
func TestStreamNeedsName(t *testing.T) {
	if _, err := Stream(t.Context(), os.Stdin, t.TempDir(), Options{}); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("got %v", err)
	}
	var usage *userns.UsageError
	if _, err := Stream(t.Context(), os.Stdin, "x", Options{Compress: Gzip}); !errors.As(err, &usage) {
		t.Errorf("got %v", err)
	}
}
