package zframe_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/nsferry/nsferry/archive/zframe"
	"github.com/nsferry/nsferry/tier"
)

// sample is n bytes of which about half can be compressed away, starting like a tar archive's first block.
func sample(n int) []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	out := make([]byte, 0, n+64)
	out = append(out, build0()...)
	for len(out) < n {
		out = append(out, strings.Repeat(fmt.Sprint(rng.Uint64()), 2)...)
	}
	return out[:n]
}

// build0 is a tar header that bears no mark.
func build0() []byte {
	h := make([]byte, 512)
	copy(h, "./")
	copy(h[148:], "        ")
	h[156] = '5'
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return h
}

func TestDecompressWhatToolsMake(t *testing.T) {
	small, big := sample(40_000), sample(20<<20)
	name := write(t, big)
	pzstd := func(args ...string) []byte {
		tier.Program(t, "pzstd")
		run(t, nil, "pzstd", append(args, "-q", "-k", "-f", name)...)
		b, err := os.ReadFile(name + ".zst")
		check(t, err)
		return b
	}
	zstd := func(in []byte, args ...string) []byte { return run(t, in, "zstd", append(args, "-q", "-c")...) }
	skip := []byte("\x50\x2a\x4d\x18\x03\x00\x00\x00abc")
	for _, c := range []struct {
		name string
		in   []byte
		want []byte
		kind zframe.Kind
	}{
		{"tar", big, big, zframe.KindTar},
		{"zstd without content size", zstd(big, "-3", "-T0"), big, zframe.KindZstd},
		{"zstd with content size", zstd(nil, "-3", name), big, zframe.KindZstd},
		{"zstd small", zstd(small), small, zframe.KindZstd},
		{"zstd without checksum", zstd(big, "--no-check", "-1"), big, zframe.KindZstd},
		{"zstd long", zstd(big, "--long=27"), big, zframe.KindZstd},
		{"zstd level 19", zstd(small, "-19"), small, zframe.KindZstd},
		{"zstd uncompressed", zstd(run(t, small, "gzip", "-9c"), "-1"), run(t, small, "gzip", "-9c"), zframe.KindZstd},
		{"pzstd", pzstd("-p", "2"), big, zframe.KindZstd},
		{"pzstd of one frame", pzstd("-p", "1"), big, zframe.KindZstd},
		{"zstd, skippable first", append(bytes.Clone(skip), zstd(small)...), small, zframe.KindZstd},
		{"zstd, many", bytes.Join([][]byte{zstd(small), skip, zstd(big), zstd(nil), zstd(small)}, nil), bytes.Join([][]byte{small, big, small}, nil), zframe.KindZstd},
		{"zstd of nothing", zstd(nil), nil, zframe.KindZstd},
		{"gzip", run(t, big, "gzip", "-1nc"), big, zframe.KindGzip},
		{"gzip, two members", append(run(t, small, "gzip", "-c"), run(t, small, "gzip", "-c")...), append(bytes.Clone(small), small...), zframe.KindGzip},
		{"xz", run(t, small, "xz", "-6c"), small, zframe.KindXz},
		{"xz, blocks and streams", bytes.Join([][]byte{run(t, small, "xz", "-0c", "--block-size=20000"), make([]byte, 8), run(t, small, "xz", "-1c", "--check=sha256"),
			run(t, small[:5000], "xz", "-0c", "--check=none")}, nil), bytes.Join([][]byte{small, small, small[:5000]}, nil), zframe.KindXz},
		{"xz, incompressible", run(t, run(t, small, "gzip", "-9c"), "xz", "-0c", "--check=crc32"), run(t, small, "gzip", "-9c"), zframe.KindXz},
		{"bzip2", run(t, small, "bzip2", "-1c"), small, zframe.KindBzip2},
		{"empty tar", make([]byte, 10240), make([]byte, 10240), zframe.KindTar},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, workers := range []int{1, 3} {
				got, kind, err := unpack(c.in, zframe.Options{Workers: workers})
				if err != nil || kind != c.kind || !bytes.Equal(got, c.want) {
					t.Fatalf("%d workers: %v, %d bytes, %v; want %v, %d bytes", workers, kind, len(got), err, c.kind, len(c.want))
				}
			}
			if len(c.in) < 200_000 {
				r, _, err := zframe.Decompress(iotest.OneByteReader(bytes.NewReader(c.in)), zframe.Options{})
				check(t, err)
				got, err := io.ReadAll(r)
				if err != nil || !bytes.Equal(got, c.want) {
					t.Errorf("byte by byte: %d bytes, %v", len(got), err)
				}
				check(t, r.Close())
			}
			for _, cut := range []int{1, 5, len(c.in)/2 + 1} {
				if c.kind == zframe.KindTar || cut >= len(c.in) {
					continue
				}
				if _, _, err := unpack(c.in[:len(c.in)-cut], zframe.Options{}); !typed(err) {
					t.Errorf("%d bytes cut off: %v", cut, err)
				}
			}
		})
	}
}

func TestDecompressUnknown(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want error
	}{
		"empty":       {"", zframe.ErrTruncated},
		"text":        {strings.Repeat("hello\n", 1000), zframe.ErrUnknownFormat},
		"short":       {"hello", zframe.ErrUnknownFormat},
		"lz4":         {"\x04\x22\x4d\x18 and more", zframe.ErrUnknownFormat},
		"bzip2 alike": {"BZhello", zframe.ErrUnknownFormat},
	} {
		if _, kind, err := unpack([]byte(c.in), zframe.Options{}); !errors.Is(err, c.want) || kind != zframe.KindUnknown {
			t.Errorf("%s: %v %v", name, kind, err)
		}
	}
}

func TestLimits(t *testing.T) {
	zeros := make([]byte, 64<<20)
	stored := run(t, zeros, "zstd", "-qc")
	framed := bytes.Repeat(run(t, zeros[:4<<20], "zstd", "-qc", "--no-check"), 64)
	for _, c := range []struct {
		name string
		in   []byte
		o    zframe.Options
		want zframe.LimitError
	}{
		{"ratio of one frame", stored, zframe.Options{MaxRatio: 1000}, zframe.LimitError{What: "ratio", Limit: 1000}},
		{"ratio of many frames", framed, zframe.Options{MaxRatio: 1000}, zframe.LimitError{What: "ratio", Limit: 1000}},
		{"ratio of gzip", run(t, zeros, "gzip", "-c"), zframe.Options{MaxRatio: 500}, zframe.LimitError{What: "ratio", Limit: 500}},
		{"raw size", stored, zframe.Options{MaxRaw: 10 << 20}, zframe.LimitError{What: "raw size", Limit: 10 << 20}},
		{"window", run(t, zeros[:20<<20], "zstd", "-qc", "--long=28"), zframe.Options{}, zframe.LimitError{What: "window", Limit: zframe.MaxWindow}},
		{"window asked for", run(t, zeros[:20<<20], "zstd", "-qc", "--long=24"), zframe.Options{MaxWindow: 8 << 20}, zframe.LimitError{What: "window", Limit: 8 << 20}},
		{"dictionary", append(run(t, zeros[:10], "xz", "-0c"), run(t, zeros[:10], "xz", "-c", "--lzma2=dict=256MiB")...), zframe.Options{},
			zframe.LimitError{What: "dictionary", Limit: zframe.MaxWindow}},
	} {
		_, _, err := unpack(c.in, c.o)
		var limit *zframe.LimitError
		if !errors.As(err, &limit) || *limit != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, &c.want)
		}
		c.o.MaxWindow = 512 << 20
		if got, _, err := unpack(c.in, zframe.Options{MaxRaw: 1 << 30, MaxRatio: 1 << 20, MaxWindow: c.o.MaxWindow}); err != nil {
			t.Errorf("%s, allowed: %d bytes, %v", c.name, len(got), err)
		}
	}
}

// TestDeclaredSizesAreNotBelieved has frames whose headers claim sizes that nobody shall allocate.
func TestDeclaredSizesAreNotBelieved(t *testing.T) {
	lie := []byte("\x28\xb5\x2f\xfd\xe0\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00") // single segment, 4 GiB, then an empty last block
	for name, in := range map[string][]byte{"4 GiB in a single segment": lie, "a gigabyte in three bytes": []byte("\x28\xb5\x2f\xfd\xa0\xff\xff\xff\x00\x03\x00\x00A")} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := unpack(in, zframe.Options{})
		runtime.ReadMemStats(&after)
		if !typed(err) {
			t.Errorf("%s: %v", name, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
			t.Errorf("%s: %d bytes allocated", name, n)
		}
	}
}

func TestInputErrorComesThrough(t *testing.T) {
	broken := errors.New("disk on fire")
	big := sample(4 << 20)
	for name, in := range map[string][]byte{"tar": big, "zstd": run(t, big, "zstd", "-qc"), "gzip": run(t, big, "gzip", "-c"), "xz": run(t, big, "xz", "-0c"),
		"frames": build(t, string(big), string(big)).file} {
		r, _, err := zframe.Decompress(io.MultiReader(bytes.NewReader(in[:len(in)/2]), iotest.ErrReader(broken)), zframe.Options{})
		check(t, err)
		if _, err := io.Copy(io.Discard, r); !errors.Is(err, broken) {
			t.Errorf("%s: %v", name, err)
		}
		check(t, r.Close())
	}
}

// TestCloseEarly leaves readers at every stage, among them one whose input never ends, and looks for goroutines left behind.
func TestCloseEarly(t *testing.T) {
	big := sample(20 << 20)
	inputs := map[string][]byte{"frames": build(t, string(big[:5<<20]), string(big[:5<<20])).file, "zstd": run(t, big, "zstd", "-qc"),
		"gzip": run(t, big, "gzip", "-c"), "xz": run(t, big[:1<<20], "xz", "-0c")}
	before := runtime.NumGoroutine()
	for name, in := range inputs {
		for _, n := range []int64{0, 1, 1000, 300_000, 3 << 20} {
			r, _, err := zframe.Decompress(bytes.NewReader(in), zframe.Options{})
			check(t, err)
			if _, err := io.CopyN(io.Discard, r, min(n, 1<<20)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			check(t, r.Close())
			if n, err := r.Read(make([]byte, 1)); n != 0 || err == nil || err == io.EOF {
				t.Errorf("%s: read after Close: %d, %v", name, n, err)
			}
		}
	}
	deadline := time.Now().Add(5 * time.Second)
	for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > before {
		buf := make([]byte, 1<<16)
		t.Errorf("%d goroutines more than before\n%s", n-before, buf[:runtime.Stack(buf, true)])
	}
}

func TestGarbageBehindFrames(t *testing.T) {
	b := build(t, "x")
	var bad *zframe.CorruptError
	if got, _, err := unpack(append(bytes.Clone(b.file), "garbage"...), zframe.Options{}); !errors.As(err, &bad) || !bytes.Equal(got, b.raw) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	// The tail of another archive is none.
	other := build(t, "another", "archive")
	mixed := append(bytes.Clone(b.file[:b.frames[0].Stored]), other.file[other.frames[0].Stored+other.frames[1].Stored:]...)
	if _, _, err := unpack(mixed, zframe.Options{}); !errors.Is(err, zframe.ErrTruncated) {
		t.Errorf("with another's tail: %v", err)
	}
}

func TestGzipWriterIsDeterministic(t *testing.T) {
	in := sample(5 << 20)
	var first []byte
	for _, workers := range []int{1, 2, 7} {
		var out bytes.Buffer
		w, err := zframe.NewGzipWriter(&out, workers, 6)
		check(t, err)
		for rest := in; len(rest) > 0; {
			n := min(len(rest), 100_000*workers)
			_, err := w.Write(rest[:n])
			check(t, err)
			rest = rest[n:]
		}
		check(t, w.Close())
		if first == nil {
			first = out.Bytes()
		}
		if !bytes.Equal(first, out.Bytes()) {
			t.Errorf("%d workers make other bytes", workers)
		}
	}
	z, err := gzip.NewReader(bytes.NewReader(first))
	check(t, err)
	if z.Name != "" || !z.ModTime.IsZero() || z.OS != 255 || z.Comment != "" {
		t.Errorf("header %+v", z.Header)
	}
	if got := run(t, first, "gzip", "-dc"); !bytes.Equal(got, in) {
		t.Error("gzip reads something else")
	}
}

// TestPipe reads from a pipe that a tool fills, as `zstd … | nsferry unpack -` does.
func TestPipe(t *testing.T) {
	tier.Program(t, "zstd")
	big := sample(10 << 20)
	cmd := exec.Command("zstd", "-qc", "-T2")
	cmd.Stdin = bytes.NewReader(big)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	r, _, err := zframe.Decompress(out, zframe.Options{})
	check(t, err)
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, big) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	check(t, r.Close())
	check(t, cmd.Wait())
}
