package minisign

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/tier"
)

// scene is a directory with a key pair that minisign made, and a file.
type scene struct {
	dir    string
	secret SecretKey
	public PublicKey
}

func newScene(t *testing.T) scene {
	t.Helper()
	tier.Program(t, "minisign")
	s := scene{dir: t.TempDir()}
	s.minisign(t, true, "-G", "-W", "-p", "pub", "-s", "sec")
	if err := os.WriteFile(s.path("file.tar.zst"), []byte("the content\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.secret, err = ParseSecretKey(s.read(t, "sec")); err != nil {
		t.Fatal(err)
	}
	if s.public, err = ParsePublicKey(s.read(t, "pub")); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s scene) path(name string) string { return filepath.Join(s.dir, name) }

func (s scene) read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(s.path(name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// minisign runs the program and demands that it agrees, or that it does not.
func (s scene) minisign(t *testing.T, agrees bool, args ...string) {
	t.Helper()
	cmd := exec.Command("minisign", args...)
	cmd.Dir = s.dir
	if out, err := cmd.CombinedOutput(); (err == nil) != agrees {
		t.Fatalf("minisign %q: %v\n%s", args, err, out)
	}
}

func (s scene) digest(t *testing.T) [DigestSize]byte {
	t.Helper()
	d, err := Digest(bytes.NewReader(s.read(t, "file.tar.zst")))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestMinisignTakesOurs has minisign check what we sign.
func TestMinisignTakesOurs(t *testing.T) {
	s := newScene(t)
	sig := s.secret.Sign(s.digest(t), "timestamp:1\tfile:file.tar.zst\thashed")
	if err := os.WriteFile(s.path("file.tar.zst.minisig"), sig, 0o644); err != nil {
		t.Fatal(err)
	}
	s.minisign(t, true, "-Vm", "file.tar.zst", "-p", "pub")
	if err := os.WriteFile(s.path("file.tar.zst"), []byte("other content\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.minisign(t, false, "-Vm", "file.tar.zst", "-p", "pub")
	if s.secret.Public().ID() != s.public.ID() {
		t.Error("the secret key has another number than the public one")
	}
}

// TestOursTakesMinisign checks what minisign signs; then flips every bit of the two signatures and of the comment.
func TestOursTakesMinisign(t *testing.T) {
	s := newScene(t)
	s.minisign(t, true, "-Sm", "file.tar.zst", "-s", "sec", "-t", "trusted words")
	text := s.read(t, "file.tar.zst.minisig")
	check := func(text []byte) (string, error) {
		sig, err := ParseSignature(text)
		if err != nil {
			return "", err
		}
		return sig.Check(s.digest(t), []PublicKey{s.public})
	}
	comment, err := check(text)
	if err != nil || comment != "trusted words" {
		t.Fatalf("%q, %v", comment, err)
	}
	first := bytes.IndexByte(text, '\n')
	for i := first + 1; i < len(text)-1; i++ {
		for bit := range 8 {
			bad := bytes.Clone(text)
			bad[i] ^= 1 << bit
			if _, err := check(bad); err == nil && !sameBytes(text, bad) {
				t.Errorf("byte %d, bit %d: taken: %q", i, bit, bad)
			}
		}
	}
	for n := range len(text) - 1 {
		if _, err := check(text[:n]); err == nil {
			t.Errorf("taken when cut to %d bytes", n)
		}
	}
}

// sameBytes tells whether two signature files mean the same: a carriage return before a line feed is nothing.
func sameBytes(a, b []byte) bool {
	clean := func(x []byte) string { return strings.Join(textLines(x), "\n") }
	return clean(a) == clean(b)
}

// TestKeysThatAreRefused says why for each.
func TestKeysThatAreRefused(t *testing.T) {
	s := newScene(t)
	other := newScene(t)
	s.minisign(t, true, "-Sm", "file.tar.zst", "-s", "sec", "-l")
	if _, err := ParseSignature(s.read(t, "file.tar.zst.minisig")); err == nil || !strings.Contains(err.Error(), "legacy") {
		t.Errorf("a legacy signature: %v", err)
	}
	s.minisign(t, true, "-Sm", "file.tar.zst", "-s", "sec")
	sig, err := ParseSignature(s.read(t, "file.tar.zst.minisig"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sig.Check(s.digest(t), []PublicKey{other.public}); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("another key: %v", err)
	}
	if _, err := sig.Check(s.digest(t), []PublicKey{other.public, s.public}); err != nil {
		t.Errorf("one of two keys: %v", err)
	}
	// To derive a key from a password takes minisign seconds and a gigabyte; all that is read of it is the name of the function.
	locked := bytes.Replace(s.read(t, "sec"), []byte("RWQAAEIy"), []byte("RWRTY0Iy"), 1)
	if _, err := ParseSecretKey(locked); err == nil || !strings.Contains(err.Error(), "password") {
		t.Errorf("a key with a password: %v", err)
	}
	secret := s.read(t, "sec")
	secret[len(secret)-60] ^= 1
	if _, err := ParseSecretKey(secret); err == nil {
		t.Error("a damaged secret key was taken")
	}
	for _, text := range []string{"", "x", "untrusted comment: x\n", "untrusted comment: x\nAAAA\n"} {
		if _, err := ParsePublicKey([]byte(text)); err == nil {
			t.Errorf("a public key: %q", text)
		}
		if _, err := ParseSecretKey([]byte(text)); err == nil {
			t.Errorf("a secret key: %q", text)
		}
		if _, err := ParseSignature([]byte(text)); err == nil {
			t.Errorf("a signature: %q", text)
		}
	}
}

// TestVector checks the golden signature, which minisign 0.11 has made.
func TestVector(t *testing.T) {
	const dir = "../../testdata/vectors/"
	read := func(name string) []byte {
		b, err := os.ReadFile(dir + name)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	public, err := ParsePublicKey(read("small.pub"))
	if err != nil {
		t.Fatal(err)
	}
	sig, err := ParseSignature(read("small.tar.zst.minisig"))
	if err != nil {
		t.Fatal(err)
	}
	digest, err := Digest(bytes.NewReader(read("small.tar.zst")))
	if err != nil {
		t.Fatal(err)
	}
	comment, err := sig.Check(digest, []PublicKey{public})
	if err != nil || comment != "timestamp:1700000000\tfile:small.tar.zst\thashed" {
		t.Errorf("%q, %v", comment, err)
	}
	if !strings.Contains(string(read("small.pub")), public.ID()) {
		t.Errorf("minisign gives the key another number than %s", public.ID())
	}
}
