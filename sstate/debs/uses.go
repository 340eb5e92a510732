package debs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/idshift/userns"
)

// uses are packages that somebody uses. A name and version without an architecture are of any.
type uses struct {
	packages map[Package]bool
}

// has tells whether p is used. File names may lack the epoch.
func (u *uses) has(p Package) bool {
	p = p.pool()
	return u.packages[p] || u.packages[Package{Name: p.Name, Version: p.Version}]
}

func (u *uses) add(p Package) { u.packages[p.pool()] = true }

// installedHalf returns the packages that dpkg knows in a rootfs, its file, and the sources that they were built from.
var installedHalf = userns.Half[restArgs, []Package]{Name: "debs-installed", Func: func(_ context.Context, in *userns.Inner, a restArgs) ([]Package, error) {
	root, err := userns.ReopenDir(in.Files[0], a.Rest)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	at, base, err := tree.NewRoot(root).OpenParent("var/lib/dpkg/status")
	if err != nil {
		return nil, err
	}
	dir := os.NewFile(uintptr(at), "var/lib/dpkg")
	defer dir.Close()
	f, err := openRegular(dir, base)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxList))
	if err != nil {
		return nil, err
	}
	return installed(text), nil
}}

// installed reads dpkg's status file. Packages that are removed but configured are not used any more.
func installed(status []byte) (all []Package) {
	for len(status) > 0 {
		var stanza []byte
		stanza, status, _ = bytes.Cut(status, []byte("\n\n"))
		f := fields(bytes.TrimLeft(stanza, "\n"), "Package", "Version", "Architecture", "Status", "Source")
		if f[0] == "" || f[1] == "" || strings.HasSuffix(f[3], " config-files") || strings.HasSuffix(f[3], " not-installed") {
			continue
		}
		all = append(all, Package{Name: f[0], Version: f[1], Arch: f[2]})
		name, v, _ := strings.Cut(f[4], " ") // "name (version)", if it differs
		if name == "" {
			name = f[0]
		}
		if v = strings.Trim(v, "()"); v == "" {
			v = f[1]
		}
		all = append(all, Package{Name: name, Version: v, Arch: archSource})
	}
	return all
}

// usedBy collects what rootfs trees and manifests use.
func usedBy(ctx context.Context, env EnvFunc, paths []string) (*uses, error) {
	u := &uses{packages: map[Package]bool{}}
	for _, path := range paths {
		st, err := os.Stat(path)
		switch {
		case err == nil && !st.IsDir():
			err = u.manifest(path)
		case err == nil || denied(err):
			err = u.rootfs(ctx, env, path)
		}
		if err != nil {
			return nil, fmt.Errorf("keep what %s uses: %w", path, err)
		}
	}
	return u, nil
}

func (u *uses) rootfs(ctx context.Context, env EnvFunc, path string) (err error) {
	r, err := openRootfs(path, env)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	all, _, err := ask(ctx, r, installedHalf, restArgs{r.rest})
	for _, p := range all {
		u.add(p)
	}
	return err
}

// manifest reads a list of packages, one a line: names or paths of debs; what dpkg-query -W prints, NAME[:ARCH] VERSION; or what Isar
// writes beside its images, SOURCE|VERSION|NAME[:ARCH]|VERSION.
func (u *uses) manifest(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for i := 1; sc.Scan(); i++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if err := u.line(line); err != nil {
			return fmt.Errorf("line %d: %w", i, err)
		}
	}
	return sc.Err()
}

func (u *uses) line(line string) error {
	if strings.HasSuffix(line, ".deb") {
		p, err := ParseName(line[strings.LastIndexByte(line, '/')+1:])
		u.add(p)
		return err
	}
	col := strings.Fields(line)
	if bar := strings.Split(line, "|"); len(bar) >= 4 {
		u.add(Package{Name: bar[0], Version: bar[1], Arch: archSource})
		col = bar[2:4]
	}
	if len(col) < 2 {
		return fmt.Errorf("%q is no package with a version", line)
	}
	name, arch, _ := strings.Cut(col[0], ":")
	p := Package{Name: name, Version: col[1], Arch: arch}
	if p.Arch == "" {
		p.Arch = "all" // for the check only
	}
	if err := p.check(); err != nil {
		return err
	}
	u.add(Package{Name: name, Version: col[1], Arch: arch})
	return nil
}
