package ephemeral

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/zframe"

	"golang.org/x/sys/unix"
)

// identity names the content of an archive. For one of ours the table of contents is enough, which holds the sum of each
// frame: it is read every time. Any other is read whole, once, and remembered by its inode and times.
func (s *State) identity(ctx context.Context, in *os.File) (string, error) {
	st, err := in.Stat()
	if err != nil {
		return "", err
	}
	if !st.Mode().IsRegular() {
		return "", fmt.Errorf("%s: a regular file is wanted, for a tree that is kept and used again", in.Name())
	}
	z, err := zframe.Open(in, st.Size())
	switch {
	case err == nil:
		return digest(ctx, "toc", io.NewSectionReader(in, z.End(), st.Size()-z.End()))
	case !errors.Is(err, zframe.ErrNotSeekable):
		return "", fmt.Errorf("%s: %w", in.Name(), err)
	}
	return s.whole(ctx, in)
}

// frameSums are what the table of contents says of the frames, by which an archive of ours is known; nil for any other.
func frameSums(in *os.File) ([][32]byte, error) {
	st, err := in.Stat()
	if err != nil {
		return nil, err
	}
	z, err := zframe.Open(in, st.Size())
	if errors.Is(err, zframe.ErrNotSeekable) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return archive.FrameSums(z)
}

// memo is what is known of an archive that had to be read whole.
type memo struct {
	Size         int64
	MTime, CTime unix.Timespec
	Identity     string
}

// tick is more than the granularity of any filesystem's time stamps: a file that was changed less than that ago might be changed
// again without a trace.
const tick = 2 * time.Second

// whole is the identity of an archive of another make.
func (s *State) whole(ctx context.Context, in *os.File) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(in.Fd()), &st); err != nil {
		return "", &os.PathError{Op: "fstat", Path: in.Name(), Err: err}
	}
	now := memo{Size: st.Size, MTime: st.Mtim, CTime: st.Ctim}
	path := filepath.Join(s.archives(), fmt.Sprintf("%x-%d", st.Dev, st.Ino))
	var old memo
	if text, err := os.ReadFile(path); err == nil && json.Unmarshal(text, &old) == nil {
		now.Identity = old.Identity
		if old == now {
			return now.Identity, nil
		}
	}
	settled := time.Since(time.Unix(st.Ctim.Unix())) > tick
	id, err := digest(ctx, "content", io.NewSectionReader(in, 0, st.Size))
	if err != nil || !settled {
		return id, err
	}
	var after unix.Stat_t
	if err := unix.Fstat(int(in.Fd()), &after); err != nil || after.Size != st.Size || after.Mtim != st.Mtim || after.Ctim != st.Ctim {
		return "", fmt.Errorf("%s changed while it was read: %w", in.Name(), errors.Join(err))
	}
	now.Identity = id
	return id, writeJSON(path, now)
}

// digest is the sha256 of r, with what it is of.
func digest(ctx context.Context, of string, r io.Reader) (string, error) {
	h := sha256.New()
	buf := make([]byte, 1<<20)
	for {
		n, err := r.Read(buf)
		h.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			return of + ":" + hex.EncodeToString(h.Sum(nil)), nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return "", err
		}
	}
}
