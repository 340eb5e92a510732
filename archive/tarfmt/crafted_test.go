package tarfmt

import (
	"bytes"
	"errors"
	"io"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// crafted makes a header block with a good checksum after edit has worked on it.
func crafted(flag byte, name string, edit ...func(*block)) []byte {
	b := auxiliary(name, flag, 0)
	for _, f := range edit {
		f(&b)
	}
	b.octal(field{fChecksum.from, fChecksum.to - 1}, b.sum())
	return b[:]
}

func size(n int64) func(*block) { return func(b *block) { b.octal(fSize, n) } }

func put(f field, s string) func(*block) {
	return func(b *block) { clear(b.field(f)); copy(b.field(f), s) }
}

// signedSum replaces the checksum by that of old tars, which took bytes as signed.
func signedSum(b []byte) []byte {
	blk := (*block)(b)
	blk.octal(field{fChecksum.from, fChecksum.to - 1}, blk.signedSum())
	return b
}

// body pads data to whole blocks.
func body(data string) []byte {
	return append([]byte(data), make([]byte, Padding(int64(len(data))))...)
}

// long makes a GNU long name header.
func long(flag byte, data string) []byte {
	return slices.Concat(crafted(flag, "././@LongLink", size(int64(len(data)))), body(data))
}

// pax makes a pax header of KEY=VALUE texts.
func pax(flag byte, records ...string) []byte {
	var b []byte
	for _, r := range records {
		key, value, _ := strings.Cut(r, "=")
		b = appendRecord(b, key, "", value)
	}
	return long(flag, string(b))
}

func gnuMagic(b *block) { put(fMagic, "ustar  \x00")(b) }
func v7Magic(b *block)  { put(fMagic, "")(b) }

var (
	plain   = crafted('0', "f")
	trailer = Trailer[:]
)

func TestReadCrafted(t *testing.T) {
	base := Header{Name: "f", Type: Reg, Mode: 0o644}
	is := func(f func(*Header)) Header { h := base; f(&h); return h }
	with := func(records ...string) []byte { return slices.Concat(pax('x', records...), plain) }
	for name, tt := range map[string]struct {
		stream []byte
		want   Header
		data   string
	}{
		"v7 directory":            {crafted('\x00', "d/", v7Magic), is(func(h *Header) { h.Name, h.Type = "d/", Dir }), ""},
		"v7 file":                 {crafted('\x00', "f", v7Magic, put(fPrefix, "not a prefix")), base, ""},
		"slash makes directories": {crafted('0', "d/"), is(func(h *Header) { h.Name, h.Type = "d/", Dir }), ""},
		"contiguous":              {slices.Concat(crafted('7', "f", size(2)), body("ab")), is(func(h *Header) { h.Size = 2 }), "ab"},
		"unknown type":            {slices.Concat(crafted('Q', "f", size(2)), body("ab")), is(func(h *Header) { h.Size = 2 }), "ab"},
		"gnu dumpdir":             {slices.Concat(crafted('D', "d", gnuMagic, size(3)), body("Yx\x00")), is(func(h *Header) { h.Name, h.Type = "d", Dir }), ""},
		"directory with size":     {crafted('5', "d", size(4096)), is(func(h *Header) { h.Name, h.Type = "d", Dir }), ""},
		"symlink with size":       {crafted('2', "f", size(9), put(fLink, "t")), is(func(h *Header) { h.Type, h.Link = Symlink, "t" }), ""},
		"ustar prefix":            {crafted('0', "f", put(fPrefix, strings.Repeat("p", 155))), is(func(h *Header) { h.Name = strings.Repeat("p", 155) + "/f" }), ""},
		"star prefix": {crafted('0', "f", put(fPrefix, strings.Repeat("p", 131)+"12345670 "), put(field{508, 512}, "tar\x00")),
			is(func(h *Header) { h.Name = strings.Repeat("p", 131) + "/f" }), ""},
		"gnu has no prefix":   {crafted('0', "f", gnuMagic, put(fPrefix, "13245670")), base, ""},
		"full name field":     {crafted('0', strings.Repeat("n", 100)), is(func(h *Header) { h.Name = strings.Repeat("n", 100) }), ""},
		"spaced octal":        {crafted('0', "f", put(fUID, "   755 "), put(fMTime, "     644 ")), is(func(h *Header) { h.UID, h.ModTime.Sec = 0o755, 0o644 }), ""},
		"empty fields":        {crafted('0', "f", put(fUID, ""), put(fMTime, "        ")), base, ""},
		"mode with type bits": {crafted('0', "f", put(fMode, "0100644")), base, ""},
		"negative base-256":   {crafted('0', "f", put(fMTime, strings.Repeat("\xff", 11)+"\xfe")), is(func(h *Header) { h.ModTime.Sec = -2 }), ""},
		"base-256 id":         {crafted('0', "f", put(fUID, "\x80\x00\x00\x00\xff\xff\xff\xfe")), is(func(h *Header) { h.UID = 4294967294 }), ""},
		"signed checksum":     {signedSum(crafted('0', "\xff\xff")), is(func(h *Header) { h.Name = "\xff\xff" }), ""},

		"pax over ustar": {slices.Concat(pax('x', "path=p", "uid=7", "gid=4294967294", "mtime=5.5", "size=3"), crafted('0', "f", size(0), put(fUID, "junk")), body("abc")),
			is(func(h *Header) { h.Name, h.UID, h.GID, h.Size, h.ModTime = "p", 7, 4294967294, 3, Time{5, 5e8} }), "abc"},
		"pax over long name":    {slices.Concat(long('L', "long\x00"), with("path=p")), is(func(h *Header) { h.Name = "p" }), ""},
		"long name":             {slices.Concat(long('L', "long\x00\x00"), long('K', "target"), crafted('2', "f", put(fLink, "x"))), is(func(h *Header) { h.Name, h.Type, h.Link = "long", Symlink, "target" }), ""},
		"last record wins":      {with("path=a", "path=b", "SCHILY.xattr.user.x=1", "SCHILY.xattr.user.x=2"), is(func(h *Header) { h.Name, h.Xattrs = "b", []Xattr{{"user.x", []byte("2")}} }), ""},
		"last header wins":      {slices.Concat(pax('x', "path=a", "uid=1"), with("path=b")), is(func(h *Header) { h.Name, h.UID = "b", 1 }), ""},
		"empty deletes":         {with("path=a", "path=", "uid=9", "uid=", "mtime=1", "mtime=", "comment=c", "comment="), base, ""},
		"solaris extended":      {slices.Concat(pax('X', "path=p"), plain), is(func(h *Header) { h.Name = "p" }), ""},
		"global":                {slices.Concat(pax('g', "uid=5", "comment=no", "path=all"), pax('x', "path=", "gid=6"), plain), is(func(h *Header) { h.UID, h.GID = 5, 6 }), ""},
		"global deleted":        {slices.Concat(pax('g', "uid=5", "SCHILY.xattr.user.x=1"), pax('g', "uid="), with("SCHILY.xattr.user.x=")), is(func(h *Header) { h.Xattrs = []Xattr{{"user.x", []byte{}}} }), ""},
		"volume label":          {slices.Concat(pax('x', "path=label"), crafted('V', "label"), plain), base, ""},
		"times before 1970":     {with("mtime=-0.25"), is(func(h *Header) { h.ModTime = Time{-1, 75e7} }), ""},
		"too many digits":       {with("mtime=1.1234567899"), is(func(h *Header) { h.ModTime = Time{1, 123456789} }), ""},
		"too many, before 1970": {with("mtime=-1.1234567899"), is(func(h *Header) { h.ModTime = Time{-2, 876543210} }), ""},
		"any comment":           {with("comment=\x00\n=\xff"), is(func(h *Header) { h.Comment = "\x00\n=\xff" }), ""},
		"unknown keys":          {with("LIBARCHIVE.creationtime=1", "SCHILY.fflags=x", "RHT.security.selinux=s", "atime=junk", "SCHILY.ino=1"), base, ""},
		"libarchive xattr": {with("LIBARCHIVE.xattr.user.a%3Db=MQ", "SCHILY.xattr.user.a=b=1", "LIBARCHIVE.xattr.user.%25=", "SCHILY.xattr.user.%25=other"),
			is(func(h *Header) { h.Xattrs = []Xattr{{"user.%", []byte{}}, {"user.a=b", []byte("1")}} }), ""},
		"gnu xattr key":      {with("SCHILY.xattr.user.%25%3D%3d%41%=v"), is(func(h *Header) { h.Xattrs = []Xattr{{"user.%=%3d%41%", []byte("v")}} }), ""},
		"large device":       {slices.Concat(pax('x', "SCHILY.devmajor=9999999", "SCHILY.devminor=1"), crafted('3', "f")), is(func(h *Header) { h.Type, h.DevMajor, h.DevMinor = Char, 9999999, 1 }), ""},
		"device of a file":   {crafted('0', "f", put(fDevMajor, "0000001"), put(fDevMinor, "junk")), base, ""},
		"hard link, no data": {slices.Concat(crafted('1', "f", size(5), put(fLink, "t")), plain), is(func(h *Header) { h.Type, h.Link = Link, "t" }), ""},
		"hard link at end":   {crafted('1', "f", size(5), put(fLink, "t")), is(func(h *Header) { h.Type, h.Link = Link, "t" }), ""},
		"hard link, data":    {slices.Concat(crafted('1', "f", size(5), put(fLink, "t")), body("12345")), is(func(h *Header) { h.Type, h.Link = Link, "t" }), ""},
		"hard link, pax data": {slices.Concat(pax('x', "size=512"), crafted('1', "f", put(fLink, "t")), crafted('0', "looks like a header")),
			is(func(h *Header) { h.Type, h.Link = Link, "t" }), ""},
		"sparse 1.0": {slices.Concat(pax('x', "GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=s", "path=no", "GNU.sparse.realsize=99"),
			crafted('0', "f", size(515)), body("2\n5\n3\n99\n0\n"), body("abc")),
			is(func(h *Header) { h.Name, h.Size, h.Sparse = "s", 99, []Segment{{5, 3}} }), "abc"},
	} {
		t.Run(name, func(t *testing.T) {
			items, err := readAll(bytes.NewReader(slices.Concat(tt.stream, plain, trailer)), Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if d := diff([]item{{tt.want, []byte(tt.data)}}, items[:1]); d != "" {
				t.Error(d)
			}
			if last := items[len(items)-1]; last.Name != "f" && last.Name != "all" {
				t.Errorf("lost the place: %+v", last)
			}
		})
	}
}

func TestReadRefuses(t *testing.T) {
	with := func(records ...string) []byte { return slices.Concat(pax('x', records...), plain, trailer) }
	sparse := func(sizeOnTape int64, mapText string, records ...string) []byte {
		return slices.Concat(pax('x', append([]string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=1000"}, records...)...),
			crafted('0', "f", size(sizeOnTape)), body(mapText), make([]byte, 2048), trailer)
	}
	old := func(edit ...func(*block)) []byte {
		return slices.Concat(crafted('S', "f", append([]func(*block){gnuMagic, put(fOldRealSize, "00000002000")}, edit...)...), make([]byte, 1024), trailer)
	}
	many := strings.Repeat("GNU.sparse.offset=1|GNU.sparse.numbytes=0|", 101)
	for name, tt := range map[string]struct {
		stream []byte
		want   string
	}{
		"no header":              {slices.Concat(repeat('x', 512), trailer), "checksum"},
		"checksum off":           {slices.Concat(append(plain[:10:10], 'x'), plain[11:], trailer), "wrong checksum"},
		"no name":                {slices.Concat(crafted('0', ""), trailer), "no name"},
		"id -1 by pax":           {with("uid=4294967295"), `tar entry "f" at offset 0: pax record "uid": id 4294967295 is out of range`},
		"id beyond 32 bits":      {with("gid=4294967296"), "out of range"},
		"negative id by pax":     {with("uid=-1"), "uid"},
		"id -1 by base-256":      {slices.Concat(crafted('0', "f", put(fUID, strings.Repeat("\xff", 8))), trailer), `entry "f" at offset 0: uid: id -1 is out of range`},
		"negative octal":         {slices.Concat(crafted('0', "f", put(fGID, "-0001")), trailer), "gid"},
		"negative size":          {slices.Concat(crafted('0', "f", put(fSize, strings.Repeat("\xff", 12))), trailer), "size"},
		"size of 9 EiB":          {with("size=9223372036854775807"), "size"},
		"size beyond 64 bits":    {with("size=99999999999999999999"), "size"},
		"size beyond the stream": {with("size=99999999"), "truncated"},
		"size with base-256":     {slices.Concat(crafted('0', "f", put(fSize, "\x80\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01")), trailer), "size"},
		"NUL in path":            {with("path=a\x00b"), "NUL"},
		"NUL in linkpath":        {with("linkpath=a\x00b"), "NUL"},
		"NUL in sparse name":     {with("GNU.sparse.name=a\x00b"), "NUL"},
		"NUL in long name":       {slices.Concat(long('L', "a\x00b"), plain, trailer), "NUL"},
		"NUL in ACL":             {with("SCHILY.acl.access=\x00"), "NUL"},
		"NUL in xattr key":       {with("SCHILY.xattr.a\x00b=1"), "NUL"},
		"NUL in encoded key":     {with("LIBARCHIVE.xattr.a%00b=MQ"), "NUL"},
		"empty xattr key":        {with("SCHILY.xattr.=1"), "empty"},
		"bad base64":             {with("LIBARCHIVE.xattr.user.x=!!"), "base64"},
		"bad time":               {with("mtime=1.x"), "time"},
		"time beyond 64 bits":    {with("mtime=9223372036854775808"), "time"},
		"record without =":       {slices.Concat(long('x', "6 abc\n"), plain, trailer), "malformed"},
		"record without newline": {slices.Concat(long('x', "6 a=bc"), plain, trailer), "malformed"},
		"record too long":        {slices.Concat(long('x', "99 a=b\n"), plain, trailer), "malformed"},
		"record too short":       {slices.Concat(long('x', "2 a=b\n"), plain, trailer), "malformed"},
		"record negative":        {slices.Concat(long('x', "-6 a=b\n"), plain, trailer), "malformed"},
		"record without key":     {slices.Concat(long('x', "5 =b\n"), plain, trailer), "malformed"},
		"link without target":    {slices.Concat(crafted('2', "f"), trailer), "without a target"},
		"multi-volume":           {slices.Concat(crafted('M', "f"), trailer), "multi-volume"},
		"Solaris ACL":            {slices.Concat(crafted('A', "f"), trailer), "ACL"},
		"old name list":          {slices.Concat(crafted('N', "f"), trailer), "type N"},
		"star sparse":            {slices.Concat(crafted('S', "f"), trailer), "star"},
		"star sparse size":       {with("SCHILY.realsize=7"), "star"},
		"pax without entry":      {slices.Concat(pax('x', "path=p"), trailer), "without an entry"},
		"lone zero block":        {slices.Concat(plain, make([]byte, 512), plain, trailer), "single zero block"},
		"global sparse":          {slices.Concat(pax('g', "GNU.sparse.size=1"), plain, trailer), "global"},
		"header bomb":            {slices.Concat(crafted('x', "x", size(1<<32)), plain, trailer), "exceed"},
		"long name bomb":         {slices.Concat(crafted('L', "x", size(1<<33-1)), plain, trailer), "exceed"},
		"many small headers":     {slices.Concat(bytes.Repeat(pax('x', "comment="+strings.Repeat("c", 10000)), 20), plain, trailer), "exceed"},
		"many global headers":    {slices.Concat(bytes.Repeat(pax('g', "SCHILY.xattr.u="+strings.Repeat("c", 10000)), 20), plain, trailer), "exceed"},
		"extension negative":     {slices.Concat(crafted('x', "x", put(fSize, strings.Repeat("\xff", 12))), plain, trailer), "bad"},
		"no data for the map":    {sparse(100, "1\n0\n10\n"), "longer than the data"},
		"map without end":        {sparse(512, strings.Repeat("0", 512)), "longer than the data"},
		"map is no number":       {sparse(512, "x\n"), "bad number"},
		"map line empty":         {sparse(512, "\n"), "bad number"},
		"map overflows":          {sparse(512, "99999999999999999999\n"), "bad number"},
		"map count":              {sparse(512, "101\n"), "more than 100 segments"},
		"map not ascending":      {sparse(522, "2\n10\n5\n14\n5\n"), "ascending"},
		"map past the end":       {sparse(522, "1\n995\n10\n"), "beyond the end"},
		"map sum overflows":      {sparse(522, "1\n9223372036854775807\n10\n"), "too large"},
		"map with less data":     {sparse(522, "1\n0\n9\n"), "speaks of 9"},
		"map with more data":     {sparse(522, "1\n0\n11\n"), "speaks of 11"},
		"sparse version":         {sparse(512, "0\n", "GNU.sparse.major=2"), "version 2.0"},
		"sparse without size":    {slices.Concat(pax('x', "GNU.sparse.map=0,1"), crafted('0', "f", size(1)), body("x"), trailer), "real size"},
		"map of text":            {with("GNU.sparse.map=0,x", "GNU.sparse.size=9"), "map"},
		"map with odd numbers":   {with("GNU.sparse.map=0,1,2", "GNU.sparse.size=9"), "map"},
		"offset without length":  {with("GNU.sparse.size=9", "GNU.sparse.offset=1"), "incomplete"},
		"two offsets":            {with("GNU.sparse.offset=1", "GNU.sparse.offset=1"), "two offsets"},
		"length without offset":  {with("GNU.sparse.numbytes=1"), "bad length"},
		"block count":            {with("GNU.sparse.size=9", "GNU.sparse.numblocks=2", "GNU.sparse.offset=1", "GNU.sparse.numbytes=0"), "incomplete"},
		"too many records":       {with(strings.Split(strings.TrimSuffix(many, "|"), "|")...), "more than 100 segments"},
		"old: beyond the end":    {old(put(fOldSparse, "00000001777\x0000000000002\x00")), "beyond the end"},
		"old: data missing":      {old(put(fOldSparse, "00000000000\x0000000000002\x00")), "speaks of 2"},
		"old: bad number":        {old(put(fOldSparse, "0000000000x\x0000000000002\x00")), "bad number"},
		"old: bad size":          {old(put(fOldRealSize, "x")), "bad real size"},
		"old: extension missing": {old(func(b *block) { b[oldExtended] = 1 })[:512], "truncated"},
		"end missing":            {plain, "truncated"},
		"half the end":           {slices.Concat(plain, make([]byte, 512)), "truncated"},
		"nothing":                {nil, "truncated"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readAll(bytes.NewReader(tt.stream), Limits{HeaderBytes: 100000, SparseSegments: 100})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
			if tt.want == "truncated" && !errors.Is(err, ErrTruncated) {
				t.Errorf("%v is not ErrTruncated", err)
			}
		})
	}
}

func TestErrorsNameTheEntry(t *testing.T) {
	_, err := readAll(bytes.NewReader(slices.Concat(crafted('0', "good", size(3)), body("abc"), crafted('0', "bad", put(fUID, "x")), trailer)), Limits{})
	if want := `tar entry "bad" at offset 1024: uid: not a number, or too large`; err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	_, err = readAll(bytes.NewReader(slices.Concat(plain, repeat(1, 512), trailer)), Limits{})
	if want := `tar header at offset 512 (after entry "f"): not a tar header: no checksum`; err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

func TestTrailingGarbage(t *testing.T) {
	for _, tt := range []struct {
		tail string
		want bool
	}{{"", false}, {strings.Repeat("\x00", 9000), false}, {"x", true}, {strings.Repeat("\x00", 100000) + "x", true}} {
		r := NewReader(strings.NewReader(string(plain)+string(trailer)+tt.tail), Limits{})
		for range 2 {
			r.Next()
		}
		if r.Consumed() != 512+1024 {
			t.Errorf("consumed %d", r.Consumed())
		}
		if got, err := r.TrailingGarbage(); err != nil || got != tt.want {
			t.Errorf("%d bytes: %v, %v", len(tt.tail), got, err)
		}
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("then %v", err)
		}
	}
}

// TestDeclaredSizesCostNothing reads headers that announce much, of which nothing comes.
func TestDeclaredSizesCostNothing(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 20 {
		readAll(bytes.NewReader(crafted('x', "x", size(8<<20-600))), Limits{})
		readAll(bytes.NewReader(slices.Concat(pax('x', "GNU.sparse.major=1", "GNU.sparse.realsize=1"), crafted('0', "f", size(1<<33-1)), body("1048576\n"))), Limits{})
		readAll(bytes.NewReader(slices.Concat(pax('x', "size=4611686018427387904"), plain)), Limits{})
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 60*(bufferSize+8192) {
		t.Errorf("%d bytes allocated", n)
	}
}

func TestOffsets(t *testing.T) {
	stream := slices.Concat(pax('g', "uid=1"), pax('x', "path=one"), crafted('0', "f", size(3)), body("abc"), plain, trailer)
	r := NewReader(bytes.NewReader(stream), Limits{})
	h, err := r.Next()
	if err != nil || h.Name != "one" || r.Offset() != 1024 || r.Consumed() != 1024+1536 || r.Remaining() != 3 {
		t.Fatal(h, err, r.Offset(), r.Consumed(), r.Remaining())
	}
	if d := cmp.Diff(stream[1024:1024+1536], r.RawHeader()); d != "" {
		t.Error(d)
	}
	if _, err := r.Next(); err != nil || r.Offset() != 1024+2048 || !bytes.Equal(r.RawHeader(), plain) {
		t.Fatal(err, r.Offset())
	}
}

func TestParseTimeLimits(t *testing.T) {
	for _, tm := range []Time{{math.MaxInt64, 999999999}, {-math.MaxInt64, 0}, {math.MinInt64, 1}, {-1, 999999999}, {0, 1}, {-1, 1}, {}} {
		text := tm.append(nil)
		if got, err := parseTime(text); err != nil || got != tm {
			t.Errorf("%v is %q is %v, %v", tm, text, got, err)
		}
	}
}
