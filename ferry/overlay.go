package ferry

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/nsferry/nsferry/idshift/userns"
	"golang.org/x/sys/unix"
)

// Overlay tests by use whether inner root can mount an overlay, on a tmpfs of its own.
func Overlay(ctx context.Context, e *userns.Env) userns.Finding {
	_, err := overlayHalf.Run(ctx, e, overlayArgs{}, nil)
	return overlayFinding("overlay", "inner root can mount an overlay (option userxattr)",
		"run --ephemeral has to copy the whole tree each time; use Linux 5.11 or newer with overlayfs, outside of containers that filter mount", err)
}

// overlayAt tests whether the filesystem of the directory can be the upper one of an overlay.
func overlayAt(ctx context.Context, e *userns.Env, dir, rest string, root *os.File) userns.Finding {
	_, err := overlayHalf.Run(ctx, e, overlayArgs{rest, e.CallerFSIDs()}, nil, root)
	return overlayFinding("path.overlay", "overlays",
		"changes to a tree cannot be kept here apart from it (run --ephemeral with its state here copies the tree); use ext4, xfs, btrfs or tmpfs", err)
}

func overlayFinding(id, what, remedy string, err error) userns.Finding {
	if err != nil {
		return userns.Finding{ID: id, State: userns.StateNote, What: what + ": no", Evidence: err.Error(), Remedy: remedy}
	}
	return userns.Finding{ID: id, State: userns.StateOK, What: what + ": yes"}
}

type overlayArgs struct {
	Rest string
	As   userns.FSIDs
}

// overlayHalf gets the directory, or none for a tmpfs of its own. It mounts, so it is isolated.
var overlayHalf = userns.Half[overlayArgs, struct{}]{Name: "overlay", Isolated: true, Func: func(ctx context.Context, in *userns.Inner, a overlayArgs) (none struct{}, err error) {
	if len(in.Files) == 0 {
		at, err := privateTmpfs()
		if err != nil {
			return none, err
		}
		return none, tryOverlay(at)
	}
	parent, err := OpenParentDir(in.Files[0], a.Rest, a.As)
	if err != nil {
		return none, err
	}
	defer parent.Close()
	p, err := newPartial(ctx, parent, "doctor")
	if err != nil {
		return none, err
	}
	defer func() { err = errors.Join(err, p.abort()) }()
	at, err := byName(p.dir)
	if err != nil {
		return none, err
	}
	return none, tryOverlay(at)
}}

// byName finds the directory by its name in this process's own mounts. The open one came from the caller's mount namespace, and
// the kernel takes no layers of an overlay from another one.
func byName(dir *os.File) (string, error) {
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
	if err != nil {
		return "", err
	}
	var open, named unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &open); err != nil {
		return "", &os.PathError{Op: "fstat", Path: name, Err: err}
	}
	if err := unix.Stat(name, &named); err != nil {
		return "", fmt.Errorf("inner root cannot go there by name: %w", &os.PathError{Op: "stat", Path: name, Err: err})
	}
	if open.Dev != named.Dev || open.Ino != named.Ino {
		return "", fmt.Errorf("%s: another directory is under this name", name)
	}
	return name, nil
}

// privateTmpfs mounts a tmpfs where nobody else sees it, and nothing of this process is.
func privateTmpfs() (string, error) {
	var errs []error
	for _, at := range []string{"/tmp", "/mnt", "/dev/shm", "/run"} {
		err := unix.Mount("nsferry", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=1m")
		if err == nil {
			return at, nil
		}
		errs = append(errs, &os.PathError{Op: "mount tmpfs", Path: at, Err: err})
	}
	return "", errors.Join(errs...)
}

// tryOverlay mounts an overlay of directories made in at, changes and removes files through it, looks whether the lower one is
// as before, and unmounts it. It works in at, so that no name of a directory above gets into the mount's options.
func tryOverlay(at string) (err error) {
	if err := os.Chdir(at); err != nil {
		return err
	}
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(name, 0o755); err != nil {
			return err
		}
	}
	for _, name := range []string{"lower/change", "lower/remove"} {
		if err := os.WriteFile(name, []byte("old"), 0o644); err != nil {
			return err
		}
	}
	if err := unix.Mount("overlay", "merged", "overlay", 0, "userxattr,lowerdir=lower,upperdir=upper,workdir=work"); err != nil {
		return &os.PathError{Op: "mount overlay", Path: at, Err: err}
	}
	defer func() { err = errors.Join(err, unix.Unmount("merged", unix.MNT_DETACH)) }()
	if err := os.WriteFile("merged/change", []byte("new"), 0o644); err != nil {
		return err
	}
	if err := os.Remove("merged/remove"); err != nil {
		return err
	}
	lower, err := os.ReadFile("lower/change")
	if err == nil && string(lower) != "old" {
		err = errors.New("a change went through to the lower directory")
	}
	if _, gone := os.Lstat("merged/remove"); err == nil && gone == nil {
		err = errors.New("a removed file is still there")
	}
	return err
}
