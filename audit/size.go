package audit

import (
	"context"
	"fmt"

	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/idshift/userns"
	"golang.org/x/sys/unix"
)

// Size is what a tree takes. An inode with several names counts once, directories count, and what is mounted in the tree does
// not.
type Size struct {
	Path      string `json:"path"`
	Allocated int64  `json:"allocated"` // bytes on the disk
	Apparent  int64  `json:"apparent"`  // bytes that the inodes say they have, holes counted
	Content   int64  `json:"content"`   // Apparent, of regular files and symlinks alone
	Inodes    int64  `json:"inodes"`
	Mounts    int64  `json:"mounts,omitempty"` // mount points left out
}

// Measure adds up the tree at dir, which may be closed to the caller.
func Measure(ctx context.Context, e *userns.Env, dir string) (Size, error) {
	root, rest, err := userns.OpenTree(dir)
	if err != nil {
		return Size{}, err
	}
	defer root.Close()
	s, err := sizeHalf.Run(ctx, e, rest, nil, root)
	if err != nil {
		return s, fmt.Errorf("du %s: %w", dir, err)
	}
	s.Path = dir
	return s, nil
}

// sizeHalf gets the directory.
var sizeHalf = userns.Half[string, Size]{Name: "size", Func: func(ctx context.Context, in *userns.Inner, rest string) (s Size, err error) {
	root, err := userns.ReopenDir(in.Files[0], rest)
	if err != nil {
		return s, err
	}
	defer root.Close()
	seen := map[inode]bool{}
	err = tree.Walk(ctx, root, func(e *tree.Entry) error {
		if e.Mount {
			s.Mounts++
			return tree.ErrSkipDir
		}
		if e.Stat.Nlink > 1 && e.Type() != unix.S_IFDIR {
			id := inode{e.Device(), e.Stat.Ino}
			if seen[id] {
				return nil
			}
			seen[id] = true
		}
		s.Inodes++
		s.Allocated += int64(e.Stat.Blocks) * 512 // statx(2): units of 512 bytes, whatever the filesystem's
		s.Apparent += int64(e.Stat.Size)
		if t := e.Type(); t == unix.S_IFREG || t == unix.S_IFLNK {
			s.Content += int64(e.Stat.Size)
		}
		return nil
	})
	return s, err
}}
