package tarfmt

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

// verify checks the checksum: over unsigned bytes as POSIX has it, or over signed ones as some old tars wrote it.
func (b *block) verify() error {
	want, err := b.number(fChecksum)
	if err != nil {
		return errors.New("not a tar header: no checksum")
	}
	if want != b.sum() && want != b.signedSum() {
		return errors.New("not a tar header: wrong checksum")
	}
	return nil
}

// extension takes in the header whose block ends r.raw, when its flag says that it only describes others. Otherwise it
// returns true: the block begins an entry.
func (r *Reader) extension(p *pending, flag byte) (entry bool, err error) {
	switch flag {
	case 'x', 'X': // pax, Solaris
		data, err := r.body()
		if err != nil {
			return false, err
		}
		if err := p.pax.parse(data, local, r.lim.SparseSegments); err != nil && p.bad == nil {
			p.bad = err
		}
		p.found = true
		return false, nil
	case 'L', 'K': // GNU long name, long link
		name, err := r.longName()
		if flag == 'L' {
			p.longName = name
		} else {
			p.longLink = name
		}
		p.found = true
		return false, err
	case 'g':
		return false, r.globalHeader(p)
	case 'V': // volume label of GNU tar; takes what was said about it with it
		n, err := r.lastBlock().size(&p.pax)
		if err == nil {
			err = truncated(r.in.skip(n + Padding(n)))
		}
		*p = pending{}
		r.begin()
		return false, err
	case 'M':
		return false, errors.New("continuation of a multi-volume archive")
	case 'N':
		return false, errors.New("old GNU name list (type N) is not supported")
	case 'A':
		return false, errors.New("solaris ACL header (type A) is not supported")
	}
	return true, nil
}

// globalHeader takes in a global pax header. Inside the headers of an entry it holds from the next entry on.
func (r *Reader) globalHeader(p *pending) error {
	before := len(r.raw) - BlockSize
	data, err := r.body()
	if err != nil {
		return err
	}
	if r.spent += int64(len(data)); r.spent > r.lim.HeaderBytes {
		return fmt.Errorf("global headers exceed %d bytes", r.lim.HeaderBytes)
	}
	if err := r.global.parse(data, global, 0); err != nil {
		return err
	}
	r.global.xattrs = slices.Clip(r.global.xattrs)
	r.global.archived = slices.Clip(r.global.archived)
	if before == 0 {
		*p = pending{}
		r.begin()
	}
	return nil
}

// lastBlock returns the header block read last.
func (r *Reader) lastBlock() *block { return (*block)(r.raw[len(r.raw)-BlockSize:]) }

// body reads the data of the extension header that ends r.raw into r.raw and returns them without their padding.
func (r *Reader) body() ([]byte, error) {
	n, err := r.lastBlock().number(fSize)
	if err != nil || n < 0 {
		return nil, errors.New("size of an extension header is bad")
	}
	if n > r.lim.HeaderBytes-int64(len(r.raw)) {
		return nil, fmt.Errorf("headers of one entry exceed %d bytes", r.lim.HeaderBytes)
	}
	from := len(r.raw)
	for end := from + int(n); len(r.raw) < end; {
		b, err := r.in.block()
		if err != nil {
			return nil, truncated(err)
		}
		r.raw = append(r.raw, b[:]...)
	}
	return r.raw[from : from+int(n)], nil
}

// longName reads the body of a GNU long name or long link.
func (r *Reader) longName() (string, error) {
	data, err := r.body()
	if err != nil {
		return "", err
	}
	name, rest, _ := bytes.Cut(data, []byte{0})
	if len(bytes.Trim(rest, "\x00")) > 0 {
		return "", errors.New("long name holds a NUL")
	}
	return string(name), nil
}
