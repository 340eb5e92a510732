// Package grant lets ids of the caller's sub-id range into directories of his, and takes that back: a directory is never
// changed before a record says what it was, so that Revoke can restore it.
//
// It is for tools that walk paths inside a namespace. nsferry's own commands go by descriptor and need no grant.
// Ids in this package are outside ones unless a name says otherwise. docs/GRANTS.md specifies the records.
package grant

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/nsferry/nsferry/acl"
	"github.com/nsferry/nsferry/idshift/userns"
)

// Halves is the table of this package's inner halves, for userns.Main.
func Halves() []userns.Registered { return []userns.Registered{writeHalf} }

// Force names a refusal that the user has heard of and does not want.
type Force string

const (
	ForceInheritable Force = "inheritable" // a default ACL above or in a rootfs
	ForceDebs        Force = "debs"        // a default ACL on a directory of Debian packages
)

// Options say who is let in, and how far.
type Options struct {
	AlsoIDs  []uint32 // inner ids besides 0
	Default  bool     // what is made in the directory is open as well
	Traverse bool     // let the grantees through closed directories above
	OrTake   bool     // where there are no ACLs, make inner root the owner
	Force    []Force
}

// Grantee is somebody who is let in.
type Grantee struct {
	Inside uint32 `json:"inside"` // uid
	UID    uint32 `json:"uid"`    // outside
	gid    uint32 // outside; of the same number inside
}

// grantees are inner root and the also-ids, as the plain map has them.
func grantees(e *userns.Env, also []uint32) ([]Grantee, error) {
	var all []Grantee
	for _, id := range append([]uint32{0}, also...) {
		g := Grantee{Inside: id}
		var ok bool
		if g.UID, ok = e.Plain.UID.ToOutside(id); !ok {
			return nil, &userns.UsageError{What: fmt.Sprintf("inner id %d has no outside id: the map is %s", id, e.Plain.UID)}
		}
		if g.gid, ok = e.Plain.GID.ToOutside(id); !ok {
			g.gid = acl.Undefined // no group lets it in
		}
		all = append(all, g)
	}
	return all, nil
}

// Change is one directory that a grant or its revocation touched, or would have.
type Change struct {
	Path string `json:"path"`
	What string `json:"what"` // "granted", "already granted", "made", "traverse", "taken", "restored", …
	ACL  string `json:"acl,omitempty"`
}

// Report says what was done, in order.
type Report struct {
	Changes []Change `json:"changes"`
}

// String has one line a directory.
func (r Report) String() string {
	var lines []string
	for _, c := range r.Changes {
		line := c.Path + ": " + c.What
		if c.ACL != "" {
			line += " (" + c.ACL + ")"
		}
		lines = append(lines, line)
	}
	if len(lines) == 0 {
		return "nothing to do"
	}
	return strings.Join(lines, "\n")
}

func (r *Report) add(path, what, acl string) { r.Changes = append(r.Changes, Change{path, what, acl}) }

// session is one run of Grant, Revoke or Check, which holds the lock on the records.
type session struct {
	env    *userns.Env
	store  *store
	report Report
}

// resolve makes path absolute and free of symlinks as far as it exists; the rest has no ".." left.
func resolve(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	rest := ""
	for at := abs; ; at = filepath.Dir(at) {
		real, err := filepath.EvalSymlinks(at)
		if err == nil {
			return filepath.Join(real, rest), nil
		}
		if _, lerr := os.Lstat(at); lerr == nil || !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("%s: %w", path, err) // a dangling symlink, a loop, a closed or no directory
		}
		rest = filepath.Join(filepath.Base(at), rest)
	}
}
