package facl

import (
	"bufio"
	"errors"
	"io"
	"strings"
)

// maxLine bounds one line of input. A path takes at most 4 bytes for each of its 4096, and an entry far less.
const maxLine = 64 << 10

var errLineTooLong = errors.New("line of more than 64 KiB")

// lineReader reads lines and can take one back.
type lineReader struct {
	r      *bufio.Reader
	n      int // lines read
	back   string
	isBack bool
}

func newLineReader(r io.Reader) *lineReader {
	if r == nil {
		r = strings.NewReader("")
	}
	return &lineReader{r: bufio.NewReaderSize(r, 4096)}
}

// next returns the next line without its end, whether CR LF or LF; io.EOF when there is none.
func (l *lineReader) next() (string, error) {
	if l.isBack {
		l.isBack = false
		l.n++
		return l.back, nil
	}
	var b []byte
	for {
		part, err := l.r.ReadSlice('\n')
		b = append(b, part...)
		switch {
		case len(b) > maxLine:
			l.n++
			return "", errLineTooLong
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(b) > 0:
		case err != nil:
			return "", err
		}
		l.n++
		return strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r"), nil
	}
}

// unread takes a line back, which next then returns again.
func (l *lineReader) unread(line string) {
	l.back, l.isBack = line, true
	l.n--
}

// quote writes the bytes in special, and the backslash, as getfacl does: a backslash and three octal digits, or two
// backslashes.
func quote(s, special string) string {
	if !strings.ContainsAny(s, special+`\`) {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c == '\\':
			b.WriteString(`\\`)
		case strings.IndexByte(special, c) >= 0:
			b.Write([]byte{'\\', '0' + c>>6, '0' + c>>3&7, '0' + c&7})
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// unquote is quote's inverse. A backslash that begins neither form stands for itself, as for setfacl.
func unquote(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for s != "" {
		octal := len(s) >= 4 && s[0] == '\\' && s[1] >= '0' && s[1] <= '3'
		for i := 2; octal && i < 4; i++ {
			octal = s[i] >= '0' && s[i] <= '7'
		}
		switch {
		case octal:
			b.WriteByte((s[1]-'0')<<6 | (s[2]-'0')<<3 | (s[3] - '0'))
			s = s[4:]
		case strings.HasPrefix(s, `\\`):
			b.WriteByte('\\')
			s = s[2:]
		default:
			b.WriteByte(s[0])
			s = s[1:]
		}
	}
	return b.String()
}
