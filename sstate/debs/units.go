package debs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// unit is what stays or goes as one: a deb, or a .dsc with its files.
type unit struct {
	Package
	file  string // the deb or .dsc, relative to DL
	parts []part // all its files
	size  int64
	used  int64 // ctime, ns: when it came, or a hard link to it came or went, last
}

// part is a file of a unit; a missing one has no inode.
type part struct {
	path string // relative to DL
	File
	want Sum // of a source's part
}

// units lists the debs and source packages in DL and, for sources are often kept in a directory each, in the directories in
// it. What is named like one of them and is none is in odd.
func (c *cache) units(top Listing) (all []unit, odd []Refusal, err error) {
	all, odd, err = unitsIn(c.dir, "", top)
	for _, f := range top.Files {
		if f.Mode&unix.S_IFMT != unix.S_IFDIR || strings.HasSuffix(string(f.Name), ".deb") || err != nil {
			continue
		}
		fd, oerr := unix.Openat(int(c.dir.Fd()), string(f.Name), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if oerr != nil {
			return nil, nil, &fs.PathError{Op: "openat", Path: c.path + "/" + string(f.Name), Err: oerr}
		}
		dir := os.NewFile(uintptr(fd), string(f.Name))
		var below Listing
		var more []unit
		var moreOdd []Refusal
		if below, err = list(dir); err == nil {
			more, moreOdd, err = unitsIn(dir, string(f.Name)+"/", below)
		}
		all, odd, err = append(all, more...), append(odd, moreOdd...), errors.Join(err, dir.Close())
	}
	return all, odd, err
}

func unitsIn(dir *os.File, prefix string, l Listing) (all []unit, odd []Refusal, err error) {
	have := byName(l)
	for _, f := range l.Files {
		if strings.HasSuffix(string(f.Name), ".dsc") {
			u, err := sourceUnit(dir, prefix, f, have)
			if err != nil {
				odd = append(odd, Refusal{prefix + string(f.Name), err.Error()})
			} else {
				all = append(all, u)
			}
			continue
		}
		s, ok := begin(f)
		switch {
		case !ok:
		case !f.regular() || s.pkg == Package{}:
			odd = append(odd, Refusal{prefix + s.File, s.Reason})
		default:
			all = append(all, unit{Package: s.pkg, file: prefix + s.File, parts: []part{{path: prefix + s.File, File: f}}, size: f.Size, used: f.CTime})
		}
	}
	return all, odd, nil
}

func sourceUnit(dir *os.File, prefix string, f File, have map[bytesName]*File) (unit, error) {
	open, err := openRegular(dir, string(f.Name))
	if err != nil {
		return unit{}, err
	}
	defer open.Close()
	d, err := readDsc(open)
	if err != nil {
		return unit{}, err
	}
	u := unit{Package: d.Package, file: prefix + string(f.Name), parts: []part{{path: prefix + string(f.Name), File: f}}, size: f.Size, used: f.CTime}
	for name, sum := range d.files {
		p := part{path: prefix + name, want: sum}
		if there := have[bytesName(name)]; there != nil {
			p.File = *there
			u.size += there.Size
			u.used = max(u.used, there.CTime)
		}
		u.parts = append(u.parts, p)
	}
	return u, nil
}

// verify checks all files of a unit.
func (u unit) verify(c *cache, x Index, known *record, buf []byte) error {
	for i, p := range u.parts {
		if p.Ino == 0 {
			return fmt.Errorf("%w: %s is missing", errDamaged, p.path)
		}
		f, err := openRegular(c.dir, p.path)
		if err != nil {
			return err
		}
		sums := []Sum{p.want}
		if i == 0 {
			sums = x[u.Package]
		}
		switch {
		case u.Arch != archSource:
			err = checkFile(f, sums, known, buf)
		case len(sums) > 0:
			err = checkBytes(f, sums, buf)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			if i > 0 {
				err = fmt.Errorf("%s: %w", p.path, err)
			}
			return err
		}
	}
	return nil
}

// checkBytes checks an open file of any kind.
func checkBytes(f *os.File, sums []Sum, buf []byte) error {
	got, err := digest(f, buf)
	if err != nil {
		return err
	}
	return damaged(judge(sums, got))
}
