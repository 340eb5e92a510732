//go:build linux

package store

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/nsferry/nsferry/tier"
)

func TestMain(m *testing.M) {
	serveJob()
	tier.PrivateMounts()
	os.Exit(m.Run())
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func key(t testing.TB, text string) Key {
	t.Helper()
	k, err := ParseKey(text)
	check(t, err)
	return k
}

// open makes a store in a new directory.
func open(t testing.TB) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "store"), Options{Create: true})
	check(t, err)
	return s
}

// content is a small archive that is told from others by its word.
func content(word string) []byte {
	var out bytes.Buffer
	z, err := zstd.NewWriter(&out)
	if err != nil {
		panic(err)
	}
	w := tar.NewWriter(z)
	_ = w.WriteHeader(&tar.Header{Name: "./word", Mode: 0o644, Size: int64(len(word))})
	_, err = w.Write([]byte(word))
	if err = errors.Join(err, w.Close(), z.Close()); err != nil {
		panic(err)
	}
	return out.Bytes()
}

// put saves content(word) under the key.
func put(t testing.TB, s *Store, k Key, word string) {
	t.Helper()
	check(t, tryPut(t.Context(), s, k, word))
}

func tryPut(ctx context.Context, s *Store, k Key, word string) (err error) {
	p, err := s.Put(ctx, k)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Abort()) }()
	if _, err := p.File().Write(content(word)); err != nil {
		return err
	}
	return p.Commit()
}

// get returns what is under the key, or the reason of the miss.
func get(t testing.TB, s *Store, k Key) (got []byte, reason string) {
	t.Helper()
	o, err := s.Get(t.Context(), k)
	var miss *MissError
	if errors.As(err, &miss) {
		if !errors.Is(err, ErrMiss) || miss.ExitCode() != 3 {
			t.Errorf("%v is not what a miss should be", err)
		}
		return nil, miss.Reason
	}
	check(t, err)
	defer o.Close()
	got, err = os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", o.File.Fd()))
	check(t, err)
	return got, ""
}

// holds demands that the key has content(word).
func holds(t testing.TB, s *Store, k Key, word string) {
	t.Helper()
	got, reason := get(t, s, k)
	if reason != "" || !bytes.Equal(got, content(word)) {
		t.Errorf("%s: %d bytes, %q; want %q", k, len(got), reason, word)
	}
}

// misses demands a miss whose reason has the words in it.
func misses(t testing.TB, s *Store, k Key, words string) {
	t.Helper()
	got, reason := get(t, s, k)
	if got != nil || !strings.Contains(reason, words) {
		t.Errorf("%s: %d bytes, reason %q; want a miss: %q", k, len(got), reason, words)
	}
}

// quarantined lists what lies in quarantine, the names alone.
func quarantined(t testing.TB, s *Store) (names []string) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(s.dir, quarantineDir, "*", "*"))
	check(t, err)
	for _, path := range all {
		names = append(names, filepath.Base(path))
	}
	return names
}

// age sets the last use of an entry back.
func age(t testing.TB, s *Store, k Key, by time.Duration) {
	t.Helper()
	then := time.Now().Add(-by)
	check(t, os.Chtimes(s.path(k.Path()), then, then))
}
