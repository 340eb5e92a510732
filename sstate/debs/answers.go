package debs

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/nsferry/nsferry/idshift/handoff"
)

const (
	// answersHead and answersEnd are the first and the last line of a file of answers; docs/DEBS.md has the format.
	answersHead = "nsferry debs answers 1"
	answersEnd  = "end"
	// answersPrefix begins its name.
	answersPrefix = "lists-"
	// maxAnswers is how many such files are kept: lists of a few suites, of the last days.
	maxAnswers = 32
)

// listsDigest is the SHA256 of the digests of all lists in a directory, in the order of their names. It stands for their content: the inner
// side may rewrite its lists at any time, with any stamp.
type listsDigest [sha256.Size]byte

// answers is what lists of one content said of the packages that they have been asked for, so that lists of tens of
// megabytes are hashed and not parsed for each new rootfs.
type answers struct {
	asked map[string]bool // names of packages
	index Index
}

// covers tells whether it has been asked for all these names.
func (a answers) covers(names []string) bool {
	return !slices.ContainsFunc(names, func(n string) bool { return !a.asked[n] })
}

// answersPath is "" for a caller without a cache directory.
func answersPath(d listsDigest) string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "nsferry", "debs", answersPrefix+hex.EncodeToString(d[:]))
}

// loadAnswers reads what is on record for lists of that content. Anything odd is no answer.
func loadAnswers(d listsDigest) answers {
	none := answers{asked: map[string]bool{}, index: Index{}}
	path := answersPath(d)
	if path == "" {
		return none
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return none
	}
	if a, ok := parseAnswers(text); ok {
		return a
	}
	return none
}

// parseAnswers reads a whole file of answers. A line of one word is a name that was asked for, one of five what a list says of a package.
func parseAnswers(text []byte) (a answers, ok bool) {
	a = answers{asked: map[string]bool{}, index: Index{}}
	lines := strings.Split(string(text), "\n")
	n := len(lines)
	if n < 3 || lines[0] != answersHead || lines[n-2] != answersEnd || lines[n-1] != "" {
		return a, false
	}
	for _, line := range lines[1 : n-2] {
		switch col := strings.Split(line, " "); len(col) {
		case 1:
			a.asked[col[0]] = true
		case 5:
			sum, err := parseSum(col[3], col[4])
			if err != nil {
				return a, false
			}
			a.index.put(Package{Name: col[0], Version: col[1], Arch: col[2]}, sum)
		default:
			return a, false
		}
	}
	return a, true
}

// text undoes parseAnswers. Names that would not come back as they are make it fail.
func (a answers) text() ([]byte, bool) {
	out := []byte(answersHead + "\n")
	for p, sums := range a.index {
		for _, word := range [...]string{p.Name, p.Version, p.Arch} {
			if !oneWord(word) {
				return nil, false
			}
		}
		for _, s := range sums {
			out = fmt.Appendf(out, "%s %s %s %s %x\n", p.Name, p.Version, p.Arch, strconv.FormatInt(s.Size, 10), s.SHA256)
		}
	}
	for name := range a.asked {
		if !oneWord(name) {
			return nil, false
		}
		out = append(append(out, name...), '\n')
	}
	return append(out, answersEnd+"\n"...), true
}

func oneWord(s string) bool { return s != "" && !strings.ContainsAny(s, " \n") }

// save puts the answers on record. A record that cannot be written is none.
func (a answers) save(d listsDigest) {
	text, ok := a.text()
	path := answersPath(d)
	if !ok || path == "" {
		return
	}
	if writeRecord(path, text) == nil {
		trimAnswers(filepath.Dir(path))
	}
}

// trimAnswers removes all but the newest files of answers.
func trimAnswers(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	var all []fs.FileInfo
	for _, e := range entries {
		if info, err := e.Info(); err == nil && strings.HasPrefix(e.Name(), answersPrefix) {
			all = append(all, info)
		}
	}
	slices.SortFunc(all, func(a, b fs.FileInfo) int {
		return cmp.Or(b.ModTime().Compare(a.ModTime()), cmp.Compare(a.Name(), b.Name()))
	})
	for _, info := range all[min(maxAnswers, len(all)):] {
		_ = os.Remove(filepath.Join(dir, info.Name())) // the next one tries again
	}
}

// writeRecord replaces a file of the caller's cache directory.
func writeRecord(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	p, err := handoff.NewPending(dir, filepath.Base(path), handoff.Options{Overwrite: handoff.Replace, NoSync: true})
	if err != nil {
		return err
	}
	defer p.Abort() // no effect once committed
	if _, err := bytes.NewReader(text).WriteTo(p.File()); err != nil {
		return err
	}
	return p.Commit()
}

// lookUp returns what the lists say of the named packages, by the record where it knows lists of the same content.
func lookUp(ctx context.Context, r *rootfs, lists string, names []string) (Index, error) {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	from := listSource{r, lists}
	d, err := from.digest(ctx)
	if err != nil {
		return nil, err
	}
	known := loadAnswers(d)
	if known.covers(names) {
		return known.index, nil
	}
	for name := range known.asked {
		names = append(names, name)
	}
	found, err := from.read(ctx, names)
	if err != nil {
		return nil, err
	}
	asked := make(map[string]bool, len(names))
	for _, name := range names {
		asked[name] = true
	}
	// By the digest of what has been parsed: the lists may be others since.
	answers{asked, found.index}.save(found.digest)
	return found.index, nil
}
