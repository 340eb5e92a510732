package tree

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// OpenFile opens the regular file that Walk saw at path under root for reading; that it is still the same one is
// checked. The caller closes the File.
func OpenFile(root *Root, path string, seen *unix.Statx_t) (*File, error) {
	fd, err := openPath(root, path, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, pathError("openat", path, err)
	}
	f := &File{fd: fd, path: path, seen: seen}
	if err := f.Unchanged(); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// openPath opens path, its last component not followed, in one call when the kernel can promise that no component is a symlink.
func openPath(root *Root, path string, flags int) (fd int, err error) {
	how := unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC | unix.O_NOFOLLOW, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_BENEATH}
	if root.openat2 && len(path) <= maxPath {
		for range maxRaces {
			fd, err = unix.Openat2(root.Fd(), path, &how)
			if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
				return fd, err
			}
		}
		return -1, err
	}
	return root.Open(path, flags)
}

// File is a regular file of a tree, open for reading.
type File struct {
	fd   int
	path string
	seen *unix.Statx_t
}

// Close releases the fd.
func (f *File) Close() { unix.Close(f.fd) }

// Unchanged is ErrChanged when inode, size, mtime or ctime are not what Walk saw.
func (f *File) Unchanged() error {
	st, err := fstat(f.fd)
	if err != nil {
		return pathError("fstat", f.path, err)
	}
	s := f.seen
	if st.Ino != s.Ino || uint64(st.Dev) != unix.Mkdev(s.Dev_major, s.Dev_minor) || st.Size != int64(s.Size) ||
		st.Ctim.Sec != s.Ctime.Sec || uint32(st.Ctim.Nsec) != s.Ctime.Nsec {
		return fmt.Errorf("%s: %w", f.path, ErrChanged)
	}
	return nil
}

// ReadFull fills p from offset off; a file that ends early has changed.
func (f *File) ReadFull(p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pread(f.fd, p, off)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return pathError("pread", f.path, err)
		case n == 0:
			return fmt.Errorf("%s: %w: %w", f.path, ErrChanged, io.ErrUnexpectedEOF)
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// HoleUnit is what holes are rounded to, inwards: what one filesystem keeps as a hole another one may not, below its
// block size. With 4 KiB the same file gives the same map on all of them.
const HoleUnit = 4096

// Segments returns where the file holds data, holes shorter than least taken as data; nil when it has no such hole.
// Preallocated but unwritten blocks count as holes (lseek(2), SEEK_HOLE).
func (f *File) Segments(least int64) ([]Segment, error) {
	size := int64(f.seen.Size)
	var segs []Segment
	sparse := false
	for end := int64(0); end < size; { // end of the last segment
		data, err := unix.Seek(f.fd, end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			data = size
		} else if err != nil {
			return nil, pathError("lseek", f.path, err)
		}
		hole := size
		if data < size {
			if hole, err = unix.Seek(f.fd, data, unix.SEEK_HOLE); err != nil {
				return nil, pathError("lseek", f.path, err)
			}
			hole = min((hole+HoleUnit-1)/HoleUnit*HoleUnit, size)
			data = max(data/HoleUnit*HoleUnit, end)
		}
		start := end // of the next segment; a hole that is too short belongs to it
		if data-end >= least {
			start, sparse = data, true
		}
		if start == size {
			break
		}
		if n := len(segs); n > 0 && start == end {
			segs[n-1].Length = hole - segs[n-1].Offset
		} else {
			segs = append(segs, Segment{start, hole - start})
		}
		end = hole
	}
	if !sparse {
		return nil, nil
	}
	if segs == nil {
		segs = []Segment{}
	}
	return segs, nil
}
