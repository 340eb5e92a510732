package debs

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Sum is what a list says of a package's file.
type Sum struct {
	Size   int64
	SHA256 [32]byte
}

// Index is what lists say of packages. Two repositories may have one version with different contents, so there may be several
// sums.
type Index map[Package][]Sum

// add takes up what the stanzas of a Packages file say of packages whose names are wanted; nil wants all. It does not parse
// the others: a list of Debian's has 60,000 stanzas, and a sync asks for a hundred.
func (x Index) add(list []byte, wanted map[string]bool) error {
	const mark = "\nPackage:"
	for at := 0; at < len(list); {
		name := at + len(mark) - 1 // the first line has no newline before it
		if at > 0 || !bytes.HasPrefix(list, []byte(mark[1:])) {
			i := bytes.Index(list[at:], []byte(mark))
			if i < 0 {
				return nil
			}
			name = at + i + len(mark)
		}
		end := bytes.IndexByte(list[name:], '\n')
		if end < 0 {
			end = len(list) - name
		}
		at = name + end
		if wanted != nil && !wanted[string(bytes.TrimSpace(list[name:at]))] {
			continue
		}
		begin := bytes.LastIndex(list[:name], []byte("\n\n")) + 1 // 0 without one
		stop := len(list)
		if i := bytes.Index(list[at:], []byte("\n\n")); i >= 0 {
			stop = at + i + 1
		}
		if err := x.stanza(bytes.TrimLeft(list[begin:stop], "\n")); err != nil {
			return err
		}
	}
	return nil
}

// stanza takes up one package. One without SHA256 is as good as not listed.
func (x Index) stanza(text []byte) error {
	f := fields(text, "Package", "Version", "Architecture", "Size", "SHA256")
	p := Package{Name: f[0], Version: f[1], Arch: f[2]}
	if f[4] == "" { // of a source package its .dsc counts, which has the rest
		files, err := checksums(text)
		for name, sum := range files {
			if strings.HasSuffix(name, ".dsc") {
				p.Arch = archSource
				x.put(p, sum)
			}
		}
		return err
	}
	sum, err := parseSum(f[3], f[4])
	if err != nil {
		return fmt.Errorf("package %s: %w", p, err)
	}
	x.put(p, sum)
	return nil
}

// parseSum reads size and digest as lists have them.
func parseSum(size, digest string) (s Sum, err error) {
	if s.Size, err = strconv.ParseInt(size, 10, 64); err != nil || s.Size < 0 {
		return s, fmt.Errorf("the size %q is no number", size)
	}
	if len(digest) != 2*len(s.SHA256) {
		return s, fmt.Errorf("the SHA256 %q is none", digest)
	}
	if _, err := hex.Decode(s.SHA256[:], []byte(digest)); err != nil {
		return s, fmt.Errorf("the SHA256 %q is none", digest)
	}
	return s, nil
}

// put adds a sum, also under the name without an epoch that the package has in a pool: what is judged is the content.
func (x Index) put(p Package, sum Sum) {
	for _, q := range [2]Package{p, p.pool()} {
		if !slices.Contains(x[q], sum) {
			x[q] = append(x[q], sum)
		}
	}
}

// merge adds what y has.
func (x Index) merge(y Index) {
	for p, sums := range y {
		for _, s := range sums {
			x.put(p, s)
		}
	}
}

// judge tells whether a file of that size and digest is what sums, not empty, say.
func judge(sums []Sum, got Sum) error {
	sizes := make([]string, 0, len(sums))
	for _, s := range sums {
		if s == got {
			return nil
		}
		if s.Size == got.Size {
			return fmt.Errorf("its SHA256 is %x, the lists say %x", got.SHA256, s.SHA256)
		}
		sizes = append(sizes, strconv.FormatInt(s.Size, 10))
	}
	return fmt.Errorf("it has %d bytes, the lists say %s", got.Size, strings.Join(sizes, " or "))
}

// hasSize tells whether one of sums has that size.
func hasSize(sums []Sum, size int64) bool {
	for _, s := range sums {
		if s.Size == size {
			return true
		}
	}
	return false
}
