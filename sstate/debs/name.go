package debs

import (
	"fmt"
	"strings"
)

// Package is what a deb is identified by.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"` // with epoch, if any
	Arch    string `json:"arch"`
}

// ParseName reads a file name as apt makes it: NAME_VERSION_ARCH.deb, where what would not do in a name is percent-encoded, so
// that an epoch's colon is %3a. Names in a repository's pool have no epoch at all; they are read too.
func ParseName(file string) (Package, error) {
	base, ok := strings.CutSuffix(file, ".deb")
	if !ok {
		return Package{}, fmt.Errorf("%q does not end in .deb", file)
	}
	part := strings.Split(base, "_")
	if len(part) != 3 {
		return Package{}, fmt.Errorf("%q is not NAME_VERSION_ARCH.deb", file)
	}
	for i := range part {
		plain, err := unquote(part[i])
		if err != nil {
			return Package{}, fmt.Errorf("%q: %w", file, err)
		}
		part[i] = plain
	}
	p := Package{Name: part[0], Version: part[1], Arch: part[2]}
	if err := p.check(); err != nil {
		return Package{}, fmt.Errorf("%q: %w", file, err)
	}
	return p, nil
}

// check holds what deb-control(7) and Debian's policy say of the three, as far as a file name depends on it. dpkg takes upper case
// in package names.
func (p Package) check() error {
	for _, f := range [...]struct{ what, text, extra string }{
		{"package name", p.Name, "+-."},
		{"version", p.Version, ".+-~:"},
		{"architecture", p.Arch, "-"},
	} {
		if f.text == "" || !alphanumeric(f.text[0]) {
			return fmt.Errorf("%q is no %s", f.text, f.what)
		}
		for i := range len(f.text) {
			if !alphanumeric(f.text[i]) && strings.IndexByte(f.extra, f.text[i]) < 0 {
				return fmt.Errorf("%q is no %s", f.text, f.what)
			}
		}
	}
	return nil
}

func alphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// FileName is the name that apt gives the package's file in its archives.
func (p Package) FileName() string {
	return p.Name + "_" + strings.ReplaceAll(p.Version, ":", "%3a") + "_" + p.Arch + ".deb"
}

// String is NAME VERSION ARCH.
func (p Package) String() string { return p.Name + " " + p.Version + " " + p.Arch }

// pool is the package as a pool's file names it, without an epoch.
func (p Package) pool() Package {
	if _, after, ok := strings.Cut(p.Version, ":"); ok {
		p.Version = after
	}
	return p
}

// unquote undoes apt's QuoteString.
func unquote(s string) (string, error) {
	if strings.IndexByte(s, '%') < 0 {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", fmt.Errorf("%q ends within a percent code", s)
		}
		hi, lo := nibble(s[i+1]), nibble(s[i+2])
		if hi < 0 || lo < 0 {
			return "", fmt.Errorf("%q has a bad percent code", s)
		}
		b.WriteByte(byte(hi<<4 | lo))
		i += 2
	}
	return b.String(), nil
}

// nibble is the value of a hexadecimal digit, or -1.
func nibble(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
