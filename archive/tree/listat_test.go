package tree

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/tier"
)

// TestListXattrAt: the new call and the old way list the same and fail alike; neither follows a symlink.
func TestListXattrAt(t *testing.T) {
	dir := build(t, "dir . @ 755\nfile none @ 644 \"\"\nfile f @ 640 xattr:user.a=\"1\" xattr:user.b=\"2\" acl=u::rw-,u:7:r--,g::r--,m::r--,o::--- \"\"\n"+
		"dir d @ 755 default=u::rwx,g::rwx,o::---\nsymlink l @ f\nsymlink dangling @ nowhere")
	for i := range 60 { // more than fit the first buffer
		must(t, unix.Setxattr(filepath.Join(dir, "none"), fmt.Sprintf("user.%050d", i), nil, 0))
	}
	fd := int(openTestDir(t, dir).Fd())
	for _, name := range []string{".", "none", "f", "d", "l", "dangling", "missing", "f/", "f/x"} {
		for _, size := range []int{512, 64 << 10} {
			now, was := make([]byte, size), make([]byte, size)
			n, err := listXattrNew(fd, name, now)
			if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
				tier.Have(t, false, "listxattrat (Linux 6.13)")
			}
			m, old := unix.Llistxattr(procPath(fd, name), was)
			if !errors.Is(err, old) || n != m && err == nil || !slices.Equal(now[:n], was[:max(m, 0)]) {
				t.Errorf("%q: %q %v, and the old way %q %v", name, now[:n], err, was[:max(m, 0)], old)
			}
		}
	}
	if n, err := listXattrAt(fd, "l", make([]byte, 512)); n != 0 || err != nil {
		t.Errorf("a symlink was followed: %d %v", n, err)
	}
}
