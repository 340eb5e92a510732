//go:build linux

package mounts

import (
	"errors"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	maxLinks  = 40  // symlinks followed in one name, the kernel's MAXSYMLINKS
	maxEAGAIN = 128 // openat2 retries; renames elsewhere make RESOLVE_IN_ROOT give up (openat2(2))
)

// inRoot opens target with O_PATH as a process chrooted to root would, so no symlink or ".." leads out, and
// through the mounts lying there. With nofollow a symlink as last component is opened itself.
// The caller closes the file.
func (m *mounter) inRoot(root *os.File, target string, nofollow bool) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	if nofollow {
		how.Flags |= unix.O_NOFOLLOW
	}
	for try := 0; !m.legacy; try++ {
		fd, err := unix.Openat2(int(root.Fd()), target, &how)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), target), nil
		case err == unix.EINTR, err == unix.EAGAIN && try < maxEAGAIN:
			continue
		case err == unix.ENOSYS, err == unix.EPERM: // before 5.6, or a seccomp filter
		default:
			return nil, &os.PathError{Op: "openat2", Path: target, Err: err}
		}
		break
	}
	p, err := walk(root, target, nofollow, nil)
	if err != nil {
		return nil, err
	}
	if len(p.rest) > 0 {
		p.close()
		return nil, &os.PathError{Op: "open", Path: target, Err: unix.ENOENT}
	}
	return p.take(), nil
}

// place is where a walk ended.
type place struct {
	dirs  []*os.File // O_PATH, from the root's duplicate down to the last directory that exists
	names []string   // names[i] leads from dirs[i] to dirs[i+1]: free of symlinks and dots
	leaf  *os.File   // what is not a directory, or a symlink not to be followed; else nil
	rest  []string   // what does not exist below dirs' last, or is covered
}

// path returns the name of what was found, relative to the root, free of symlinks.
func (p *place) path() string { return path.Join(p.names...) }

// full returns path with the missing components.
func (p *place) full() string { return path.Join(p.path(), path.Join(p.rest...)) }

func (p *place) close() {
	for _, d := range p.dirs {
		d.Close()
	}
	if p.leaf != nil {
		p.leaf.Close()
	}
}

// take closes all but the file found, which passes to the caller.
func (p *place) take() *os.File {
	f := p.leaf
	if f == nil {
		f = p.dirs[len(p.dirs)-1]
		p.dirs = p.dirs[:len(p.dirs)-1]
	}
	p.leaf = nil
	p.close()
	return f
}

// walk resolves target component by component below root: absolute symlinks start again at root, ".." stops
// there. It ends without error at the first component that does not exist, at a dangling symlink's missing
// target, and where covered (may be nil) says that something will be mounted on the path reached.
func walk(root *os.File, target string, nofollow bool, covered func(string) bool) (*place, error) {
	top, err := openAt(root, ".", unix.O_PATH|unix.O_DIRECTORY, "/")
	if err != nil {
		return nil, err
	}
	p := &place{dirs: []*os.File{top}}
	todo := components(target)
	for links := 0; len(todo) > 0; {
		if covered != nil && covered(p.path()) {
			p.rest = todo
			return p, nil
		}
		name := todo[0]
		link, err := p.step(name, nofollow && len(todo) == 1)
		todo = todo[1:]
		switch {
		case errors.Is(err, unix.ENOENT):
			p.rest = append([]string{name}, todo...)
			return p, checkRest(p, target)
		case err != nil:
			p.close()
			return nil, err
		case p.leaf != nil && len(todo) > 0:
			p.close()
			return nil, &os.PathError{Op: "open", Path: target, Err: unix.ENOTDIR}
		case link == "":
			continue
		}
		if links++; links > maxLinks {
			p.close()
			return nil, &os.PathError{Op: "open", Path: target, Err: unix.ELOOP}
		}
		if strings.HasPrefix(link, "/") {
			p.up(len(p.names))
		}
		todo = append(components(link), todo...)
	}
	return p, nil
}

// checkRest refuses ".." behind a component that does not exist.
func checkRest(p *place, target string) error {
	for _, c := range p.rest {
		if c == ".." {
			p.close()
			return &os.PathError{Op: "open", Path: target, Err: unix.ENOENT}
		}
	}
	return nil
}

// step goes one component further; for a symlink to be followed it returns the link's target and stays.
func (p *place) step(name string, nofollow bool) (link string, err error) {
	if name == ".." {
		p.up(1)
		return "", nil
	}
	dir := p.dirs[len(p.dirs)-1]
	shown := path.Join("/", p.path(), name)
	f, err := openAt(dir, name, unix.O_PATH, shown)
	if err != nil {
		return "", err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return "", &os.PathError{Op: "fstat", Path: shown, Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		p.dirs, p.names = append(p.dirs, f), append(p.names, name)
		return "", nil
	case st.Mode&unix.S_IFMT == unix.S_IFLNK && !nofollow:
		defer f.Close()
		return readLink(f, shown)
	}
	p.leaf, p.names = f, append(p.names, name)
	return "", nil
}

// readLink returns the target of the symlink f. Links of proc are refused, like RESOLVE_NO_MAGICLINKS does:
// what they say is not where they lead.
func readLink(f *os.File, shown string) (string, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return "", &os.PathError{Op: "fstatfs", Path: shown, Err: err}
	}
	if fs.Type == unix.PROC_SUPER_MAGIC {
		return "", &os.PathError{Op: "open", Path: shown, Err: unix.ELOOP}
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(f.Fd()), "", buf)
	if err == nil && n == 0 {
		err = unix.ENOENT
	}
	if err != nil {
		return "", &os.PathError{Op: "readlinkat", Path: shown, Err: err}
	}
	return string(buf[:n]), nil
}

// up leaves n directories, but never the root.
func (p *place) up(n int) {
	for ; n > 0 && len(p.dirs) > 1; n-- {
		p.dirs[len(p.dirs)-1].Close()
		p.dirs, p.names = p.dirs[:len(p.dirs)-1], p.names[:len(p.names)-1]
	}
}

// components splits a path, dropping empty ones and ".".
func components(s string) []string {
	var out []string
	for _, c := range strings.Split(s, "/") {
		if c != "" && c != "." {
			out = append(out, c)
		}
	}
	return out
}
