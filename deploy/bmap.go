package deploy

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"strings"
)

// blockSize is the unit of a map, in bytes. It is what bmap-tools uses itself wherever the filesystem's blocks are that large.
const blockSize = 4096

// blockMap is a map of an image's blocks as bmap-tools 3.x reads it (format 2.0): which blocks hold data, and the
// sha256 of each run of them.
type blockMap struct {
	runs   []blockRun
	hash   hash.Hash // of the last run, while it is open
	at     int64     // end of the data seen
	mapped int64     // blocks
	size   int64
}

// blockRun is a run of mapped blocks: first and last, and their digest.
type blockRun struct {
	first, last int64
	sum         []byte
}

// data adds data at off, which is never before what was added last.
func (m *blockMap) data(off int64, data []byte) {
	if m.hash != nil && off/blockSize > m.padded()/blockSize {
		m.close(m.padded())
	}
	if m.hash == nil {
		m.hash = sha256.New()
		m.at = off / blockSize * blockSize
		m.runs = append(m.runs, blockRun{first: off / blockSize})
	}
	m.zeros(off)
	m.hash.Write(data)
	m.at += int64(len(data))
}

// padded is the end of the block that the data seen end in.
func (m *blockMap) padded() int64 { return (m.at + blockSize - 1) / blockSize * blockSize }

// zeros adds the part of a hole that shares a block with data.
func (m *blockMap) zeros(to int64) {
	var zeros [blockSize]byte
	for m.at < to {
		n, _ := m.hash.Write(zeros[:min(to-m.at, blockSize)])
		m.at += int64(n)
	}
}

// close ends the open run at end, which is the end of a block or of the image.
func (m *blockMap) close(end int64) {
	m.zeros(end)
	r := &m.runs[len(m.runs)-1]
	r.last, r.sum = (end-1)/blockSize, m.hash.Sum(nil)
	m.mapped += r.last - r.first + 1
	m.hash = nil
}

func (m *blockMap) finish(size int64) {
	m.size = size
	if m.hash != nil {
		m.close(min(m.padded(), size))
	}
}

// text is the map as a file. Its checksum is that of itself, with zeros in the checksum's place.
func (m *blockMap) text() []byte {
	var b strings.Builder
	blocks := (m.size + blockSize - 1) / blockSize
	fmt.Fprintf(&b, `<?xml version="1.0" ?>
<bmap version="2.0">
    <ImageSize> %d </ImageSize>
    <BlockSize> %d </BlockSize>
    <BlocksCount> %d </BlocksCount>
    <MappedBlocksCount> %d </MappedBlocksCount>
    <ChecksumType> sha256 </ChecksumType>
    <BmapFileChecksum> `, m.size, blockSize, blocks, m.mapped)
	at := b.Len()
	b.WriteString(strings.Repeat("0", 2*sha256.Size) + " </BmapFileChecksum>\n    <BlockMap>\n")
	for _, r := range m.runs {
		which := fmt.Sprint(r.first)
		if r.last > r.first {
			which += fmt.Sprintf("-%d", r.last)
		}
		fmt.Fprintf(&b, "        <Range chksum=\"%x\"> %s </Range>\n", r.sum, which)
	}
	b.WriteString("    </BlockMap>\n</bmap>\n")
	text := []byte(b.String())
	sum := sha256.Sum256(text)
	copy(text[at:], fmt.Sprintf("%x", sum))
	return text
}
