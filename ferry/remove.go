package ferry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/idshift/userns"

	"golang.org/x/sys/unix"
)

type removeArgs struct {
	Rest, Name string
	As         userns.FSIDs
	Force      bool
}

// Remove takes away path with all that is in it, whoever of the caller and his sub-ids owns it, and the leftovers of
// an unpack to it that was killed. It crosses no mount. With force, that nothing is there is no error.
//
// As rm(1) does, it refuses "/" and what ends in "." or "..", and an empty path is nothing that is there, not the
// working directory: each is more likely a script's mistake than meant.
func Remove(ctx context.Context, e *userns.Env, path string, force bool) (tree.Removed, error) {
	if err := removable(path); err != nil {
		return tree.Removed{}, err
	}
	parent, rest, name, err := openParent(path)
	if err != nil {
		return tree.Removed{}, err
	}
	defer parent.Close()
	r, err := removeHalf.Run(ctx, e, removeArgs{rest, name, e.CallerFSIDs(), force}, nil, parent)
	if err != nil {
		return r, fmt.Errorf("rm %s: %w", path, err)
	}
	return r, nil
}

// removable says what is wrong with a path to remove, by its spelling.
func removable(path string) error {
	if path == "" {
		return &fs.PathError{Op: "rm", Path: path, Err: unix.ENOENT}
	}
	switch filepath.Base(path) { // which drops slashes at the end, but resolves nothing
	case ".", "..", "/":
		return &fs.PathError{Op: "rm", Path: path, Err: errors.New("refused; name the directory itself, from above")}
	}
	return nil
}

// removeHalf gets the directory that the path is in.
var removeHalf = userns.Half[removeArgs, tree.Removed]{Name: "remove", Func: func(ctx context.Context, in *userns.Inner, a removeArgs) (r tree.Removed, err error) {
	parent, err := openParentDir(in.Files[0], a.Rest, a.As)
	if err != nil {
		return r, err
	}
	defer parent.Close()
	if err := parent.sweep(ctx, a.Name); err != nil {
		return r, err
	}
	var st unix.Stat_t
	err = parent.do(func() error { return unix.Fstatat(int(parent.Fd()), a.Name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	if errors.Is(err, unix.ENOENT) && a.Force {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	return parent.remove(ctx, a.Name)
}}
