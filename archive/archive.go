// Package archive turns a tree into a stream and back, and nothing about it changes on the way: what it cannot carry is
// an error that names the path, or a policy allows it and the Summary counts it.
//
// The functions are the inner halves' work: they run where uid 0 has every right over the tree (in a user namespace
// that maps its ids, or as real root) and get open files, never output paths. docs/FORMAT.md specifies the stream.
package archive

import (
	"fmt"
	"slices"
	"strings"
)

// Summary counts what went through. Sizes are in bytes.
type Summary struct {
	Entries int64 `json:"entries"`
	Files   int64 `json:"files"`
	Content int64 `json:"content"` // logical size of all files, holes counted
	Raw     int64 `json:"raw"`     // of the tar stream
	Stored  int64 `json:"stored"`  // of the archive
	Frames  int   `json:"frames,omitempty"`
	// Skipped counts, by reason, what a policy left out.
	Skipped map[string]int64 `json:"skipped,omitempty"`
	// Reuse is what an incremental Create did not have to do.
	Reuse *Reuse `json:"reuse,omitempty"`
}

// SkippedPlaceholder is the reason for a mount target that was made for a run and is still there.
const SkippedPlaceholder = "placeholder of a mount"

func (s *Summary) skip(reason string) {
	if s.Skipped == nil {
		s.Skipped = make(map[string]int64)
	}
	s.Skipped[reason]++
}

// maxReasons bounds how many attributes are counted by name: an archive may invent any number of them.
const maxReasons = 50

func (s *Summary) skipAttribute(key string) {
	reason := "attribute " + key
	if _, known := s.Skipped[reason]; !known && (len(s.Skipped) >= maxReasons || len(key) > 255) {
		reason = "attribute of another name"
	}
	s.skip(reason)
}

// Warnings returns a sentence for each reason for which something was left out, sorted.
func (s *Summary) Warnings() []string {
	var w []string
	for reason, n := range s.Skipped {
		w = append(w, fmt.Sprintf("left out %d × %s", n, reason))
	}
	slices.Sort(w)
	return w
}

// Policy says what to do with inodes and attributes that the archive or the tree cannot take, or should not.
// The zero value is completed by WithDefaults.
type Policy struct {
	Devices  Action `json:"devices"`  // Skip, Fail or Store, but whiteouts (char 0:0) are stored; or NoDevices
	Sockets  Action `json:"sockets"`  // Skip or Fail, for tar has no type for them; List takes Store
	Xattrs   Xattrs `json:"xattrs"`   // Portable, All or None
	Unmapped Action `json:"unmapped"` // Fail, or Nobody: owners without an image become 65534, ACL entries are left out
}

// Action is what to do with something.
type Action string

// The actions.
const (
	Skip   Action = "skip"
	Fail   Action = "fail"
	Store  Action = "store"
	Nobody Action = "nobody"
	// NoDevices skips whiteouts, too: for readers that stumble over any device entry.
	NoDevices Action = "none"
)

// Xattrs is a choice of extended attributes.
type Xattrs string

// Portable are ACLs, capabilities and user.*: what means the same on every machine. All adds the others (security.selinux,
// trusted.*), which take privileges to write. None takes no attribute at all, ACLs and capabilities included.
const (
	Portable Xattrs = "portable"
	All      Xattrs = "all"
	None     Xattrs = "none"
)

// WithDefaults fills in what is empty. privileged says that device nodes can be made: then they are stored.
func (p Policy) WithDefaults(privileged bool) Policy {
	if p.Devices == "" {
		p.Devices = Skip
		if privileged {
			p.Devices = Store
		}
	}
	if p.Sockets == "" {
		p.Sockets = Skip
	}
	if p.Xattrs == "" {
		p.Xattrs = Portable
	}
	if p.Unmapped == "" {
		p.Unmapped = Fail
	}
	return p
}

// takes tells whether the attribute is to be carried.
func (x Xattrs) takes(key string) bool {
	switch x {
	case All:
		return true
	case None:
		return false
	}
	return strings.HasPrefix(key, "user.") || key == "security.capability" ||
		key == "system.posix_acl_access" || key == "system.posix_acl_default"
}
