package debs

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/idshift/handoff"
)

// recordHead is the first line of a record; docs/DEBS.md has the format.
const recordHead = "nsferry debs digests 1\n"

// record holds the digests of the files of one DL, so that a file is read once and not at each use. It lies in the caller's own cache
// directory. A record that is wrong, old or missing costs time only: what a digest is compared with is looked up each time.
//
// ctime would be a better witness than mtime, but each hard link that comes or goes changes it.
type record struct {
	path  string
	mu    sync.Mutex
	known map[stamp]recorded
	fresh bool // it has to be written
}

// stamp tells a file's content without reading it.
type stamp struct {
	ino         uint64
	size, mtime int64
}

type recorded struct {
	sha256 [32]byte
	used   bool // by this run
}

func (f File) stamp() stamp { return stamp{f.Ino, f.Size, f.MTime} }

// openRecord reads the record of a DL. A caller without a cache directory has none that is kept.
func openRecord(dl *os.File) *record {
	r := &record{known: map[stamp]recorded{}}
	var st unix.Stat_t
	cache, err := os.UserCacheDir()
	if err != nil || unix.Fstat(int(dl.Fd()), &st) != nil {
		return r
	}
	r.path = filepath.Join(cache, "nsferry", "debs", fmt.Sprintf("%x-%x", st.Dev, st.Ino))
	text, err := os.ReadFile(r.path)
	if err != nil {
		return r
	}
	r.read(text)
	return r
}

// read takes up the lines of a record. One that it does not understand ends it.
func (r *record) read(text []byte) {
	text, ok := bytes.CutPrefix(text, []byte(recordHead))
	if !ok {
		return
	}
	for line := range bytes.Lines(text) {
		var s stamp
		var digest string
		var sum recorded
		if n, err := fmt.Sscanf(string(line), "%d %d %d %64s\n", &s.ino, &s.size, &s.mtime, &digest); n != 4 || err != nil {
			return
		}
		if n, err := hex.Decode(sum.sha256[:], []byte(digest)); n != len(sum.sha256) || err != nil {
			return
		}
		r.known[s] = sum
	}
}

// sum returns what is recorded of a file.
func (r *record) sum(f File) (Sum, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k, ok := r.known[f.stamp()]
	if ok {
		k.used = true
		r.known[f.stamp()] = k
	}
	return Sum{f.Size, k.sha256}, ok
}

// put records the digest of a file.
func (r *record) put(f File, s Sum) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known[f.stamp()] = recorded{s.SHA256, true}
	r.fresh = true
}

// save writes the record, without those of its files that there is none of any more. A record that cannot be written is none.
func (r *record) save(there Listing) {
	if !r.fresh || r.path == "" {
		return
	}
	stays := make(map[stamp]bool, len(there.Files))
	for _, f := range there.Files {
		stays[f.stamp()] = true
	}
	text := []byte(recordHead)
	for s, k := range r.known {
		if k.used || stays[s] {
			text = fmt.Appendf(text, "%d %d %d %x\n", s.ino, s.size, s.mtime, k.sha256)
		}
	}
	if os.MkdirAll(filepath.Dir(r.path), 0o700) != nil {
		return
	}
	dir, err := os.Open(filepath.Dir(r.path))
	if err != nil {
		return
	}
	defer dir.Close()
	p, err := handoff.NewPending(dir, filepath.Base(r.path), handoff.Options{Overwrite: handoff.Replace, NoSync: true})
	if err != nil {
		return
	}
	defer p.Abort() // no effect once committed
	if _, err := p.File().Write(text); err == nil {
		_ = p.Commit()
	}
}
