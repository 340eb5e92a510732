package tarfmt

import (
	"bytes"
	"fmt"
	"io"
	"testing"
)

// rootfs makes headers as a Debian tree has them: short and long paths, one in ten with an xattr or nanoseconds.
func rootfs(n int) []item {
	items := make([]item, n)
	for i := range items {
		items[i] = file(fmt.Sprintf("./usr/share/doc/package-%d/examples/directory/file-%d", i/20, i), "0123456789")
		h := &items[i].Header
		switch i % 10 {
		case 0:
			h.ModTime.Nsec = 123456789
		case 1:
			h.Xattrs = []Xattr{{"user.key", []byte("value")}}
		case 2:
			h.Name += "/and/a/path/that/has/more/than/a/hundred/bytes/all/in/all/and/goes/into/a/record"
		}
	}
	return items
}

// BenchmarkNext reads the 25 600 headers of a Debian tree, each followed by one block of data, per operation.
func BenchmarkNext(b *testing.B) {
	archive := write(b, rootfs(25600))
	b.SetBytes(int64(len(archive)))
	b.ReportAllocs()
	for b.Loop() {
		r := NewReader(bytes.NewReader(archive), Limits{})
		for {
			if _, err := r.Next(); err == io.EOF {
				break
			} else if err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkAppend writes the same headers.
func BenchmarkAppend(b *testing.B) {
	items := rootfs(25600)
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		for i := range items {
			var err error
			if buf, err = items[i].Append(buf[:0]); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkRead reads one large file in pieces of 128 KiB.
func BenchmarkRead(b *testing.B) {
	archive := write(b, []item{file("./large", string(make([]byte, 64<<20)))})
	buf := make([]byte, 128<<10)
	b.SetBytes(int64(len(archive)))
	for b.Loop() {
		r := NewReader(bytes.NewReader(archive), Limits{})
		if _, err := r.Next(); err != nil {
			b.Fatal(err)
		}
		for {
			if _, err := r.Read(buf); err == io.EOF {
				break
			}
		}
	}
}
