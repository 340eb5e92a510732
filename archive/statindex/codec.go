//go:build linux

package statindex

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const (
	magic      = "nsfindex"
	version    = 1
	headLen    = 64
	recordLen  = 72
	frameLen   = 24
	maxRecords = 1 << 22
	maxFrames  = 1 << 21 // as many as an archive may have
	maxOrigin  = 4096
)

type header struct {
	place
	begun  int64
	origin string
}

// frameSum is the beginning of a frame's sha256.
type frameSum [16]byte

// stat is the part of an inode's stat that must be as it was.
type stat struct {
	size, mtime, ctime int64
	mnsec, cnsec, mode uint32
}

func statOf(st *unix.Statx_t) stat {
	return stat{int64(st.Size), st.Mtime.Sec, st.Ctime.Sec, st.Mtime.Nsec, st.Ctime.Nsec, uint32(st.Mode)}
}

var le = binary.LittleEndian

func appendRecord(b []byte, s stat, r Record) []byte {
	b = le.AppendUint64(b, uint64(s.size))
	b = le.AppendUint64(b, uint64(s.mtime))
	b = le.AppendUint64(b, uint64(s.ctime))
	b = le.AppendUint32(b, s.mnsec)
	b = le.AppendUint32(b, s.cnsec)
	b = le.AppendUint32(b, s.mode)
	b = le.AppendUint32(b, uint32(r.Flags))
	return append(b, r.Digest[:]...)
}

func decodeRecord(b []byte) (stat, Record) {
	_ = b[recordLen-1]
	return stat{
		size: int64(le.Uint64(b)), mtime: int64(le.Uint64(b[8:])), ctime: int64(le.Uint64(b[16:])),
		mnsec: le.Uint32(b[24:]), cnsec: le.Uint32(b[28:]), mode: le.Uint32(b[32:]),
	}, Record{Flags(le.Uint32(b[36:])), [32]byte(b[40:recordLen])}
}

func roundUp(n int) int { return (n + 7) &^ 7 }

func appendHeader(b []byte, h header, n, frames int) []byte {
	b = append(b, magic...)
	b = le.AppendUint32(b, version)
	b = le.AppendUint32(b, uint32(headLen+roundUp(len(h.origin))))
	b = le.AppendUint32(b, uint32(h.dev>>32))
	b = le.AppendUint32(b, uint32(h.dev))
	b = le.AppendUint64(b, h.ino)
	b = le.AppendUint64(b, uint64(h.begun))
	b = append(b, h.view[:]...)
	b = le.AppendUint64(b, uint64(n))
	b = le.AppendUint32(b, uint32(len(h.origin)))
	b = le.AppendUint32(b, uint32(frames))
	b = append(b, h.origin...)
	return append(b, make([]byte, roundUp(len(h.origin))-len(h.origin))...)
}

// load reads and checks a whole index.
func load(f *os.File) (*Index, error) {
	if f == nil {
		return nil, errors.New("there is no index of the tree")
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	const most = headLen + maxOrigin + maxRecords*(8+recordLen) + maxFrames*frameLen + sha256.Size
	if !st.Mode().IsRegular() || st.Size() > most {
		return nil, errors.New("what is there is no index")
	}
	b := make([]byte, st.Size())
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, st.Size()), b); err != nil {
		return nil, fmt.Errorf("read the index: %w", err)
	}
	return decode(b)
}

// decode checks everything of an index that its bytes can tell. The Index keeps b.
func decode(b []byte) (*Index, error) {
	switch {
	case len(b) < headLen+sha256.Size:
		return nil, errors.New("the index is cut short")
	case string(b[:8]) != magic:
		return nil, errors.New("what is there is no index")
	case le.Uint32(b[8:]) != version:
		return nil, fmt.Errorf("the index has version %d, not %d", le.Uint32(b[8:]), version)
	}
	body := b[:len(b)-sha256.Size]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], b[len(body):]) {
		return nil, errors.New("the index is damaged")
	}
	n, origin, frames := le.Uint64(b[48:]), int(le.Uint32(b[56:])), uint64(le.Uint32(b[60:]))
	head := int(le.Uint32(b[12:]))
	if n > maxRecords || origin > maxOrigin || head != headLen+roundUp(origin) || frames > maxFrames ||
		uint64(len(body)) != uint64(head)+n*(8+recordLen)+frames*frameLen {
		return nil, errors.New("the numbers in the index do not fit each other")
	}
	x := &Index{
		head: header{
			place:  place{dev: uint64(le.Uint32(b[16:]))<<32 | uint64(le.Uint32(b[20:])), ino: le.Uint64(b[24:]), view: [8]byte(b[40:48])},
			begun:  int64(le.Uint64(b[32:])),
			origin: string(b[headLen : headLen+origin]),
		},
		inos:   make([]uint64, n),
		table:  body[head+8*int(n):][:recordLen*int(n)],
		frames: make(map[frameSum]uint32, frames),
	}
	for list := body[head+(8+recordLen)*int(n):]; len(list) > 0; list = list[frameLen:] {
		x.frames[frameSum(list)] = le.Uint32(list[len(frameSum{}):])
	}
	for i := range x.inos {
		x.inos[i] = le.Uint64(body[head+8*i:])
		if i > 0 && x.inos[i] <= x.inos[i-1] || Flags(le.Uint32(x.table[i*recordLen+36:]))&^allFlags != 0 {
			return nil, fmt.Errorf("record %d of the index is out of form", i)
		}
	}
	return x, nil
}
