package ephemeral

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/idshift/userns/mounts"

	"golang.org/x/sys/unix"
)

// survey is what has to be known of a tree before an overlay is laid over it.
type survey struct {
	Inodes int64           `json:"inodes"`
	Bytes  int64           `json:"bytes"` // on the disk
	Links  []mounts.Linked `json:"links,omitempty"`
	// Unfit says why the tree would not look the same through an overlay; empty if it would.
	Unfit string `json:"unfit,omitempty"`
}

type surveyArgs struct{ Workers int }

// surveyHalf gets the tree's root.
var surveyHalf = userns.Half[surveyArgs, survey]{Name: "survey", Func: func(ctx context.Context, in *userns.Inner, a surveyArgs) (survey, error) {
	s := &surveyor{names: map[[2]uint64]mounts.Linked{}}
	root, err := userns.ReopenDir(in.Files[0], "")
	if err != nil {
		return survey{}, err
	}
	defer root.Close()
	if err := tree.Each(ctx, root, ferry.Workers(a.Workers), s.visit); err != nil {
		return survey{}, err
	}
	for _, names := range s.names {
		if len(names) > 1 {
			slices.SortFunc(names, bytes.Compare)
			s.found.Links = append(s.found.Links, names)
		}
	}
	slices.SortFunc(s.found.Links, func(a, b mounts.Linked) int { return bytes.Compare(a[0], b[0]) })
	return s.found, nil
}}

// surveyor collects from several goroutines.
type surveyor struct {
	mu    sync.Mutex
	found survey
	names map[[2]uint64]mounts.Linked // of inodes with several
}

func (s *surveyor) visit(e *tree.Entry) error {
	why, err := unfit(e)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if why != "" && (s.found.Unfit == "" || why < s.found.Unfit) { // the same one whichever worker came first
		s.found.Unfit = why
	}
	many := e.Stat.Nlink > 1 && e.Type() != unix.S_IFDIR
	id := [2]uint64{e.Device(), e.Stat.Ino}
	if many {
		s.names[id] = append(s.names[id], []byte(e.Path))
	}
	if !many || len(s.names[id]) == 1 {
		s.found.Inodes++
		s.found.Bytes += int64(e.Stat.Blocks) * 512
	}
	return nil
}

// unfit says what an overlay would not show as it is: it takes what an overlay has left in a tree, on an earlier day or
// inside of it, for its own.
func unfit(e *tree.Entry) (string, error) {
	if e.Mount {
		return fmt.Sprintf("%q", e.Path) + ": something is mounted there, which an overlay does not show", nil
	}
	if e.Type() == unix.S_IFCHR && e.Stat.Rdev_major == 0 && e.Stat.Rdev_minor == 0 {
		return fmt.Sprintf("%q", e.Path) + ": a whiteout, which an overlay takes for its own", nil
	}
	if e.Type() == unix.S_IFLNK {
		return "", nil
	}
	keys, err := e.XattrKeys()
	for _, key := range keys {
		if strings.HasPrefix(key, "user.overlay.") {
			return fmt.Sprintf("%q", e.Path) + ": the attribute " + key + ", which an overlay takes for its own", nil
		}
	}
	return "", err
}
