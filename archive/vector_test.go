package archive_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/archive/treetest"
	"github.com/nsferry/nsferry/tier"
)

// vectorTree is what testdata/vectors/small.tar.zst was made of. What changes its archive changes the format.
const vectorTree = `dir . 0:0 755 mtime=1700000000.123456789
dir dir 0:50 2775 mtime=1700000001 default=u::rwx,g::rwx,g:50:rwx,m::rwx,o::r-x
file dir/acl 33:33 640 mtime=-0.5 acl=u::rw-,u:1000:r--,g::r--,m::r--,o::--- "hello"
file dir.x 0:0 644 mtime=1700000001 "after dir/acl"
fifo fifo 0:5 620 mtime=1700000002
file file 65534:65534 4755 mtime=1700000003 "content"
hardlink hardlink file
file ping 0:0 755 mtime=1700000004 cap=cap_net_raw=ep ""
file sparse 0:0 600 mtime=1700000005 size=1048576 sparse=
symlink symlink 1:2 /etc/passwd mtime=1700000006.000000001
char whiteout 0:0 000 0:0 mtime=0
file xattr 3000000:0 600 mtime=9000000000 xattr:"user.a=b%"=0x00ff0a xattr:user.e=0x ""
file "\xff\n" 0:0 644 mtime=1700000007 "not UTF-8"
`

// golden compares got with a file in testdata/vectors, or with UPDATE set writes it.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := "../testdata/vectors/" + name
	if os.Getenv("UPDATE") != "" {
		check(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	check(t, err)
	if !bytes.Equal(want, got) {
		t.Errorf("%s is no longer what it was: %s", name, cmp.Diff(fmt.Sprintf("%.2000s", want), fmt.Sprintf("%.2000s", got)))
	}
}

// TestVector makes the golden archive anew, byte for byte.
func TestVector(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	packed, _ := pack(t, buildText(t, vectorTree), options())
	golden(t, "small.tar.zst", packed)
}

// TestVectorReads reads the golden archive.
func TestVectorReads(t *testing.T) {
	b := vector(t)
	golden(t, "small.tree", []byte(listing.Text(listed(t, b))))
	v, err := archive.Verify(t.Context(), file(t, b), 2)
	if want := (archive.Verified{Kind: "zstd", Own: true, Entries: 13, Content: 1048610, Frames: 1}); err != nil || v != want {
		t.Errorf("%+v, want %+v: %v", v, want, err)
	}
	if len(b) > 4096 {
		t.Errorf("%d bytes are not small", len(b))
	}
}

// TestFrameVectors holds cuts, identities, encoder and table of contents of a tree with files of all sizes, without its bytes.
func TestFrameVectors(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	packed, _ := pack(t, build(t, treetest.Oddities()), options())
	_, c := contents(t, packed)
	text := fmt.Sprintf("sha256 %x\nencoder %s\n", sha256.Sum256(packed), c.Header.Encoder)
	for _, f := range c.Frames {
		text += fmt.Sprintf("frame %x raw=%d\n", f.Identity, f.Raw)
	}
	golden(t, "oddities.frames", []byte(text))
}
