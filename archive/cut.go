package archive

import (
	"hash/fnv"

	"github.com/nsferry/nsferry/archive/tarfmt"
)

// The cut rule's numbers (FORMAT §2), in raw bytes.
const (
	leastFrame = 1 << 20
	mostFrame  = 4 << 20
	cutModulus = 64
)

// part is what of one entry goes into one frame.
type part struct {
	*source
	header   []byte // nil for later parts of a large entry
	off, len int64  // of the stored data
	last     bool   // padding follows
	turn     *turn  // of a large entry whose digest comes with its last part
}

// origin returns the raw offset at which the part begins in the archive that its entry comes from, or -1.
func (p *part) origin() int64 {
	if p.at < 0 || p.header != nil {
		return p.at
	}
	return p.at + p.length + p.off
}

// plan is the content of one frame.
type plan struct {
	parts  []part
	raw    int64
	end    bool // the end-of-archive blocks follow
	number int  // of the frame
}

// cutter groups entries into frames. It knows names and sizes only.
type cutter struct {
	open plan
	emit func(plan) error
}

func (c *cutter) flush() error {
	if len(c.open.parts) == 0 {
		return nil
	}
	p := c.open
	c.open = plan{number: p.number + 1}
	return c.emit(p)
}

func (c *cutter) put(p part) {
	c.open.parts = append(c.open.parts, p)
	c.open.raw += int64(len(p.header)) + p.len
	if p.last {
		c.open.raw += tarfmt.Padding(p.off + p.len)
	}
}

// add places one entry: header bytes and stored bytes of data.
func (c *cutter) add(src *source, header []byte, stored int64) error {
	if stored > mostFrame {
		return c.addLarge(src, header, stored)
	}
	size := int64(len(header)) + stored + tarfmt.Padding(stored)
	if c.open.raw >= leastFrame && (chosen(src.header.Name) || c.open.raw+size > mostFrame) {
		if err := c.flush(); err != nil {
			return err
		}
	}
	c.put(part{source: src, header: header, len: stored, last: true})
	return nil
}

func (c *cutter) addLarge(src *source, header []byte, stored int64) error {
	if err := c.flush(); err != nil {
		return err
	}
	var turn *turn
	if !src.digested() {
		turn = newTurn()
	}
	for off := int64(0); off < stored; off += mostFrame {
		if off > 0 {
			if err := c.flush(); err != nil {
				return err
			}
		}
		p := part{source: src, off: off, len: min(mostFrame, stored-off), turn: turn}
		if off == 0 {
			p.header = header
		}
		p.last = off+p.len == stored
		if turn != nil {
			turn = turn.after()
		}
		c.put(p)
	}
	return nil
}

// finish emits the last frame.
func (c *cutter) finish() error {
	c.open.end = true
	c.open.raw += int64(len(tarfmt.Trailer))
	return c.flush()
}

// chosen tells whether a frame may begin at an entry because of its name alone.
func chosen(name string) bool {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name))
	return h.Sum32()%cutModulus == 0
}
