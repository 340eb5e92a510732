package tarfmt

import (
	"archive/tar"
	"bytes"
	"io"
	"testing"
	"time"
)

// TestGoReads has Go's own package read every feature, for the sake of the container tools made with it.
func TestGoReads(t *testing.T) {
	items := oddities()
	r := tar.NewReader(bytes.NewReader(write(t, items)))
	for _, it := range items {
		h, err := r.Next()
		if err != nil {
			t.Fatalf("%q: %v", it.Name, err)
		}
		if h.Name != it.Name || h.Linkname != it.Link || h.Typeflag != byte(it.Type) || h.Mode != int64(it.Mode) || h.Size != it.Size ||
			h.Uid != int(it.UID) || h.Gid != int(it.GID) || h.Devmajor != int64(it.DevMajor) || h.Devminor != int64(it.DevMinor) {
			t.Errorf("%+v\nis read as %+v", it.Header, h)
		}
		if want := time.Unix(it.ModTime.Sec, int64(it.ModTime.Nsec)); !h.ModTime.Equal(want) {
			t.Errorf("%q: time %v, want %v", it.Name, h.ModTime, want)
		}
		for _, x := range it.Xattrs {
			if got := h.PAXRecords["SCHILY.xattr."+escapeKey(x.Key)]; got != string(x.Value) && len(x.Value) > 0 {
				t.Errorf("%q: xattr %q is %q", it.Name, x.Key, got)
			}
		}
		if it.Type != Reg {
			continue
		}
		if data, err := io.ReadAll(r); err != nil || !bytes.Equal(data, it.content()) {
			t.Errorf("%q: other content, %v", it.Name, err)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}
