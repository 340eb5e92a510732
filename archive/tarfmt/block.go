package tarfmt

import "encoding/binary"

// Offsets and lengths of the ustar header fields (POSIX.1-2017, pax, "ustar Interchange Format").
var (
	fName     = field{0, 100}
	fMode     = field{100, 108}
	fUID      = field{108, 116}
	fGID      = field{116, 124}
	fSize     = field{124, 136}
	fMTime    = field{136, 148}
	fChecksum = field{148, 156}
	fLink     = field{157, 257}
	fMagic    = field{257, 265}
	fDevMajor = field{329, 337}
	fDevMinor = field{337, 345}
	fPrefix   = field{345, 500}
)

const typeflag = 156

const ustarMagic = "ustar\x0000"

// field is a byte range [from, to) of a header block.
type field struct{ from, to int }

// block is one header block.
type block [BlockSize]byte

func (b *block) field(f field) []byte { return b[f.from:f.to] }

// octal writes n zero-padded with a closing NUL over the whole field. The caller has checked that n fits.
func (b *block) octal(f field, n int64) {
	p := b.field(f)
	p[len(p)-1] = 0
	for i := len(p) - 2; i >= 0; i-- {
		p[i] = '0' + byte(n&7)
		n >>= 3
	}
}

// seal sets magic and checksum: six octal digits, NUL, space. sbuild insists on that form.
func (b *block) seal() {
	copy(b.field(fMagic), ustarMagic)
	b.octal(field{fChecksum.from, fChecksum.to - 1}, b.sum())
	b[fChecksum.to-1] = ' '
}

// sum adds up all bytes, the checksum field counted as spaces (POSIX). It is most of the cost of a header, and so takes
// eight bytes at a time: a lane of 16 bits holds the sum of 128 of them.
func (b *block) sum() int64 {
	const lanes = 0x00ff00ff00ff00ff
	var acc uint64
	for i := 0; i < BlockSize; i += 8 {
		w := binary.LittleEndian.Uint64(b[i : i+8])
		acc += w&lanes + w>>8&lanes
	}
	n := int64(acc&0xffff + acc>>16&0xffff + acc>>32&0xffff + acc>>48)
	for _, c := range b.field(fChecksum) {
		n += ' ' - int64(c)
	}
	return n
}

// signedSum is the sum with bytes taken as signed, as some old tars had it.
func (b *block) signedSum() int64 {
	n := b.sum()
	for i, c := range b {
		if c >= 0x80 && (i < fChecksum.from || i >= fChecksum.to) {
			n -= 256
		}
	}
	return n
}

// set fills the block from h. What does not fit is zero, or cut off for names, and has to be said before the block.
func (b *block) set(h *Header) {
	copy(b.field(fName), h.Name)
	b.octal(fMode, int64(h.Mode))
	b.octal(fUID, fitting(int64(h.UID), maxOctal7))
	b.octal(fGID, fitting(int64(h.GID), maxOctal7))
	b.octal(fSize, fitting(h.Stored(), maxOctal))
	b.octal(fMTime, fitting(h.ModTime.Sec, maxOctal))
	b[typeflag] = byte(h.Type)
	copy(b.field(fLink), h.Link)
	b.octal(fDevMajor, int64(h.DevMajor))
	b.octal(fDevMinor, int64(h.DevMinor))
	b.seal()
}

// fitting returns n, or 0 when an octal field that ends at limit cannot hold it.
func fitting(n, limit int64) int64 {
	if n < 0 || n > limit {
		return 0
	}
	return n
}

// auxiliary makes the header of a pax or long name header: mode 644, ids and mtime 0, so that nothing in it varies.
func auxiliary(name string, flag byte, size int) block {
	var b block
	copy(b.field(fName), name)
	b.octal(fMode, 0o644)
	for _, f := range []field{fUID, fGID, fMTime, fDevMajor, fDevMinor} {
		b.octal(f, 0)
	}
	b.octal(fSize, int64(size))
	b[typeflag] = flag
	b.seal()
	return b
}
