package archive

import (
	"fmt"

	"github.com/nsferry/nsferry/archive/tarfmt"
	"github.com/nsferry/nsferry/archive/zframe/toc"
)

// sockType stands for a socket where entries are listed; no tar holds one.
const sockType tarfmt.Type = 's'

// tocTypes are the types of entries as the table of contents has them, and sockets.
var tocTypes = map[tarfmt.Type]toc.Type{
	tarfmt.Reg: toc.File, tarfmt.Link: toc.HardLink, tarfmt.Symlink: toc.Symlink, tarfmt.Char: toc.Char,
	tarfmt.Block: toc.Block, tarfmt.Dir: toc.Dir, tarfmt.Fifo: toc.Fifo, sockType: toc.Type(sockType),
}

// tocEntry returns the line of a header; its digest and place are not known yet.
func tocEntry(h *tarfmt.Header, top string) (toc.Entry, error) {
	name, err := entryPath(h.Name, top)
	if err != nil {
		return toc.Entry{}, err
	}
	e := toc.Entry{
		Name: name, Type: tocTypes[h.Type], Mode: h.Mode, UID: h.UID, GID: h.GID, Size: h.Size,
		ModTime: toc.Time(h.ModTime), Link: h.Link, DevMajor: h.DevMajor, DevMinor: h.DevMinor,
		ACL: h.ACL, DefaultACL: h.DefaultACL,
	}
	if h.Type == tarfmt.Link {
		if e.Link, err = entryPath(h.Link, top); err != nil {
			return e, fmt.Errorf("entry %s: hard link target: %w", quote(h.Name), err)
		}
	}
	for _, x := range h.Xattrs {
		e.Xattrs = append(e.Xattrs, toc.Xattr(x))
	}
	if h.Sparse != nil {
		e.Sparse = make([]toc.Segment, len(h.Sparse))
		for i, s := range h.Sparse {
			e.Sparse[i] = toc.Segment(s)
		}
	}
	return e, nil
}

// ledger turns frames, in order, into entries with their digests, in order. A large entry's digest is known with its
// last part only.
type ledger struct {
	add   func(*toc.Entry) error
	entry toc.Entry // whose last part is still to come
}

// take passes on the entries of a frame that are complete with it. number is the frame's.
func (l *ledger) take(f *frame, number int) error {
	at := int64(0)
	for i := range f.parts {
		p := &f.parts[i]
		if p.header != nil {
			e, err := tocEntry(p.source.header, "")
			if err != nil {
				return err
			}
			l.entry = e
			l.entry.Frame, l.entry.Offset, l.entry.HeaderLen = number, at, int64(len(p.header))
		}
		if !p.last {
			return nil // nothing follows it in this frame
		}
		l.entry.Digest = f.sums[i]
		if err := l.add(&l.entry); err != nil {
			return err
		}
		at += int64(len(p.header)) + p.len + tarfmt.Padding(p.off+p.len)
	}
	return nil
}
