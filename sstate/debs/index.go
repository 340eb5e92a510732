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

// stanza takes up one package. One without SHA256 or size is as good as not listed.
func (x Index) stanza(text []byte) error {
	f := fields(text, "Package", "Version", "Architecture", "Size", "SHA256")
	if f[3] == "" || f[4] == "" {
		return nil
	}
	p := Package{Name: f[0], Version: f[1], Arch: f[2]}
	size, err := strconv.ParseInt(f[3], 10, 64)
	if err != nil || size < 0 {
		return fmt.Errorf("package %s: the size %q is no number", p, f[3])
	}
	sum := Sum{Size: size}
	if n, err := hex.Decode(sum.SHA256[:], []byte(f[4])); err != nil || n != len(sum.SHA256) || len(f[4]) != 64 {
		return fmt.Errorf("package %s: the SHA256 %q is none", p, f[4])
	}
	x.put(p, sum)
	return nil
}

// put adds a sum, also under the name without an epoch that the package has in a pool: what is judged is the content.
func (x Index) put(p Package, sum Sum) {
	for _, q := range [2]Package{p, p.pool()} {
		if !slices.Contains(x[q], sum) {
			x[q] = append(x[q], sum)
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
