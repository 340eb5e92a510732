package debs

import (
	"fmt"
	"strings"
)

// Action is what a plan does with a file.
type Action string

// The actions. A plan that needs a file's content to decide says Check.
const (
	Copy    Action = "copy"    // bring it over
	Replace Action = "replace" // bring it over, in place of a wrong one
	Check   Action = "check"   // both sides have it, and they differ: the content decides
	Same    Action = "same"    // both sides have it
	Leave   Action = "leave"   // it is not asked for
	Refuse  Action = "refuse"  // see Reason
)

// Step is what a plan does with one file.
type Step struct {
	File   string `json:"file"`
	Action Action `json:"action"`
	Reason string `json:"reason,omitempty"`
	Size   int64  `json:"size,omitempty"`

	pkg  Package
	from File
	to   *File // what the other side has
}

// planExport says what becomes of every deb in a rootfs's archives. It knows names, types, sizes and times, and no content.
func planExport(archives, dl Listing) []Step {
	have := byName(dl)
	plan := make([]Step, 0, len(archives.Files))
	for _, f := range archives.Files {
		if s, ok := begin(f); ok {
			plan = append(plan, s.against(have))
		}
	}
	return plan
}

// planImport says the same of every deb in DL, of which needed says what is asked for.
func planImport(dl, archives Listing, needed func(Package) bool) []Step {
	have := byName(archives)
	plan := make([]Step, 0, len(dl.Files))
	for _, f := range dl.Files {
		s, ok := begin(f)
		switch {
		case !ok:
			continue
		case s.Action == Copy && !needed(s.pkg):
			s.Action = Leave
		default:
			s = s.against(have)
		}
		if s.Action == Refuse && s.to != nil && !s.to.regular() {
			s.Action, s.Reason = Replace, "" // what somebody has planted gives way
		}
		plan = append(plan, s)
	}
	return plan
}

func byName(l Listing) map[bytesName]*File {
	m := make(map[bytesName]*File, len(l.Files))
	for i := range l.Files {
		m[l.Files[i].Name] = &l.Files[i]
	}
	return m
}

// begin makes a step of a name that means to be a deb; ok is false for all others, as apt's lock.
func begin(f File) (s Step, ok bool) {
	name := string(f.Name)
	if len(name) < 4 || !strings.EqualFold(name[len(name)-4:], ".deb") {
		return s, false
	}
	s = Step{File: name, Action: Copy, Size: f.Size, from: f}
	pkg, err := ParseName(name)
	switch {
	case !f.regular():
		s.refuse("%s", kind(f.Mode))
	case err != nil:
		s.refuse("not named as apt names debs: %v", err)
	case f.Size == 0:
		s.refuse("%v: empty", errDamaged)
	}
	s.pkg = pkg
	return s, true
}

func (s *Step) refuse(format string, args ...any) {
	s.Action, s.Reason = Refuse, fmt.Sprintf(format, args...)
}

// against compares the step's file with what the other side has.
func (s Step) against(have map[bytesName]*File) Step {
	if s.Action != Copy {
		return s
	}
	s.to = have[s.from.Name]
	switch {
	case s.to == nil:
	case !s.to.regular():
		s.refuse("the other side has %s of this name", kind(s.to.Mode))
	case s.to.sameInode(s.from), s.to.sameStamp(s.from):
		s.Action = Same
	default:
		s.Action = Check
	}
	return s
}

// packageNames returns the names of the steps' packages.
func packageNames(steps []Step) []string {
	names := make([]string, 0, len(steps))
	for _, s := range steps {
		names = append(names, s.pkg.Name)
	}
	return names
}
