package debs

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/pierrec/lz4/v4"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/archive/zframe"
	"github.com/nsferry/nsferry/idshift/userns"
)

// aptLists is where apt keeps what it has got from repositories, and checked by their signatures.
const aptLists = "var/lib/apt/lists"

// maxList bounds a list when unpacked; Debian's largest has 60 MB.
const maxList = 2 << 30

type listsArgs struct {
	Rest  string
	Names []string // of packages
}

// entry is one line of an Index in a half's result.
type entry struct {
	Package
	Size   int64
	SHA256 string
}

// listsHalf looks packages up in the lists of a rootfs. Its file is the rootfs.
var listsHalf = userns.Half[listsArgs, []entry]{Name: "debs-lists", Func: func(ctx context.Context, in *userns.Inner, a listsArgs) ([]entry, error) {
	root, err := userns.ReopenDir(in.Files[0], a.Rest)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	fd, err := tree.NewRoot(root).OpenDir(aptLists)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	dir := os.NewFile(uintptr(fd), aptLists)
	defer dir.Close()
	x, err := readLists(ctx, dir, a.Names)
	if err != nil {
		return nil, err
	}
	var all []entry
	for p, sums := range x {
		for _, s := range sums {
			all = append(all, entry{p, s.Size, hex.EncodeToString(s.SHA256[:])})
		}
	}
	return all, nil
}}

// index undoes what listsHalf does to an Index.
func index(all []entry) (Index, error) {
	x := Index{}
	for _, e := range all {
		s := Sum{Size: e.Size}
		if n, err := hex.Decode(s.SHA256[:], []byte(e.SHA256)); err != nil || n != len(s.SHA256) {
			return nil, fmt.Errorf("package %s: bad digest %q", e.Package, e.SHA256)
		}
		x.put(e.Package, s)
	}
	return x, nil
}

// isList tells Packages and Sources files by their names: apt's own (…_Packages), a repository's (Packages), compressed or not.
func isList(name string) bool {
	for _, suffix := range [...]string{".gz", ".xz", ".zst", ".bz2", ".lz4"} {
		name = strings.TrimSuffix(name, suffix)
	}
	return name == "Packages" || name == "Sources" || strings.HasSuffix(name, "_Packages") || strings.HasSuffix(name, "_Sources")
}

// readLists reads all Packages files of dir, for the named packages; nil is for all.
func readLists(ctx context.Context, dir *os.File, names []string) (Index, error) {
	var wanted map[string]bool
	if names != nil {
		wanted = make(map[string]bool, len(names))
		for _, n := range names {
			wanted[n] = true
		}
	}
	files, err := tree.ReadNames(int(dir.Fd()))
	if err != nil {
		return nil, err
	}
	var group errgroup.Group
	group.SetLimit(2)
	parts := make([]Index, len(files))
	for i, name := range files {
		if !isList(name) {
			continue
		}
		parts[i] = Index{}
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			err := eachPart(dir, name, func(list []byte) error { return parts[i].add(list, wanted) })
			if err != nil {
				return fmt.Errorf("%s/%s: %w", dir.Name(), name, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	x := Index{}
	for _, part := range parts {
		for p, sums := range part {
			for _, s := range sums {
				x.put(p, s)
			}
		}
	}
	return x, nil
}

// eachPart unpacks one list and calls f with runs of whole stanzas of it, in a buffer that is used again.
func eachPart(dir *os.File, name string, f func([]byte) error) error {
	file, err := openRegular(dir, name)
	if err != nil {
		return err
	}
	defer file.Close()
	br := bufio.NewReader(file)
	var r io.Reader = br
	switch head, _ := br.Peek(4); { // what is shorter is a list of nothing
	case len(head) == 0:
		return nil
	case bytes.Equal(head, []byte{0x04, 0x22, 0x4d, 0x18}):
		r = lz4.NewReader(br)
	case head[0] != '\n' && !alphanumeric(head[0]) || bytes.HasPrefix(head, []byte("BZh")):
		raw, _, err := zframe.Decompress(br, zframe.Options{Workers: 1, MaxRaw: maxList})
		if err != nil {
			return err
		}
		defer raw.Close()
		r = raw
	}
	return eachRun(io.LimitReader(r, maxList), f)
}

// eachRun calls f with runs of whole stanzas.
func eachRun(r io.Reader, f func([]byte) error) error {
	buf := make([]byte, 512<<10)
	for n := 0; ; {
		m, err := io.ReadFull(r, buf[n:])
		n += m
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return f(buf[:n])
		}
		if err != nil {
			return err
		}
		end := bytes.LastIndex(buf, []byte("\n\n")) + 2
		if end < 2 { // one stanza that is longer
			if len(buf) >= 64<<20 {
				return fmt.Errorf("a stanza of more than %d bytes", len(buf))
			}
			buf = append(buf, make([]byte, len(buf))...)
			continue
		}
		if err := f(buf[:end]); err != nil {
			return err
		}
		n = copy(buf, buf[end:])
	}
}

// openRegular opens a regular file of a directory that others may change at any time: it follows nothing and waits for nothing.
func openRegular(dir *os.File, name string) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	fd, err := unix.Openat(int(dir.Fd()), name, flags, 0)
	for err == unix.EINTR {
		fd, err = unix.Openat(int(dir.Fd()), name, flags, 0)
	}
	switch err {
	case nil:
	case unix.ELOOP:
		return nil, fmt.Errorf("%w: a symbolic link", errNotRegular)
	case unix.ENXIO:
		return nil, fmt.Errorf("%w: a socket", errNotRegular)
	case unix.EWOULDBLOCK:
		return nil, errors.New("another process holds a lease on it")
	default:
		return nil, &fs.PathError{Op: "openat", Path: name, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		if err == nil {
			err = fmt.Errorf("%w: %s", errNotRegular, kind(st.Mode))
		}
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// errNotRegular is the error of what is no regular file.
var errNotRegular = errors.New("not a regular file")

func kind(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "a directory"
	case unix.S_IFLNK:
		return "a symbolic link"
	case unix.S_IFIFO:
		return "a fifo"
	case unix.S_IFSOCK:
		return "a socket"
	case unix.S_IFREG:
		return "a regular file"
	}
	return "a device"
}

// lookUp returns what is known of the named packages: by the Packages files in the directory lists of the caller's, or those of
// the rootfs when that is "".
func lookUp(ctx context.Context, r *rootfs, lists string, names []string) (Index, error) {
	names = slices.Clone(names)
	slices.Sort(names)
	names = slices.Compact(names)
	if lists != "" {
		return readListsAt(ctx, lists, names)
	}
	all, _, err := ask(ctx, r, listsHalf, listsArgs{r.rest, names})
	if err != nil {
		return nil, err
	}
	return index(all)
}

// readListsAt reads the lists in a directory of the caller's.
func readListsAt(ctx context.Context, path string, names []string) (Index, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return readLists(ctx, dir, names)
}

// readNames reads a directory that may be open by O_PATH only.
func readNames(dir *os.File) ([]string, error) {
	d, err := userns.ReopenDir(dir, "")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return tree.ReadNames(int(d.Fd()))
}
