package deploy

import (
	"errors"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is the kernel's own limit on symlinks in one path (path_resolution(7)).
const maxLinks = 40

// errPlanted is the refusal of a link that may be there to lead the caller to a file of his own.
var errPlanted = errors.New("it is a symbolic link that is neither yours nor root's; name the tree that it is in with --from, and the path in the tree")

// openTrusted opens the directory at path as userns.OpenTree does, in the caller's own view of the world; but a symlink on the way is
// followed only when it is the caller's or root's. Without that, inner root could put a link to the caller's private
// directory in the place of one of his.
func openTrusted(at string) (dir *os.File, rest string, err error) {
	w := trustedWalk{todo: strings.Split(at, "/")}
	start := "."
	if path.IsAbs(at) {
		start = "/"
	}
	if err := w.begin(start); err != nil {
		return nil, "", err
	}
	for len(w.todo) > 0 {
		part := w.todo[0]
		w.todo = w.todo[1:]
		if part == "" || part == "." {
			continue
		}
		closed, err := w.step(part)
		if err != nil {
			unix.Close(w.fd)
			return nil, "", &os.PathError{Op: "open", Path: path.Join(w.at, part), Err: err}
		}
		if closed {
			rest = strings.Join(append([]string{part}, w.todo...), "/")
			break
		}
	}
	return os.NewFile(uintptr(w.fd), w.at), rest, nil
}

type trustedWalk struct {
	fd    int    // O_PATH descriptor of where we are
	at    string // its name
	todo  []string
	links int
}

// begin goes to one of the two places where a path starts.
func (w *trustedWalk) begin(at string) error {
	fd, err := open(unix.AT_FDCWD, at, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return &os.PathError{Op: "open", Path: at, Err: err}
	}
	w.fd, w.at = fd, at
	return nil
}

// step takes one component. closed says that the caller may not search where we are.
func (w *trustedWalk) step(part string) (closed bool, err error) {
	fd, err := open(w.fd, part, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC)
	if err == unix.EACCES {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, errors.Join(err, unix.Close(fd))
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		unix.Close(w.fd)
		w.fd, w.at = fd, path.Join(w.at, part)
		return false, nil
	case unix.S_IFLNK:
		defer unix.Close(fd)
		return false, w.follow(fd, &st)
	}
	return false, errors.Join(unix.ENOTDIR, unix.Close(fd))
}

// follow puts the target of a link in front of what is left to do.
func (w *trustedWalk) follow(link int, st *unix.Stat_t) error {
	if st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return errPlanted
	}
	if w.links++; w.links > maxLinks {
		return unix.ELOOP
	}
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(link, "", target)
	if err != nil {
		return err
	}
	text := string(target[:n])
	if path.IsAbs(text) {
		old := w.fd
		if err := w.begin("/"); err != nil {
			return err
		}
		unix.Close(old)
	}
	w.todo = append(strings.Split(text, "/"), w.todo...)
	return nil
}
