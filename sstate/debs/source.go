package debs

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
)

// archSource is the architecture of source packages, as dpkg writes it in names of .changes files.
const archSource = "source"

// dsc is a source package: its .dsc and what that names.
type dsc struct {
	Package
	files map[string]Sum
}

// readDsc reads an open .dsc file, signed or not; the signature is not looked at.
func readDsc(f *os.File) (d dsc, err error) {
	const most = 4 << 20
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return d, err
	}
	if len(text) > most {
		return d, fmt.Errorf("%w: more than %d bytes are no .dsc", errDamaged, most)
	}
	if bytes.HasPrefix(text, []byte("-----BEGIN PGP SIGNED MESSAGE-----")) {
		_, text, _ = bytes.Cut(text, []byte("\n\n"))
	}
	v := fields(text, "Source", "Version")
	d.Package = Package{Name: v[0], Version: v[1], Arch: archSource}
	if err := d.check(); err != nil {
		return d, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if d.files, err = checksums(text); err != nil {
		return d, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if len(d.files) == 0 {
		return d, fmt.Errorf("%w: no Checksums-Sha256", errDamaged)
	}
	return d, nil
}

// checksums returns the field Checksums-Sha256 of the first stanza: lines of digest, size and name.
func checksums(stanza []byte) (map[string]Sum, error) {
	all := map[string]Sum{}
	within := false
	for line := range bytes.Lines(stanza) {
		switch {
		case len(bytes.TrimSpace(line)) == 0:
			return all, nil
		case line[0] != ' ' && line[0] != '\t':
			within = bytes.HasPrefix(line, []byte("Checksums-Sha256:"))
			continue
		case !within:
			continue
		}
		col := strings.Fields(string(line))
		if len(col) != 3 || strings.Contains(col[2], "/") {
			return nil, fmt.Errorf("%q is no line of Checksums-Sha256", bytes.TrimSpace(line))
		}
		sum, err := parseSum(col[1], col[0])
		if err != nil {
			return nil, err
		}
		all[col[2]] = sum
	}
	return all, nil
}
