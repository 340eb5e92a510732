package deploy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"hash"
)

// watcher sees the data of one file once, in order, and makes of it what was asked for: the digest of the content, and the
// map of its blocks. Holes are zeros to a digest, and nothing to a map.
type watcher struct {
	whole  hash.Hash // nil: no digest is wanted
	blocks *blockMap // nil: no map is wanted
	expect Expectation
	at     int64 // of whole
}

func newWatcher(o Options) *watcher {
	w := &watcher{expect: o.Expect}
	if o.Sum && o.Compress == "" || o.Expect.SHA256 != "" {
		w.whole = sha256.New()
	}
	if o.Map {
		w.blocks = &blockMap{}
	}
	return w
}

// eye returns what handoff shows data to, nil when nobody looks.
func (w *watcher) eye(ctx context.Context) func(off int64, data []byte) error {
	if w.whole == nil && w.blocks == nil {
		return nil
	}
	return func(off int64, data []byte) error {
		if w.blocks != nil {
			w.blocks.data(off, data)
		}
		if w.whole == nil {
			return nil
		}
		if err := w.skip(ctx, off); err != nil {
			return err
		}
		w.whole.Write(data)
		w.at += int64(len(data))
		return nil
	}
}

// skip adds the zeros of a hole up to offset to. A hole costs its size here, and only here.
func (w *watcher) skip(ctx context.Context, to int64) error {
	var zeros [64 << 10]byte
	for w.at < to {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, _ := w.whole.Write(zeros[:min(to-w.at, int64(len(zeros)))])
		w.at += int64(n)
	}
	return nil
}

// finish ends a file of size bytes: its digest in hex, "" when none is wanted, which is the one that was expected, if any was.
func (w *watcher) finish(ctx context.Context, size int64) (string, error) {
	if w.blocks != nil {
		w.blocks.finish(size)
	}
	if w.whole == nil {
		return "", nil
	}
	if err := w.skip(ctx, size); err != nil {
		return "", err
	}
	sum := hex.EncodeToString(w.whole.Sum(nil))
	return sum, w.expect.checkSum(sum)
}
