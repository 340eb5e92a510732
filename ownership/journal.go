package ownership

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/archive/tree"
)

// A journal (docs/SHIFT.md) is JSON lines: a header, a record for each inode that has more than an owner and a group to change, or is delicate, and
// an end that makes it whole. It is written and synced before the first change, and removed after the last one. Records hold
// the final state, not steps, so that it does no harm to carry one out twice.

// header says what the journal is of.
type header struct {
	Version  int
	Dev, Ino uint64 // the tree's root directory
	View     view
	// Since is when the plan began, by the clock of the tree's filesystem; zero where that is not known, or too coarse.
	Since timestamp `json:",omitzero"`
}

// timestamp is a time of an inode: seconds and nanoseconds.
type timestamp [2]int64

func (t timestamp) before(u timestamp) bool { return t[0] < u[0] || t[0] == u[0] && t[1] < u[1] }

func timeOf(t unix.StatxTimestamp) timestamp { return timestamp{t.Sec, int64(t.Nsec)} }

// clockOf returns the time of the filesystem of root from file, which was made just now, if it is on that filesystem.
func clockOf(file *os.File, root *tree.Entry) (timestamp, error) {
	var st unix.Statx_t
	if err := unix.Statx(int(file.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &st); err != nil {
		return timestamp{}, &os.PathError{Op: "statx", Path: file.Name(), Err: err}
	}
	if inodeOf(&st).dev != root.Device() || st.Ctime.Nsec == 0 { // a clock of whole seconds
		return timestamp{}, nil
	}
	return timeOf(st.Ctime), nil
}

// record is the wish for one inode: each that is delicate, and each with attributes that change.
type record struct {
	Dev, Ino uint64
	Born     int64 `json:",omitempty"` // birth time in ns, where the filesystem keeps one: inode numbers are used again
	Size     uint64
	MTime    timestamp
	Wish     wish
}

// end is the last line.
type end struct {
	Records int64
	Inodes  int64  // that the plan has seen
	Print   uint64 // their fingerprints' sum
}

const journalVersion = 1

func born(st *unix.Statx_t) int64 {
	if st.Mask&unix.STATX_BTIME == 0 {
		return 0
	}
	return st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
}

func newRecord(st *unix.Statx_t, w wish) record {
	id := inodeOf(st)
	return record{id.dev, id.ino, born(st), st.Size, timeOf(st.Mtime), w}
}

// seen is the inode as it was recorded, as far as sameContent looks.
func (r *record) seen() *tree.Handle {
	h := &tree.Handle{}
	h.Stat.Size = r.Size
	h.Stat.Mtime.Sec, h.Stat.Mtime.Nsec = r.MTime[0], uint32(r.MTime[1])
	return h
}

// journal is one that was read.
type journal struct {
	header
	end
	records map[inode]record
}

type inode struct{ dev, ino uint64 }

func inodeOf(st *unix.Statx_t) inode {
	return inode{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino}
}

// fingerprint is a number such that sums of it tell sets of inodes apart (the last step of splitmix64).
func (i inode) fingerprint() uint64 {
	x := i.ino + i.dev*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// find returns the record of the inode, if it is still the one that was recorded.
func (j *journal) find(h *tree.Handle) (record, bool) {
	r, ok := j.records[inodeOf(&h.Stat)]
	return r, ok && r.Born == born(&h.Stat)
}

var errJournal = errors.New("damaged journal")

// readJournal reads a whole journal.
func readJournal(r io.Reader) (*journal, error) {
	j := &journal{records: make(map[inode]record)}
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20) // an attribute has at most 64 KiB
	var last []byte
	lines := int64(0)
	for n := 0; s.Scan(); n++ {
		if n == 0 {
			if err := json.Unmarshal(s.Bytes(), &j.header); err != nil || j.Version != journalVersion {
				return nil, fmt.Errorf("%w: first line %.80q", errJournal, s.Text())
			}
			continue
		}
		if last != nil {
			var x record
			if err := json.Unmarshal(last, &x); err != nil {
				return nil, fmt.Errorf("%w: line %d: %w", errJournal, n, err)
			}
			j.records[inode{x.Dev, x.Ino}] = x // twice the same if its name was changed meanwhile
			lines++
		}
		last = append(last[:0], s.Bytes()...)
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(last, &j.end); err != nil || lines != j.Records || j.Inodes == 0 {
		return nil, fmt.Errorf("%w: it does not end as it should", errJournal)
	}
	return j, nil
}
