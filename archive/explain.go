package archive

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/nsferry/nsferry/archive/statindex"
	"github.com/nsferry/nsferry/archive/tarfmt"
	"github.com/nsferry/nsferry/archive/zframe/toc"
)

// Reuse counts what Create took from the base and the index.
type Reuse struct {
	Refused   string `json:"refused,omitempty"`  // why the base was of no use at all
	NoIndex   string `json:"noIndex,omitempty"`  // why the index was not believed
	NoRecord  string `json:"noRecord,omitempty"` // why there is no next one
	Copied    int64  `json:"copied"`             // frames that the base had
	Built     int64  `json:"built"`              // frames that it had not
	Bytes     int64  `json:"bytes"`              // that come from the base
	Shared    int64  `json:"shared,omitempty"`   // those of them whose blocks are shared with it
	Same      bool   `json:"same,omitempty"`     // the archive is the base, byte for byte, and was not written; see CreateOptions.Elide
	Unread    int64  `json:"unread"`             // files that were not read, as the index knew their contents
	BytesRead int64  `json:"bytesRead"`          // of files
	Young     int64  `json:"young,omitempty"`    // inodes that changed too lately for the next index
	// Why counts the frames that the base had not by the reason, with Explain; Examples names some of the entries.
	Why      map[string]int64 `json:"why,omitempty"`
	Examples []string         `json:"examples,omitempty"`
}

// The reasons why the base does not have a frame; the first one that is true of some entry is told, for it brings about later ones.
const (
	whyDamaged  = "damaged in the base"
	whyNew      = "a new entry"
	whyContent  = "changed content"
	whyMetadata = "changed metadata"
	whyCut      = "a neighbour came or went, so that the cut moved"
)

// Lines says for people what was reused, and why not the rest.
func (r *Reuse) Lines() []string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if r.Refused != "" {
		add("nothing copied: %s", r.Refused)
	}
	if r.Same {
		add("all %d frames and the table of contents are the base's", r.Copied)
	} else {
		add("%d frames copied (%d bytes, %d of them shared), %d made", r.Copied, r.Bytes, r.Shared, r.Built)
	}
	var reasons []string
	for why := range r.Why {
		reasons = append(reasons, why)
	}
	slices.Sort(reasons)
	for _, why := range reasons {
		add("made because of %s: %d", why, r.Why[why])
	}
	for _, e := range r.Examples {
		add("%s", e)
	}
	add("%d files not read, %d bytes read", r.Unread, r.BytesRead)
	for _, reason := range [2]string{r.NoIndex, r.NoRecord} {
		if reason != "" {
			add("%s", reason)
		}
	}
	if r.Young > 0 {
		add("%d inodes changed too lately for the next index", r.Young)
	}
	return out
}

// maxExamples bounds the list of entries for which frames were made.
const maxExamples = 10

// note counts a frame that went to the sink, and tells the next index of what is in it.
func (c *creator) note(f *frame, number int) error {
	for i := range f.parts {
		p := &f.parts[i]
		if !p.last {
			continue
		}
		r := statindex.Record{Flags: p.found}
		if p.source.header.Type == tarfmt.Reg {
			r = statindex.Record{Flags: p.found | statindex.Digest, Digest: f.sums[i]}
		}
		c.o.Record.Add(&p.seen, r)
		if f.origin >= 0 && p.known.Has(statindex.Digest) {
			c.sum.Reuse.Unread++
		}
	}
	if c.o.Format == Framed {
		c.o.Record.AddFrame(f.sum, f.crc)
	}
	switch {
	case f.origin >= 0:
		c.sum.Reuse.Copied++
	case c.sum.Reuse != nil:
		c.sum.Reuse.Built++
		if b, _ := c.base.get(); c.o.Explain && b != nil {
			return c.explain(f, b, number)
		}
	}
	return nil
}

// explain finds out why the base does not have a frame.
func (c *creator) explain(f *frame, b *base, number int) error {
	if c.before == nil {
		var err error
		if c.before, err = b.entries(); err != nil {
			return err
		}
	}
	names := map[string]string{} // by reason
	if f.damaged != nil {
		names[whyDamaged] = ""
	}
	for i := range f.parts {
		e, err := tocEntry(f.parts[i].source.header, "")
		if err != nil {
			return err
		}
		e.Digest = f.sums[i]
		reason := c.before.differs(&e)
		if _, known := names[reason]; !known {
			names[reason] = e.Name
		}
	}
	why := whyCut
	for _, reason := range []string{whyMetadata, whyContent, whyNew, whyDamaged} {
		if _, found := names[reason]; found {
			why = reason
		}
	}
	name := names[why]
	r := c.sum.Reuse
	if r.Why == nil {
		r.Why = make(map[string]int64)
	}
	r.Why[why]++
	if len(r.Examples) < maxExamples {
		if name != "" {
			name = " (" + quote(name) + ")"
		}
		r.Examples = append(r.Examples, fmt.Sprintf("frame %d: %s%s", number, why, name))
	}
	return nil
}

// earlier are the entries of a base by name.
type earlier map[string]*toc.Entry

func (b *base) entries() (earlier, error) {
	all, err := toc.ReadAll(b.framed)
	if err != nil {
		return nil, fmt.Errorf("the base: %w", err)
	}
	before := make(earlier, len(all.Entries))
	for i := range all.Entries {
		before[all.Entries[i].Name] = &all.Entries[i]
	}
	return before, nil
}

// differs returns the reason for which e is not what it was, "" when it is.
func (b earlier) differs(e *toc.Entry) string {
	old, ok := b[e.Name]
	if !ok {
		return whyNew
	}
	was := *old
	was.Frame, was.Offset, was.HeaderLen = 0, 0, 0
	if e.Digest == ([32]byte{}) {
		was.Digest = e.Digest // a part of a file whose end has yet to come
	}
	switch {
	case was.Type != e.Type, was.Digest != e.Digest, was.Size != e.Size:
		return whyContent
	case !reflect.DeepEqual(was, *e):
		return whyMetadata
	}
	return ""
}
