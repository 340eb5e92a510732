//go:build linux

package statindex

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// How much older than the begin of an index a ctime has to be (docs/INDEX.md §1).
const (
	margin       = 20e6 // ns: two ticks of the slowest kernel clock, 100 Hz
	coarseMargin = 2e9  // ns, for stamps in whole seconds
)

// Options say what an index records beside inodes.
type Options struct {
	Origin string // where the tree came from or goes to, at most 4096 bytes
	Before *Index // of the tree, earlier: how many inodes may come. May be nil
}

// Writer collects what is found in a tree. It takes 88 bytes an inode, and is safe for concurrent use.
type Writer struct {
	head   header
	mu     sync.Mutex
	order  []ordinal
	table  []byte // of records, in the order in which they came
	frames []byte
	young  int64
}

// ordinal is the inode number of a record of the table.
type ordinal struct {
	ino uint64
	at  int
}

// NewWriter begins the index of the tree at root; nothing that Add is told of may have been looked at before, unless the tree was the caller's
// alone since then. root is not kept. An error means that this tree can have no index, and is the reason.
func NewWriter(root *os.File, o Options) (*Writer, error) {
	if len(o.Origin) > maxOrigin {
		return nil, fmt.Errorf("the origin of the tree has %d bytes, more than %d", len(o.Origin), maxOrigin)
	}
	if err := stampedHere(root); err != nil {
		return nil, err
	}
	p, err := placeOf(root)
	if err != nil {
		return nil, err
	}
	// The clock that inodes are stamped with, never ahead of it (inode_set_ctime_current in the kernel's fs/inode.c).
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now); err != nil {
		return nil, os.NewSyscallError("clock_gettime", err)
	}
	w := &Writer{head: header{place: p, begun: now.Nano(), origin: o.Origin}}
	if o.Before != nil {
		n := len(o.Before.inos) + 100
		w.order, w.table = make([]ordinal, 0, n), make([]byte, 0, n*recordLen)
	}
	return w, nil
}

// stampedHere makes sure that this kernel stamps the inodes of the filesystem.
func stampedHere(root *os.File) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(root.Fd()), &fs); err != nil {
		return &os.PathError{Op: "fstatfs", Path: root.Name(), Err: err}
	}
	const bcachefs, zfs = 0xca451a4e, 0x2fc12fc1
	switch uint32(fs.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC, bcachefs, zfs:
		return nil
	}
	return fmt.Errorf("no index: it is not known which clock stamps the inodes of filesystem type %#x", uint32(fs.Type))
}

// Add records what was found in the inode with this stat, of any type, unless its ctime is too young to be told from a later one's, or it lies on another
// filesystem than the root. Of several calls for one inode the last counts.
func (w *Writer) Add(st *unix.Statx_t, r Record) {
	if w == nil || r.Flags == 0 || devOf(st) != w.head.dev {
		return
	}
	old := w.old(st)
	w.mu.Lock()
	defer w.mu.Unlock()
	if !old {
		w.young++
		return
	}
	if len(w.order) < maxRecords {
		w.order = append(w.order, ordinal{st.Ino, len(w.order)})
		w.table = appendRecord(w.table, statOf(st), r)
	}
}

// AddFrame records the CRC-32C (Castagnoli) of the stored bytes of a frame of the archive that the tree goes to, and their sha256.
func (w *Writer) AddFrame(sum [32]byte, crc uint32) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.frames) < maxFrames*frameLen {
		w.frames = append(w.frames, sum[:len(frameSum{})]...)
		w.frames = le.AppendUint32(le.AppendUint32(w.frames, crc), 0)
	}
}

// old tells whether the inode's ctime is clearly before the begin.
func (w *Writer) old(st *unix.Statx_t) bool {
	if s := st.Ctime.Sec; s < 0 || s > math.MaxInt64/int64(1e9)-1 {
		return false
	}
	return Settled(st.Ctime.Sec*1e9+int64(st.Ctime.Nsec), w.head.begun)
}

// Settled tells whether a time that an inode was stamped with is so clearly before begun, both in ns, that whatever changes
// after begun gets another one.
func Settled(stamp, begun int64) bool {
	need := int64(margin)
	if stamp%1e9 == 0 {
		need = coarseMargin
	}
	return begun-need > stamp
}

// Young returns how many inodes had changed too lately to be recorded.
func (w *Writer) Young() int64 {
	if w == nil {
		return 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.young
}

// WriteTo writes the index. Nothing may be added afterwards.
func (w *Writer) WriteTo(out io.Writer) (int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.SortFunc(w.order, func(a, b ordinal) int {
		return cmp.Or(cmp.Compare(a.ino, b.ino), cmp.Compare(a.at, b.at))
	})
	w.order = lastOfEach(w.order)
	head := appendHeader(nil, w.head, len(w.order), len(w.frames)/frameLen)
	sum := sha256.New()
	buf := bufio.NewWriterSize(io.MultiWriter(sum, out), 256<<10) // its first error is what Flush returns
	_, _ = buf.Write(head)
	var ino [8]byte
	for _, o := range w.order {
		le.PutUint64(ino[:], o.ino)
		_, _ = buf.Write(ino[:])
	}
	for _, o := range w.order {
		_, _ = buf.Write(w.table[o.at*recordLen:][:recordLen])
	}
	_, _ = buf.Write(w.frames)
	if err := buf.Flush(); err != nil {
		return 0, err
	}
	n, err := out.Write(sum.Sum(nil))
	return int64(len(head)) + int64(len(w.order))*(8+recordLen) + int64(len(w.frames)) + int64(n), err
}

// lastOfEach keeps the last of the records of each inode.
func lastOfEach(sorted []ordinal) []ordinal {
	kept := sorted[:0]
	for _, o := range sorted {
		if n := len(kept); n > 0 && kept[n-1].ino == o.ino {
			kept[n-1] = o
			continue
		}
		kept = append(kept, o)
	}
	return kept
}
