package zframe_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/nsferry/nsferry/archive/zframe"
	"github.com/nsferry/nsferry/archive/zframe/toc"
	"github.com/nsferry/nsferry/tier"
)

// run runs a tool with in as its input and returns its output.
func run(tb testing.TB, in []byte, tool string, args ...string) []byte {
	tb.Helper()
	tier.Program(tb, tool)
	cmd := exec.Command(tool, args...)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), &stderr
	out, err := cmd.Output()
	if err != nil {
		tb.Fatalf("%s %q: %v\n%s", tool, args, err, stderr.Bytes())
	}
	return out
}

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// built is a small archive and what it was made of.
type built struct {
	file    []byte
	raw     []byte // the tar stream
	frames  []zframe.Frame
	entries []toc.Entry
}

// build makes an archive of a root directory with the mark, and one file for each content, each in a frame of its own but the first.
func build(tb testing.TB, contents ...string) built {
	tb.Helper()
	enc, err := zframe.NewEncoder(3)
	check(tb, err)
	var b built
	var stream bytes.Buffer
	w := tar.NewWriter(&stream)
	table := toc.NewWriter(enc)
	identity := zframe.NewIdentityHash()
	seal := func() {
		raw := bytes.Clone(stream.Bytes())
		stream.Reset()
		stored := enc.Encode(nil, raw)
		b.raw, b.file = append(b.raw, raw...), append(b.file, stored...)
		b.frames = append(b.frames, zframe.Frame{Identity: identity.Sum(), Raw: int64(len(raw)), Stored: int64(len(stored)), Sum: sha256.Sum256(stored)})
	}
	add := func(h *tar.Header, e toc.Entry, content string) {
		h.ModTime, h.Format = time.Unix(1700000000, 0), tar.FormatPAX
		e.ModTime.Sec, e.Mode = 1700000000, uint32(h.Mode)
		e.Frame, e.Offset = len(b.frames), int64(stream.Len())
		check(tb, w.WriteHeader(h))
		e.HeaderLen = int64(stream.Len()) - e.Offset
		identity.Header(stream.Bytes()[e.Offset:])
		_, err := io.WriteString(w, content)
		check(tb, err)
		check(tb, w.Flush())
		if h.Typeflag == tar.TypeReg {
			e.Digest = sha256.Sum256([]byte(content))
		}
		identity.Part(0, int64(len(content)))
		identity.Digest(e.Digest)
		check(tb, table.Add(&e))
		b.entries = append(b.entries, e)
	}
	add(&tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755, PAXRecords: map[string]string{"comment": zframe.Mark}},
		toc.Entry{Name: ".", Type: toc.Dir}, "")
	for i, content := range contents {
		name := "file-" + string(rune('a'+i))
		add(&tar.Header{Name: "./" + name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))},
			toc.Entry{Name: name, Type: toc.File, Size: int64(len(content))}, content)
		if i == len(contents)-1 {
			check(tb, w.Close())
			identity.End()
		}
		seal()
	}
	tail, err := table.Finish(toc.Header{Encoder: enc.Name(), Policy: map[string]string{"devices": "skip", "ids": "inside"}}, b.frames)
	check(tb, err)
	b.file = append(b.file, tail...)
	return b
}

// verify does what a careful reader does: Open, every frame and its sum, the table of contents. It returns the tar stream.
func verify(file []byte) ([]byte, error) {
	f, err := zframe.Open(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		return nil, err
	}
	c, err := toc.ReadAll(f)
	if err != nil {
		return nil, err
	}
	var raw []byte
	for i, frame := range c.Frames {
		stored, err := f.ReadStored(i, nil)
		if err != nil {
			return nil, err
		}
		if sha256.Sum256(stored) != frame.Sum {
			return nil, &zframe.CorruptError{Where: "frame", Err: io.ErrNoProgress}
		}
		if raw, err = f.ReadFrame(i, raw); err != nil {
			return nil, err
		}
	}
	return raw, nil
}

// unpack reads file as a stream.
func unpack(file []byte, o zframe.Options) ([]byte, zframe.Kind, error) {
	r, kind, err := zframe.Decompress(bytes.NewReader(file), o)
	if err != nil {
		return nil, kind, err
	}
	out, err := io.ReadAll(r)
	if closeErr := r.Close(); err == nil {
		err = closeErr
	}
	return out, kind, err
}

// write puts b into a file of the test's own directory and returns its name.
func write(tb testing.TB, b []byte) string {
	tb.Helper()
	name := filepath.Join(tb.TempDir(), "x")
	check(tb, os.WriteFile(name, b, 0o600))
	return name
}
