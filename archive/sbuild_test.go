package archive_test

import (
	"bytes"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/archive/treetest"
	"github.com/nsferry/nsferry/tier"
)

// sbuildMagic is how sbuild of Debian 13 tells formats apart: by the first 512 bytes of what must be no shorter.
func sbuildMagic(b []byte) string {
	if len(b) < 512 {
		return "too short"
	}
	switch head := b[:512]; {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return "gzip"
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return "zstd"
	case bytes.Equal(head[257:262], []byte("ustar")) && checksum(head) == field(head[148:156]):
		return "tar"
	}
	return "unknown"
}

// checksum is that of a tar header: all bytes, the field itself taken as spaces.
func checksum(b []byte) int64 {
	sum := int64(0)
	for i, c := range b[:512] {
		if i >= 148 && i < 156 {
			c = ' '
		}
		sum += int64(c)
	}
	return sum
}

func field(b []byte) int64 {
	n, err := strconv.ParseInt(strings.Trim(string(b), " \x00"), 8, 64)
	if err != nil {
		return -1
	}
	return n
}

var (
	octal11  = regexp.MustCompile(`^[0-7]{11}\x00$`)
	checkSum = regexp.MustCompile(`^[0-7]{6}\x00 $`)
)

// checkSbuild walks a tar stream block by block and returns what breaks the rules for a chroot tarball: every header
// block is ustar, sizes are eleven octal digits, checksums six, NUL and a space; names start with "./"; no devices.
func checkSbuild(stream []byte) (broken []string, types map[byte]int) {
	types = map[byte]int{}
	name := ""
	at := 0
	for ; !bytes.Equal(stream[at:at+512], make([]byte, 512)); at += 512 {
		b := stream[at : at+512]
		complain := func(rule string) { broken = append(broken, fmt.Sprintf("block at %d (%q): %s", at, b[:100], rule)) }
		if !bytes.Equal(b[257:265], []byte("ustar\x0000")) {
			complain("no ustar header")
		}
		if !octal11.Match(b[124:136]) {
			complain("size")
		}
		if !checkSum.Match(b[148:156]) || checksum(b) != field(b[148:156]) {
			complain("checksum")
		}
		if strings.Trim(string(b[265:329]), "\x00") != "" {
			complain("an owner has a name")
		}
		typ, size := b[156], int(field(b[124:136]))
		types[typ]++
		data := stream[at+512 : at+512+size]
		switch typ {
		case 'L':
			name = strings.TrimSuffix(string(data), "\x00")
		case 'x':
			if _, rest, ok := strings.Cut("\n"+string(data), " path="); ok && regexp.MustCompile(`\n\d+ path=`).Match(append([]byte{'\n'}, data...)) {
				name, _, _ = strings.Cut(rest, "\n")
			}
			if bytes.Contains(data, []byte("hdrcharset")) || bytes.Contains(data, []byte(" atime=")) || bytes.Contains(data, []byte(" ctime=")) {
				complain("a record that we never write")
			}
		case 'K':
		default:
			if name == "" {
				name, _, _ = strings.Cut(string(b[:100]), "\x00")
			}
			if !strings.HasPrefix(name, "./") {
				complain("the name lacks ./")
			}
			whiteout := typ == '3' && field(b[329:336]) == 0 && field(b[337:344]) == 0
			if (typ == '3' || typ == '4') && !whiteout {
				complain("a device")
			}
			name = ""
		}
		at += (size + 511) / 512 * 512
	}
	if rest := stream[at:]; !bytes.Equal(rest, make([]byte, 1024)) {
		broken = append(broken, fmt.Sprintf("%d bytes behind the last entry are not two zero blocks", len(rest)))
	}
	return broken, types
}

func TestSbuildRules(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	trees := map[string][]listing.Node{"oddities": treetest.Oddities(), "random": treetest.Random(21, 300)}
	trees["oddities"] = append(trees["oddities"], listing.Node{Type: listing.Symlink, Name: "link-ö", Target: strings.Repeat("ö", 60)})
	special, err := listing.Parse(specialTree)
	check(t, err)
	trees["special"] = special
	trees["empty"] = special[:1]
	for name, nodes := range trees {
		dir := build(t, nodes)
		for format, magic := range map[archive.Format]string{archive.Framed: "zstd", archive.Gzip: "gzip", archive.Plain: "tar"} {
			o := options()
			o.Policy.Devices, o.Format = archive.Skip, format
			packed, _ := pack(t, dir, o)
			if got := sbuildMagic(packed); got != magic {
				t.Errorf("%s: sbuild takes %s for %s", name, format, got)
			}
			stream := packed
			switch format {
			case archive.Framed:
				stream = raw(t, packed)
			case archive.Gzip:
				continue
			}
			broken, types := checkSbuild(stream)
			for _, b := range broken {
				t.Errorf("%s: %s", name, b)
			}
			if name == "oddities" && (types['L'] == 0 || types['K'] == 0 || types['x'] < 20 || types['1'] < 4 || types['6'] < 2) {
				t.Errorf("the tree does not have all kinds of headers: %v", types)
			}
		}
	}
}

const pythonNames = `
import sys, tarfile, warnings
warnings.simplefilter("error")
for m in tarfile.open(sys.argv[1], "r:*"):
    print(m.type.decode(), m.uid, m.gid, "%o" % m.mode, m.name.encode("utf-8", "surrogateescape").hex())
`

// TestToolsRead has zstd, GNU tar, bsdtar and Python test our archives; all see all entries.
func TestToolsRead(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	for name, nodes := range map[string][]listing.Node{"oddities": treetest.Oddities(), "random": treetest.Random(31, 200)} {
		t.Run(name, func(t *testing.T) {
			dir := build(t, nodes)
			want, _ := storable(dump(t, dir))
			for _, format := range []archive.Format{archive.Framed, archive.Gzip, archive.Plain} {
				o := options()
				o.Format = format
				packed, _ := pack(t, dir, o)
				f := file(t, packed).Name()
				plain := f
				switch format {
				case archive.Framed:
					tool(t, nil, "zstd", "-q", "-t", f)
					tool(t, nil, "tar", "--warning=no-timestamp", "--zstd", "-tf", f)
					plain = file(t, []byte(tool(t, nil, "zstd", "-q", "-d", "-c", f))).Name()
				case archive.Gzip:
					tool(t, nil, "gzip", "-t", "-c", f)
				}
				gnu := tool(t, nil, "tar", "--quoting-style=escape", "-tf", f)
				bsd := tool(t, nil, "bsdtar", "-tf", f)
				python := tool(t, nil, "python3", "-c", pythonNames, plain)
				for who, lines := range map[string]int{"GNU tar": strings.Count(gnu, "\n"), "Python": strings.Count(python, "\n"), "bsdtar": strings.Count(bsd, "\n")} {
					if lines != len(want) {
						t.Errorf("%s: %s lists %d entries, there are %d", format, who, lines, len(want))
					}
				}
				for i, line := range strings.Split(strings.TrimSuffix(python, "\n"), "\n") {
					n := want[i]
					if n.Type == listing.Hardlink {
						continue
					}
					path := "./" + n.Name
					if n.Name == "." {
						path = "."
					}
					if w := fmt.Sprintf(" %d %d ", n.UID, n.GID); !strings.Contains(line, w) || !strings.HasSuffix(line, fmt.Sprintf(" %x", path)) {
						t.Errorf("Python says %q of %q", line, n.Line())
					}
				}
			}
		})
	}
	if err := exec.Command("zstd", "-q", "-t", file(t, vector(t)[:1000]).Name()).Run(); err == nil {
		t.Error("zstd -t accepts half an archive")
	}
}
