package deploy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"os"

	"github.com/klauspost/compress/gzip"

	"github.com/nsferry/nsferry/archive/zframe"
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/handoff"
)

// Compression is how an output is stored.
type Compression string

const (
	Plain Compression = ""
	Zstd  Compression = "zst" // frames and a seek table, which any zstd reads
	Gzip  Compression = "gz"  // members in a row, which any gzip reads
)

// frameSize is what goes into one frame or member, in bytes. They are cut at its multiples.
const frameSize = 4 << 20

// suffix is what the names of outputs end with.
func (c Compression) suffix() string {
	if c == Plain {
		return ""
	}
	return "." + string(c)
}

// encoder makes frames for one worker.
type encoder func(raw []byte) ([]byte, error)

func (c Compression) encoder(level int) (encoder, error) {
	if c == Gzip {
		if level == 0 {
			level = 6
		}
		z, err := gzip.NewWriterLevel(nil, level)
		return func(raw []byte) ([]byte, error) {
			var out bytes.Buffer
			z.Reset(&out)
			if _, err := z.Write(raw); err != nil {
				return nil, err
			}
			err := z.Close()
			return out.Bytes(), err
		}, err
	}
	if level == 0 {
		level = 3
	}
	z, err := zframe.NewEncoder(level)
	return func(raw []byte) ([]byte, error) {
		if len(raw) == 0 { // a frame of nothing, which EncodeAll leaves out (RFC 8878, 3.1.1)
			return []byte{0x28, 0xb5, 0x2f, 0xfd, 0x24, 0, 1, 0, 0, 0x99, 0xe9, 0xd8, 0x51}, nil
		}
		return z.Encode(nil, raw), nil
	}, err
}

// compressFile writes src to f, compressed. Holes are not read, and a frame of nothing else is compressed once.
func compressFile(ctx context.Context, f, src *os.File, w *watcher, o Options) (Delivered, error) {
	if st, err := src.Stat(); err != nil {
		return Delivered{}, err
	} else if st.Size() > zframe.MaxFrames*frameSize {
		return Delivered{}, fmt.Errorf("%d bytes are more than can be compressed in frames of %d", st.Size(), frameSize)
	}
	p, err := newPress(ctx, f, o)
	if err != nil {
		return Delivered{}, err
	}
	eye := w.eye(ctx)
	res, err := handoff.Scan(ctx, src, func(off int64, data []byte) error {
		if eye != nil {
			if err := eye(off, data); err != nil {
				return err
			}
		}
		return p.data(off, data)
	}, o.Progress)
	d, err := p.finish(res.Bytes, err)
	if err != nil {
		return d, err
	}
	d.Bytes, d.Holes = res.Bytes, res.Holes
	_, err = w.finish(ctx, res.Bytes)
	return d, err
}

// press takes the data of a file in order, holes left out, and writes frames.
type press struct {
	o        Options
	out      *os.File
	encoders []encoder // one a worker, the last one for the goroutine that fills frames
	pipe     *zframe.Ordered[pressed]
	empty    []byte // a whole frame of zeros, compressed, once there was one
	raw      []byte // the frame that is being filled
	at       int64  // its offset
	spans    []zframe.Span
	stored   int64
	sum      hash.Hash // of what is stored
}

// pressed is one frame on its way out.
type pressed struct {
	stored []byte
	raw    int64
}

func newPress(ctx context.Context, out *os.File, o Options) (*press, error) {
	o.Workers = ferry.Workers(o.Workers)
	p := &press{o: o, out: out, sum: sha256.New()}
	for range o.Workers + 1 {
		e, err := o.Compress.encoder(o.Level)
		if err != nil {
			return nil, err
		}
		p.encoders = append(p.encoders, e)
	}
	p.pipe = zframe.NewOrdered(ctx, zframe.Limits{Workers: o.Workers, Bytes: int64(4*o.Workers+4) * frameSize}, p.write)
	return p, nil
}

// write is the pipeline's consumer.
func (p *press) write(f pressed) error {
	p.spans = append(p.spans, zframe.Span{Offset: p.stored, Stored: int64(len(f.stored)), Raw: f.raw})
	return p.store(f.stored)
}

func (p *press) store(b []byte) error {
	if p.o.Sum {
		p.sum.Write(b)
	}
	p.stored += int64(len(b))
	_, err := p.out.Write(b)
	return err
}

func (p *press) data(off int64, data []byte) error {
	for len(data) > 0 {
		if err := p.hole(off); err != nil {
			return err
		}
		if p.raw == nil {
			p.raw = make([]byte, 0, frameSize)
		}
		room := int(p.at + frameSize - off)
		n := min(room, len(data))
		p.raw = append(append(p.raw, make([]byte, off-p.at-int64(len(p.raw)))...), data[:n]...)
		off, data = off+int64(n), data[n:]
		if n == room {
			if err := p.submit(frameSize); err != nil {
				return err
			}
		}
	}
	return nil
}

// hole ends the frames that lie before offset to.
func (p *press) hole(to int64) error {
	for to >= p.at+frameSize {
		if err := p.submit(frameSize); err != nil {
			return err
		}
	}
	return nil
}

// submit ends the frame at size bytes of content; what was not filled is zeros.
func (p *press) submit(size int64) error {
	raw := p.raw
	p.raw, p.at = nil, p.at+size
	if raw == nil && size == frameSize {
		if p.empty == nil {
			var err error
			if p.empty, err = p.encoders[p.o.Workers](make([]byte, frameSize)); err != nil {
				return err
			}
		}
		return p.pipe.Submit(0, func(int) (pressed, error) { return pressed{p.empty, size}, nil })
	}
	raw = append(raw, make([]byte, size-int64(len(raw)))...)
	return p.pipe.Submit(2*frameSize, func(worker int) (pressed, error) {
		stored, err := p.encoders[worker](raw)
		return pressed{stored, size}, err
	})
}

// finish ends the file, of size bytes, and waits for all that is under way, also after the error err.
func (p *press) finish(size int64, err error) (Delivered, error) {
	if err == nil {
		err = p.hole(size)
	}
	if err == nil && (p.at < size || size == 0) {
		err = p.submit(size - p.at)
	}
	if werr := p.pipe.Wait(); err == nil {
		err = werr
	}
	if err == nil && p.o.Compress == Zstd {
		var table []byte
		if table, err = zframe.AppendSeekTable(nil, p.spans); err == nil {
			err = p.store(table)
		}
	}
	if err != nil {
		return Delivered{}, fmt.Errorf("compress: %w", err)
	}
	d := Delivered{Method: string(p.o.Compress), Stored: p.stored}
	if p.o.Sum {
		d.SHA256 = hex.EncodeToString(p.sum.Sum(nil))
	}
	return d, nil
}
