package debs

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/archive/statindex"
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
	begun int64 // ns, before the first file was looked at
	fresh bool  // it has to be written
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
	r := newRecord(dl)
	if r.path == "" {
		return r
	}
	if text, err := os.ReadFile(r.path); err == nil {
		r.read(text)
	}
	return r
}

// newRecord begins a record of a DL that believes nothing of what is on record so far.
func newRecord(dl *os.File) *record {
	r := &record{known: map[stamp]recorded{}}
	var now unix.Timespec
	var st unix.Stat_t
	cache, err := os.UserCacheDir()
	// The clock that files are stamped with.
	if err != nil || unix.Fstat(int(dl.Fd()), &st) != nil || unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now) != nil {
		return r
	}
	r.begun = now.Nano()
	r.path = filepath.Join(cache, "nsferry", "debs", fmt.Sprintf("%x-%x", st.Dev, st.Ino))
	return r
}

// read takes up the lines of a record. One that it does not understand ends it.
func (r *record) read(text []byte) {
	text, ok := bytes.CutPrefix(text, []byte(recordHead))
	if !ok {
		return
	}
	for line := range bytes.Lines(text) {
		s, sum, err := parseRecorded(line)
		if err != nil {
			return
		}
		r.known[s] = recorded{sha256: sum}
	}
}

// parseRecorded reads one line, with its newline.
func parseRecorded(line []byte) (s stamp, sum [32]byte, err error) {
	col := bytes.Split(bytes.TrimSuffix(line, []byte("\n")), []byte(" "))
	if len(col) != 4 || !bytes.HasSuffix(line, []byte("\n")) || len(col[3]) != hex.EncodedLen(len(sum)) {
		return s, sum, errors.New("a line has four columns")
	}
	var errs [4]error
	s.ino, errs[0] = strconv.ParseUint(string(col[0]), 10, 64)
	s.size, errs[1] = strconv.ParseInt(string(col[1]), 10, 64)
	s.mtime, errs[2] = strconv.ParseInt(string(col[2]), 10, 64)
	_, errs[3] = hex.Decode(sum[:], col[3])
	return s, sum, errors.Join(errs[:]...)
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

// get returns the digest of an open file whose stat is s: the one on record, or it reads the file.
func (r *record) get(f *os.File, s File, buf []byte) (Sum, error) {
	if got, ok := r.sum(s); ok {
		return got, nil
	}
	got, err := digest(f, buf)
	if err == nil {
		r.put(s, got)
	}
	return got, err
}

// put records the digest of a file whose stat was f before it was read, unless its mtime is too young to be told from that of a change
// that comes right after.
func (r *record) put(f File, s Sum) {
	if !statindex.Settled(f.MTime, r.begun) {
		return
	}
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
	_ = writeRecord(r.path, text)
}
