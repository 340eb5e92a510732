// Package minisign makes and checks signatures as minisign(1) does: ed25519 over the BLAKE2b-512 digest of a file, and over a
// trusted comment.
//
// Formats: https://jedisct1.github.io/minisign/. Of signatures only the prehashed kind (algorithm "ED") is known, for the
// other one needs the whole file in memory; of secret keys those without a password (minisign -G -W).
package minisign

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/crypto/blake2b"
)

// DigestSize is the size of the digest that is signed, in bytes.
const DigestSize = blake2b.Size

const (
	algorithmKey    = "Ed"
	algorithmHashed = "ED"
	untrusted       = "untrusted comment: "
	trusted         = "trusted comment: "
)

// decode refuses bits that mean nothing, as libsodium does.
func decode(text string) ([]byte, error) { return base64.StdEncoding.Strict().DecodeString(text) }

// Most is more than any key or signature file has, in bytes.
const Most = 16 << 10

// PublicKey checks signatures.
type PublicKey struct {
	id  [8]byte
	key ed25519.PublicKey
}

// ID is the key's number as minisign prints it.
func (k PublicKey) ID() string { return keyID(k.id) }

func keyID(id [8]byte) string { return fmt.Sprintf("%016X", binary.LittleEndian.Uint64(id[:])) }

// SecretKey makes signatures.
type SecretKey struct {
	id  [8]byte
	key ed25519.PrivateKey
}

// Public is the key that checks what k signs.
func (k SecretKey) Public() PublicKey {
	return PublicKey{k.id, k.key.Public().(ed25519.PublicKey)}
}

// Digest reads all of r and returns the digest of what it read.
func Digest(r io.Reader) ([DigestSize]byte, error) {
	var sum [DigestSize]byte
	h, err := blake2b.New512(nil)
	if err == nil {
		_, err = io.CopyBuffer(h, r, make([]byte, 1<<20))
	}
	if err != nil {
		return sum, err
	}
	return [DigestSize]byte(h.Sum(nil)), nil
}

// ParsePublicKey reads a public key file, or the key alone.
func ParsePublicKey(text []byte) (PublicKey, error) {
	lines := textLines(text)
	if len(lines) > 0 && strings.HasPrefix(lines[0], untrusted) {
		lines = lines[1:]
	}
	if len(lines) == 0 {
		return PublicKey{}, errors.New("not a public key of minisign: there is no key in it")
	}
	b, err := decode(lines[0])
	if err != nil || len(b) != 2+8+ed25519.PublicKeySize || string(b[:2]) != algorithmKey {
		return PublicKey{}, errors.New("not a public key of minisign")
	}
	return PublicKey{[8]byte(b[2:10]), ed25519.PublicKey(b[10:])}, nil
}

// ParseSecretKey reads a secret key file.
func ParseSecretKey(text []byte) (SecretKey, error) {
	bad := errors.New("not a secret key of minisign")
	lines := textLines(text)
	if len(lines) < 2 {
		return SecretKey{}, bad
	}
	// Algorithm, key derivation, checksum's algorithm, 48 bytes for the derivation; then number, key and checksum.
	b, err := decode(lines[1])
	if err != nil || len(b) != 6+48+8+ed25519.PrivateKeySize+32 || string(b[:2]) != algorithmKey || string(b[4:6]) != "B2" {
		return SecretKey{}, bad
	}
	if b[2] != 0 || b[3] != 0 {
		return SecretKey{}, errors.New("the secret key has a password; make one without (minisign -G -W), or take it off a copy (minisign -C -W)")
	}
	b, kept := append(b[:2:2], b[54:len(b)-32]...), b[len(b)-32:]
	k := SecretKey{[8]byte(b[2:10]), ed25519.PrivateKey(b[10:])}
	// minisign -W leaves the checksum zero (0.11); the public half of the key is a checksum as well.
	sum := blake2b.Sum256(b)
	if blank := make([]byte, len(sum)); !bytes.Equal(kept, sum[:]) && !bytes.Equal(kept, blank) || !k.key.Equal(ed25519.NewKeyFromSeed(k.key.Seed())) {
		return SecretKey{}, errors.New("the secret key is damaged: its checksum is wrong")
	}
	return k, nil
}

// Sign returns the text of a signature file.
func (k SecretKey) Sign(digest [DigestSize]byte, comment string) []byte {
	sig := ed25519.Sign(k.key, digest[:])
	global := ed25519.Sign(k.key, append(bytes.Clone(sig), comment...))
	blob := append(append([]byte(algorithmHashed), k.id[:]...), sig...)
	return fmt.Appendf(nil, "%ssignature from nsferry\n%s\n%s%s\n%s\n", untrusted, base64.StdEncoding.EncodeToString(blob),
		trusted, comment, base64.StdEncoding.EncodeToString(global))
}

// Signature is a signature file that was parsed, and not checked.
type Signature struct {
	id      [8]byte
	sig     []byte
	comment string
	global  []byte
}

// ParseSignature reads a signature file.
func ParseSignature(text []byte) (Signature, error) {
	bad := errors.New("not a signature of minisign")
	lines := textLines(text)
	if len(lines) != 4 || !strings.HasPrefix(lines[0], untrusted) {
		return Signature{}, bad
	}
	comment, ok := strings.CutPrefix(lines[2], trusted)
	blob, err := decode(lines[1])
	global, gerr := decode(lines[3])
	if !ok || errors.Join(err, gerr) != nil || len(blob) != 2+8+ed25519.SignatureSize || len(global) != ed25519.SignatureSize {
		return Signature{}, bad
	}
	switch string(blob[:2]) {
	case algorithmHashed:
	case algorithmKey:
		return Signature{}, errors.New("a legacy signature (minisign -l), which is not supported; sign again without -l")
	default:
		return Signature{}, bad
	}
	return Signature{[8]byte(blob[2:10]), blob[10:], comment, global}, nil
}

// Check tells whether the signature is one of the keys' for the digest, and returns the trusted comment.
func (s Signature) Check(digest [DigestSize]byte, keys []PublicKey) (comment string, err error) {
	for _, k := range keys {
		if k.id != s.id {
			continue
		}
		if !ed25519.Verify(k.key, digest[:], s.sig) {
			return "", errors.New("the signature is wrong")
		}
		if !ed25519.Verify(k.key, append(bytes.Clone(s.sig), s.comment...), s.global) {
			return "", errors.New("the trusted comment of the signature is wrong")
		}
		return s.comment, nil
	}
	return "", fmt.Errorf("the signature is of another key, %s", keyID(s.id))
}

// textLines splits a file into lines. Blank lines at the end are nothing.
func textLines(text []byte) []string {
	s := strings.ReplaceAll(string(text), "\r\n", "\n")
	if s = strings.TrimRight(s, "\n"); s == "" {
		return nil
	}
	return strings.Split(s, "\n")
}
