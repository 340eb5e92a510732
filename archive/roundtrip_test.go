package archive_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/archive/treetest"
	"github.com/nsferry/nsferry/tier"
)

// roundTrip packs the tree in every format with several numbers of workers, wants the same bytes of each format, and
// extracts them to the same tree again.
func roundTrip(t *testing.T, dir *os.File) {
	t.Helper()
	want, sockets := storable(dump(t, dir))
	for _, format := range []archive.Format{archive.Framed, archive.Gzip, archive.Plain} {
		var first []byte
		for _, workers := range []int{1, 2, 7} {
			o := options()
			o.Format, o.Workers = format, workers
			got, sum := pack(t, dir, o)
			if sum.Entries != int64(len(want)) || sum.Skipped["socket"] != sockets {
				t.Errorf("%s: %d entries, %v left out; the tree has %d and %d sockets", format, sum.Entries, sum.Skipped, len(want), sockets)
			}
			if first == nil {
				first = got
			}
			if !bytes.Equal(got, first) {
				t.Fatalf("%s: %d workers give other bytes than one", format, workers)
			}
			if format != archive.Framed && workers != 2 {
				continue
			}
			x := extraction()
			x.Workers = workers
			out, back := unpack(t, got, x)
			sameTree(t, want, dump(t, out))
			if back.Entries != sum.Entries || back.Files != sum.Files || back.Content != sum.Content {
				t.Errorf("%s: packed %+v, unpacked %+v", format, sum, back)
			}
		}
	}
}

func TestOdditiesRoundTrip(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	roundTrip(t, build(t, treetest.Oddities()))
}

func TestRandomRoundTrip(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	for seed := range uint64(5) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { roundTrip(t, build(t, treetest.Random(seed, 150))) })
	}
}

// TestEmptyTree has the root directory and nothing else.
func TestEmptyTree(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	roundTrip(t, buildText(t, "dir . 7:8 1751 mtime=12.000000001 acl=u::rwx,u:5:r-x,g::r-x,m::r-x,o::--x default=u::rwx,g::r-x,o::---"))
}

// TestPackTwice unpacks and packs again: the archive of the copy is the archive of the original, byte for byte.
func TestPackTwice(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	for name, nodes := range map[string][]listing.Node{"oddities": treetest.Oddities(), "random": treetest.Random(77, 400)} {
		t.Run(name, func(t *testing.T) {
			first, _ := pack(t, build(t, nodes), options())
			copied, _ := unpack(t, first, extraction())
			second, _ := pack(t, copied, options())
			if !bytes.Equal(first, second) {
				t.Error("the archive of the copy is another one")
			}
		})
	}
}

// TestLevels compress differently and hold the same.
func TestLevels(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	dir := build(t, treetest.Random(5, 100))
	var streams [][]byte
	for _, level := range []int{1, 3, 9, 19} {
		o := options()
		o.Level = level
		b, _ := pack(t, dir, o)
		if _, err := archive.Verify(t.Context(), file(t, b), 2); err != nil {
			t.Errorf("level %d: %v", level, err)
		}
		streams = append(streams, raw(t, b))
	}
	for _, s := range streams[1:] {
		if !bytes.Equal(s, streams[0]) {
			t.Error("the level changes the tar stream")
		}
	}
	o := options()
	o.Format = "rar"
	if _, err := archive.Create(t.Context(), dir, io.Discard, o); err == nil {
		t.Error("an unknown format is packed")
	}
}

// TestLinkFields has hard links to inodes whose ids and times do not fit into the fields of a ustar header.
func TestLinkFields(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	dir := buildText(t, `dir . 0:0 755 mtime=0
file a 3000000:4294967294 644 mtime=-5.5 "x"
hardlink a2 a
file b 2097151:2097152 644 mtime=8589934592 "x"
hardlink b2 b
file c 2097152:2097151 644 mtime=8589934591.999 "x"
hardlink c2 c
`)
	archived, _ := pack(t, dir, options())
	if _, err := archive.Verify(t.Context(), file(t, archived), 2); err != nil {
		t.Error(err)
	}
	copied, _ := unpack(t, archived, extraction())
	sameTree(t, dump(t, dir), dump(t, copied))
}

// failing fails after n bytes.
type failing struct{ n int }

func (f *failing) Write(p []byte) (int, error) {
	if f.n -= len(p); f.n < 0 {
		return 0, os.ErrDeadlineExceeded
	}
	return len(p), nil
}

// TestOutputFails wants the output's error, whichever frame it comes with, and no goroutine to hang.
func TestOutputFails(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	dir := build(t, treetest.Oddities())
	whole, _ := pack(t, dir, options())
	for _, n := range []int{0, 1, len(whole) / 2, len(whole) - 1} {
		for _, workers := range []int{1, 7} {
			o := options()
			o.Workers = workers
			if _, err := archive.Create(t.Context(), dir, &failing{n}, o); err == nil {
				t.Errorf("%d of %d bytes could be written, and nobody says so", n, len(whole))
			} else {
				wantError(t, err, os.ErrDeadlineExceeded.Error())
			}
		}
	}
}

// TestCancelled ends pack and unpack with the context's error.
func TestCancelled(t *testing.T) {
	tier.Root(t, "needs inodes of many owners")
	dir := build(t, treetest.Random(3, 300))
	whole, _ := pack(t, dir, options())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := archive.Create(ctx, dir, io.Discard, options())
	wantError(t, err, context.Canceled.Error())
	_, err = archive.Extract(ctx, bytes.NewReader(whole), emptyDir(t), extraction())
	wantError(t, err, context.Canceled.Error())
}
