package ownership

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/archive/tree"
)

// A journal is JSON lines: a header, a record for each delicate inode, and an end that makes it whole. It is written and
// synced before the first change, and removed after the last one. Records hold the final state, not steps, so that it does no
// harm to carry one out twice.

// header says what the journal is of.
type header struct {
	Version  int
	Dev, Ino uint64 // the tree's root directory
	View     view
}

// record is the wish for one inode.
type record struct {
	Dev, Ino uint64
	Born     int64 `json:",omitempty"` // birth time in ns, where the filesystem keeps one: inode numbers are used again
	Size     uint64
	MTime    [2]int64
	Wish     wish
}

// end is the last line.
type end struct {
	Records int64
	Inodes  int64 // that the plan has seen
}

const journalVersion = 1

func born(h *tree.Handle) int64 {
	if h.Stat.Mask&unix.STATX_BTIME == 0 {
		return 0
	}
	return h.Stat.Btime.Sec*1e9 + int64(h.Stat.Btime.Nsec)
}

func newRecord(h *tree.Handle, w wish) record {
	dev, ino := h.Inode()
	return record{dev, ino, born(h), h.Stat.Size, [2]int64{h.Stat.Mtime.Sec, int64(h.Stat.Mtime.Nsec)}, w}
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

// find returns the record of the inode, if it is still the one that was recorded.
func (j *journal) find(h *tree.Handle) (record, bool) {
	dev, ino := h.Inode()
	r, ok := j.records[inode{dev, ino}]
	return r, ok && r.Born == born(h)
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
