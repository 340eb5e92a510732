package debs

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/url"
	"path"
	"strings"
)

// Needed is a list of what is asked for, see ParseNeeded. nil asks for everything.
type Needed struct {
	Files    []Package // exactly these
	Packages []string  // these, and whatever they may depend on
}

// ParseNeeded reads a list, of which each line is of one of these kinds, told apart by their looks:
//
//	'http://…/hello_2.10-3_amd64.deb' hello_2.10-3_amd64.deb 53000 SHA256:…   apt-get --print-uris
//	/some/where/hello_2.10-3_amd64.deb                                        the name or path of a deb
//	hello                                                                     a package, maybe with :ARCH, =VERSION or /RELEASE
//
// Empty lines and those that begin with "#" are skipped.
func ParseNeeded(r io.Reader) (*Needed, error) {
	n := &Needed{}
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for i := 1; sc.Scan(); i++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if err := n.line(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", i, err)
		}
	}
	return n, sc.Err()
}

func (n *Needed) line(line string) error {
	if uri, ok := strings.CutPrefix(line, "'"); ok {
		uri, rest, ok := strings.Cut(uri, "' ")
		name, _, _ := strings.Cut(rest, " ")
		if !ok || name == "" {
			return fmt.Errorf("%q is not what apt-get --print-uris prints", line)
		}
		if !strings.HasSuffix(name, ".deb") {
			return nil // a source or an index
		}
		p, err := ParseName(name)
		if err != nil { // a repository may call its files anything; apt's own name is not printed then
			if plain, uerr := url.PathUnescape(path.Base(uri)); uerr == nil {
				p, err = ParseName(plain)
			}
		}
		n.Files = append(n.Files, p)
		return err
	}
	if strings.HasSuffix(line, ".deb") {
		p, err := ParseName(path.Base(line))
		n.Files = append(n.Files, p)
		return err
	}
	name, _, _ := strings.Cut(line, "/")
	name, _, _ = strings.Cut(name, "=")
	name, _, _ = strings.Cut(name, ":")
	if err := (Package{Name: name, Version: "0", Arch: "all"}).check(); err != nil {
		return err
	}
	n.Packages = append(n.Packages, name)
	return nil
}

// filter returns what tells whether a deb is needed.
func (n *Needed) filter(ctx context.Context, r *rootfs, lists string) (func(Package) bool, error) {
	if n == nil {
		return func(Package) bool { return true }, nil
	}
	files := make(map[Package]bool, len(n.Files))
	for _, p := range n.Files {
		files[p.pool()] = true
	}
	names := map[string]bool{}
	if len(n.Packages) > 0 {
		var err error
		if names, err = closure(ctx, r, lists, n.Packages); err != nil {
			return nil, err
		}
	}
	return func(p Package) bool { return files[p.pool()] || names[p.Name] }, nil
}
