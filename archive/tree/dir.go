package tree

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// ReadNames returns the names in the directory fd, "." and ".." left out, sorted bytewise. The directory is read from
// its beginning whatever was read of it before.
func ReadNames(fd int) ([]string, error) {
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		return nil, err
	}
	var names []string
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			slices.Sort(names)
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}
