package userns

import (
	"os"

	"github.com/nsferry/nsferry/idshift/userns/mounts"
)

// mountsMessage is a mounts.Spec on its way to init: files are numbers into the session's files, -1 for nil.
type mountsMessage struct {
	Spec    mounts.Spec // without its files
	Root    int
	Binds   []bindFiles // beside Spec.Binds
	Scratch int         // of Spec.Overlay
	Layers  int
	Hold    []int
}

type bindFiles struct{ Source, Dir int }

// packMounts takes the files out of s and appends them to files.
func packMounts(s mounts.Spec, files []*os.File) (mountsMessage, []*os.File) {
	number := func(f *os.File) int {
		if f == nil {
			return -1
		}
		files = append(files, f)
		return len(files) - 1
	}
	m := mountsMessage{Root: number(s.Root)}
	binds := make([]mounts.Bind, len(s.Binds))
	for i, b := range s.Binds {
		m.Binds = append(m.Binds, bindFiles{number(b.Source), number(b.Dir)})
		b.Source, b.Dir = nil, nil
		binds[i] = b
	}
	if s.Overlay != nil {
		over := *s.Overlay
		m.Scratch, m.Layers = number(over.Scratch), number(over.Layers)
		over.Scratch, over.Layers = nil, nil
		s.Overlay = &over
	}
	for _, f := range s.Hold {
		m.Hold = append(m.Hold, number(f))
	}
	s.Root, s.Binds, s.Hold = nil, binds, nil
	m.Spec = s
	return m, files
}

// unpack puts the files back.
func (m mountsMessage) unpack(files []*os.File) mounts.Spec {
	file := func(n int) *os.File {
		if n < 0 {
			return nil
		}
		return files[n]
	}
	s := m.Spec
	s.Root = file(m.Root)
	for i := range s.Binds {
		s.Binds[i].Source, s.Binds[i].Dir = file(m.Binds[i].Source), file(m.Binds[i].Dir)
	}
	if s.Overlay != nil {
		s.Overlay.Scratch, s.Overlay.Layers = file(m.Scratch), file(m.Layers)
	}
	for _, n := range m.Hold {
		s.Hold = append(s.Hold, file(n))
	}
	return s
}
