package sstate

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/zframe"
	"github.com/nsferry/nsferry/sstate/minisign"
	"github.com/nsferry/nsferry/sstate/store"
)

// signature makes a signature of the file in r for the key. Its trusted comment names the entry, so that it serves for no
// other one.
func signature(r io.Reader, key store.Key, by minisign.SecretKey, now time.Time) ([]byte, error) {
	digest, err := minisign.Digest(r)
	if err != nil {
		return nil, err
	}
	return by.Sign(digest, fmt.Sprintf("timestamp:%d\tfile:%s\thashed", now.Unix(), key.Name())), nil
}

// checkSignature makes sure that one of keys has signed the entry under this very name, and returns the sums of its frames
// as they were signed: whoever can write to the store may change the file while it is read a second time. Sums are nil
// for an archive of another make.
func checkSignature(o *store.Object, keys []minisign.PublicKey) (sums [][32]byte, err error) {
	text, err := o.Attached(store.SignatureSuffix, minisign.Most)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("the entry is not signed")
	}
	if err != nil {
		return nil, err
	}
	sig, err := minisign.ParseSignature(text)
	if err != nil {
		return nil, err
	}
	t := &tailKeeper{from: o.Size}
	if o.Frames != nil {
		t.from = o.Frames.End()
	}
	digest, err := minisign.Digest(io.TeeReader(io.NewSectionReader(o.File, 0, o.Size), t))
	if err != nil {
		return nil, err
	}
	comment, err := sig.Check(digest, keys)
	if err != nil {
		return nil, err
	}
	for field := range strings.SplitSeq(comment, "\t") {
		if name, ok := strings.CutPrefix(field, "file:"); ok && name != o.Key.Name() {
			return nil, fmt.Errorf("the signature is for an entry of another name: %s", name)
		}
	}
	if o.Frames == nil {
		return nil, nil
	}
	signed, err := zframe.Open(t.over(o.File), o.Size)
	if err != nil {
		return nil, err
	}
	return archive.FrameSums(signed)
}

// tailKeeper keeps what is written from an offset on.
type tailKeeper struct {
	from, at int64
	tail     []byte
}

func (t *tailKeeper) Write(p []byte) (int, error) {
	skip := min(max(t.from-t.at, 0), int64(len(p)))
	t.tail = append(t.tail, p[skip:]...)
	t.at += int64(len(p))
	return len(p), nil
}

// over is r with the tail that was kept in its place.
func (t *tailKeeper) over(r io.ReaderAt) io.ReaderAt { return overlaid{r, t} }

type overlaid struct {
	io.ReaderAt
	t *tailKeeper
}

// ReadAt reads what was kept, or else the file.
func (o overlaid) ReadAt(p []byte, off int64) (int, error) {
	at := off - o.t.from
	if at < 0 {
		return o.ReaderAt.ReadAt(p, off)
	}
	n := copy(p, o.t.tail[min(at, int64(len(o.t.tail))):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
