package toc

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// scanner reads one line: a JSON object as the writer makes it, without space between its tokens. The first error sticks,
// after which every method returns zero values, so that callers look at err once a line.
type scanner struct {
	line []byte
	at   int
	err  error
}

func (s *scanner) fail(format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf("byte %d: "+format, append([]any{s.at}, args...)...)
	}
	s.at = len(s.line)
}

// next tells whether c comes next, and passes it.
func (s *scanner) next(c byte) bool {
	if s.at < len(s.line) && s.line[s.at] == c {
		s.at++
		return true
	}
	return false
}

// want passes c.
func (s *scanner) want(c byte) {
	if !s.next(c) {
		s.fail("want %q", c)
	}
}

// key returns the next key of an object whose "{" is passed, and false behind its "}". first is for the first call.
func (s *scanner) key(first *bool) ([]byte, bool) {
	if s.next('}') || s.err != nil {
		return nil, false
	}
	if !*first {
		s.want(',')
	}
	*first = false
	k := s.quoted()
	s.want(':')
	return k, s.err == nil
}

// quoted returns what is between the next quotes, still escaped.
func (s *scanner) quoted() []byte {
	if !s.next('"') {
		s.fail("want a string")
		return nil
	}
	start := s.at
	for i := start; i < len(s.line); i++ {
		switch c := s.line[i]; {
		case c == '"':
			s.at = i + 1
			return s.line[start:i]
		case c == '\\':
			i++
		case c < 0x20:
			s.at = i
			s.fail("control character in a string")
			return nil
		}
	}
	s.fail("string without end")
	return nil
}

// text returns the next string, unescaped. The only JSON escapes are those that the format needs, \" and \\.
func (s *scanner) text() string {
	if s.at < len(s.line) && s.line[s.at] == '"' {
		rest := s.line[s.at+1:]
		for i, c := range rest {
			if plain[c] {
				continue
			}
			if c == '"' {
				s.at += i + 2
				return string(rest[:i])
			}
			break
		}
	}
	return s.unescape(s.quoted())
}

// unescape is the slow way of text: raw is what was between the quotes.
func (s *scanner) unescape(raw []byte) string {
	if !utf8.Valid(raw) {
		s.fail("string is not UTF-8")
		return ""
	}
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		if raw[i] == '\\' {
			i++ // quoted has seen to it that a byte follows
			if raw[i] != '"' && raw[i] != '\\' {
				s.fail("escape \\%c in a string", raw[i])
				return ""
			}
		}
		out = append(out, raw[i])
	}
	name, err := Unescape(string(out))
	if err != nil {
		s.fail("%w", err)
	}
	return name
}

// integer returns the next number, which has to be an integer from lo to hi.
func (s *scanner) integer(lo, hi int64) int64 {
	negative := s.next('-')
	n, digits := s.digits()
	if digits == 0 || n > math.MaxInt64 {
		s.fail("want an integer")
		return 0
	}
	v := int64(n)
	if negative {
		v = -v
	}
	if v < lo || v > hi {
		s.fail("%d is not between %d and %d", v, lo, hi)
		return 0
	}
	return v
}

// digits passes decimal digits, at most 19 and without a leading zero, and returns their value and number.
func (s *scanner) digits() (n uint64, digits int) {
	start := s.at
	for s.at < len(s.line) && s.line[s.at]-'0' <= 9 && s.at-start < 20 {
		n = n*10 + uint64(s.line[s.at]-'0')
		s.at++
	}
	digits = s.at - start
	if digits > 19 || digits > 1 && s.line[start] == '0' {
		s.fail("number out of form")
		return 0, 0
	}
	return n, digits
}

// time returns the next number as a time.
func (s *scanner) time() Time {
	negative := s.next('-')
	n, digits := s.digits()
	if digits == 0 || n > math.MaxInt64 {
		s.fail("want a time")
		return Time{}
	}
	t := Time{Sec: int64(n)}
	if s.next('.') {
		start := s.at
		for s.at < len(s.line) && s.line[s.at]-'0' <= 9 && s.at-start < 9 {
			t.Nsec = t.Nsec*10 + uint32(s.line[s.at]-'0')
			s.at++
		}
		if s.at == start || s.line[s.at-1] == '0' {
			s.fail("fraction of a time out of form")
			return Time{}
		}
		for i := s.at - start; i < 9; i++ {
			t.Nsec *= 10
		}
	}
	if negative {
		t.Sec = -t.Sec
		if t.Nsec > 0 {
			t.Sec, t.Nsec = t.Sec-1, 1e9-t.Nsec
		}
	}
	return t
}

// digest returns the next string, the base64url of 32 bytes.
func (s *scanner) digest() (sum [32]byte) {
	const quotes = digestLen + 2
	if end := s.at + quotes; end <= len(s.line) && s.line[s.at] == '"' && s.line[end-1] == '"' &&
		decodeDigest(&sum, s.line[s.at+1:end-1]) {
		s.at = end
		return sum
	}
	s.fail("want the base64url of 32 bytes")
	return [32]byte{}
}

const digestLen = 43 // of 32 bytes as base64 without padding

// decodeDigest is base64.RawURLEncoding.Strict for 32 bytes, several times as fast, as most of a table is digests.
func decodeDigest(sum *[32]byte, text []byte) bool {
	if len(text) != digestLen {
		return false
	}
	bad := byte(0)
	for i := range 10 {
		a, b, c, d := sextet[text[4*i]], sextet[text[4*i+1]], sextet[text[4*i+2]], sextet[text[4*i+3]]
		bad |= a | b | c | d
		sum[3*i], sum[3*i+1], sum[3*i+2] = a<<2|b>>4, b<<4|c>>2, c<<6|d
	}
	a, b, c := sextet[text[40]], sextet[text[41]], sextet[text[42]]
	sum[30], sum[31] = a<<2|b>>4, b<<4|c>>2
	return (bad|a|b|c)&0xC0 == 0 && c&3 == 0
}

// sextet is the value of a base64url digit, 0xFF for other bytes.
var sextet = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xFF
	}
	for i, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" {
		t[c] = byte(i)
	}
	return t
}()

// value returns the next string, base64url of any length.
func (s *scanner) value() []byte {
	raw := s.quoted()
	out := make([]byte, base64.RawURLEncoding.DecodedLen(len(raw)))
	n, err := base64.RawURLEncoding.Strict().Decode(out, raw)
	if err != nil || n != len(out) {
		s.fail("want base64url")
		return nil
	}
	return out
}

// integers returns the next array, of integers from 0.
func (s *scanner) integers() []int64 {
	out := []int64{}
	s.want('[')
	for s.err == nil && !s.next(']') {
		if len(out) > 0 {
			s.want(',')
		}
		out = append(out, s.integer(0, math.MaxInt64))
	}
	return out
}

// skip passes the next value, whatever it is, as long as it is JSON.
func (s *scanner) skip() {
	d := json.NewDecoder(strings.NewReader(string(s.line[s.at:])))
	var v json.RawMessage
	if err := d.Decode(&v); err != nil {
		s.fail("value of an unknown field: %w", err)
		return
	}
	s.at += int(d.InputOffset())
}

// end makes sure that the line ends here.
func (s *scanner) end() {
	if s.err == nil && s.at != len(s.line) {
		s.fail("something behind the object")
	}
}
