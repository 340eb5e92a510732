package store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"strings"

	"github.com/nsferry/nsferry/idshift/userns"
)

const (
	// Suffix ends the name of every object.
	Suffix = ".tar.zst"
	// longest is what bitbake allows for an object's name, so that ".siginfo" still fits behind it.
	longest = 254 - 8
	// prefix begins the names that bitbake gives.
	prefix = "sstate:"
)

// Key names an entry: a name as bitbake's sstate gives them, or any string that can be a file's name.
type Key struct {
	text   string // without Suffix
	hash   string // decides on the directory
	sstate SState
}

// SState are the parts of a bitbake name: sstate:PN:ARCH:PV:PR:PKGARCH:VERSION:UNIHASH_TASK.
type SState struct {
	PN, Arch, PV, PR, PkgArch, Version, Unihash, Task string
}

// ParseKey checks a key. Suffix may be on it, and means nothing.
func ParseKey(text string) (Key, error) {
	k := Key{text: strings.TrimSuffix(text, Suffix)}
	if why := k.refused(); why != "" {
		return Key{}, &userns.UsageError{What: fmt.Sprintf("key %q %s", text, why)}
	}
	if rest, ok := strings.CutPrefix(k.text, prefix); ok {
		if k.sstate, ok = parseSState(rest); !ok {
			return Key{}, &userns.UsageError{What: fmt.Sprintf("key %q begins as a name of bitbake's and is none: sstate:PN:ARCH:PV:PR:PKGARCH:VERSION:UNIHASH_TASK", text)}
		}
		k.hash = k.sstate.Unihash
		return k, nil
	}
	sum := sha256.Sum256([]byte(k.text))
	k.hash = hex.EncodeToString(sum[:])
	return k, nil
}

// refused says what keeps the key from being a file's name, or nothing.
func (k Key) refused() string {
	switch {
	case k.text == "":
		return "is empty"
	case strings.HasPrefix(k.text, "."):
		return `begins with "."`
	case strings.HasPrefix(k.text, "-"):
		return `begins with "-"`
	case strings.Contains(k.text, "/"):
		return `holds a "/", and a key is one name, no path`
	case len(k.text)+len(Suffix) > longest:
		return fmt.Sprintf("has %d bytes, and %d is the most", len(k.text), longest-len(Suffix))
	case strings.ContainsFunc(k.text, func(r rune) bool { return r < 0x20 || r == 0x7f }):
		return "holds a control character"
	}
	return ""
}

func parseSState(rest string) (s SState, ok bool) {
	f := strings.Split(rest, ":")
	if len(f) != 7 || f[0] == "" {
		return s, false
	}
	hash, task, ok := strings.Cut(f[6], "_")
	if !ok || task == "" || len(hash) < 4 || strings.Trim(hash, "0123456789abcdef") != "" {
		return s, false
	}
	return SState{PN: f[0], Arch: f[1], PV: f[2], PR: f[3], PkgArch: f[4], Version: f[5], Unihash: hash, Task: task}, true
}

// String is the key without Suffix.
func (k Key) String() string { return k.text }

// SState are the parts of the key, when it is one of bitbake's.
func (k Key) SState() (parts SState, ok bool) { return k.sstate, k.sstate.PN != "" }

// Name is the name of the object's file.
func (k Key) Name() string { return k.text + Suffix }

// dir is the directory that the object is in, relative to the store: as bitbake lays them out, by the unihash.
func (k Key) dir() string { return path.Join(k.hash[:2], k.hash[2:4]) }

// Path is the object's path relative to the store.
func (k Key) Path() string { return path.Join(k.dir(), k.Name()) }
