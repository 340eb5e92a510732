package debs

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

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
	Rest   string
	Names  []string // of packages
	Digest bool     // only the digest of the lists
}

// entry is one line of an Index in a half's result.
type entry struct {
	Package
	Size   int64
	SHA256 string
}

type listsResult struct {
	Digest  []byte
	Entries []entry
}

// listsHalf looks packages up in the lists of a rootfs. Its file is the rootfs.
var listsHalf = userns.Half[listsArgs, listsResult]{Name: "debs-lists", Func: func(ctx context.Context, in *userns.Inner, a listsArgs) (res listsResult, err error) {
	root, err := userns.ReopenDir(in.Files[0], a.Rest)
	if err != nil {
		return res, err
	}
	defer root.Close()
	fd, err := tree.NewRoot(root).OpenDir(aptLists)
	if errors.Is(err, fs.ErrNotExist) {
		none := listsDigest(sha256.Sum256(nil))
		return listsResult{Digest: none[:]}, nil
	}
	if err != nil {
		return res, err
	}
	dir := os.NewFile(uintptr(fd), aptLists)
	defer dir.Close()
	var l found
	if a.Digest {
		l.digest, err = digestLists(ctx, dir)
	} else {
		l, err = readLists(ctx, dir, a.Names)
	}
	if err != nil {
		return res, err
	}
	res.Digest = l.digest[:]
	for p, sums := range l.index {
		for _, s := range sums {
			res.Entries = append(res.Entries, entry{p, s.Size, hex.EncodeToString(s.SHA256[:])})
		}
	}
	return res, nil
}}

// found undoes what listsHalf does to what was found.
func (r listsResult) found() (l found, err error) {
	if copy(l.digest[:], r.Digest) != len(l.digest) {
		return l, fmt.Errorf("bad digest of lists %x", r.Digest)
	}
	l.index = Index{}
	for _, e := range r.Entries {
		s, err := parseSum(strconv.FormatInt(e.Size, 10), e.SHA256)
		if err != nil {
			return l, fmt.Errorf("package %s: %w", e.Package, err)
		}
		l.index.put(e.Package, s)
	}
	return l, nil
}

// isList tells Packages and Sources files by their names: apt's own (…_Packages), a repository's (Packages), compressed or not.
func isList(name string) bool {
	for _, suffix := range [...]string{".gz", ".xz", ".zst", ".bz2", ".lz4"} {
		name = strings.TrimSuffix(name, suffix)
	}
	return name == "Packages" || name == "Sources" || strings.HasSuffix(name, "_Packages") || strings.HasSuffix(name, "_Sources")
}

// found is what lists say, and the digest of the very bytes that said it.
type found struct {
	index  Index
	digest listsDigest
}

// readLists reads all Packages files of dir, for the named packages; nil is for all.
func readLists(ctx context.Context, dir *os.File, names []string) (found, error) {
	var wanted map[string]bool
	if names != nil {
		wanted = make(map[string]bool, len(names))
		for _, n := range names {
			wanted[n] = true
		}
	}
	var mu sync.Mutex
	var parts []Index
	digest, err := eachList(ctx, dir, func(list io.Reader) error {
		part := Index{}
		mu.Lock()
		parts = append(parts, part)
		mu.Unlock()
		return eachPart(list, func(run []byte) error { return part.add(run, wanted) })
	})
	if err != nil {
		return found{}, err
	}
	x := Index{}
	for _, part := range parts {
		x.merge(part)
	}
	return found{x, digest}, nil
}

// digestLists only reads them.
func digestLists(ctx context.Context, dir *os.File) (listsDigest, error) {
	return eachList(ctx, dir, func(io.Reader) error { return nil })
}

// eachList calls f with the raw bytes of each list of dir, some at once, and returns the digest of what f has, or could have, read.
func eachList(ctx context.Context, dir *os.File, f func(io.Reader) error) (all listsDigest, err error) {
	names, err := tree.ReadNames(int(dir.Fd()))
	if err != nil {
		return all, err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !isList(n) })
	digests := make([][sha256.Size]byte, len(names))
	var group errgroup.Group
	group.SetLimit(2)
	for i, name := range names {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			var err error
			if digests[i], err = oneList(dir, name, f); err != nil {
				return fmt.Errorf("%s/%s: %w", dir.Name(), name, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return all, err
	}
	h := sha256.New()
	for _, d := range digests {
		h.Write(d[:])
	}
	h.Sum(all[:0])
	return all, nil
}

// oneList calls f with a list's bytes and returns the digest of them all.
func oneList(dir *os.File, name string, f func(io.Reader) error) (sum [sha256.Size]byte, err error) {
	file, err := openRegular(dir, name)
	if err != nil {
		return sum, err
	}
	defer file.Close()
	h := sha256.New()
	raw := io.TeeReader(file, h)
	if err := f(raw); err != nil {
		return sum, err
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, raw, make([]byte, 256<<10)); err != nil { // what f has left
		return sum, err
	}
	h.Sum(sum[:0])
	return sum, nil
}

// eachPart unpacks one list and calls f with runs of whole stanzas of it, in a buffer that is used again.
func eachPart(list io.Reader, f func([]byte) error) error {
	br := bufio.NewReaderSize(list, 64<<10)
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

// listSource is where lists are: the directory lists of the caller's, or those of the rootfs when that is "".
type listSource struct {
	rootfs *rootfs
	lists  string
}

// read returns what the lists say of the named packages.
func (s listSource) read(ctx context.Context, names []string) (found, error) {
	return s.get(ctx, listsArgs{Names: names})
}

// digest returns the digest of the lists.
func (s listSource) digest(ctx context.Context) (listsDigest, error) {
	l, err := s.get(ctx, listsArgs{Digest: true})
	return l.digest, err
}

func (s listSource) get(ctx context.Context, a listsArgs) (l found, err error) {
	if s.lists == "" {
		a.Rest = s.rootfs.rest
		res, _, err := ask(ctx, s.rootfs, listsHalf, a)
		if err != nil {
			return l, err
		}
		return res.found()
	}
	dir, err := os.Open(s.lists)
	if err != nil {
		return l, err
	}
	defer dir.Close()
	if a.Digest {
		l.digest, err = digestLists(ctx, dir)
		return l, err
	}
	return readLists(ctx, dir, a.Names)
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
