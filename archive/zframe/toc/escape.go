package toc

import (
	"errors"
	"strings"
	"unicode/utf8"
)

const upperHex = "0123456789ABCDEF"

// plain tells for each byte whether it stands for itself in an escaped string when it is ASCII.
var plain = func() (t [256]bool) {
	for c := 0x20; c < 0x7f; c++ {
		t[c] = c != '%' && c != '"' && c != '\\'
	}
	return t
}()

// Escape returns name with everything that is not valid UTF-8, control bytes and "%" as %XX (FORMAT §3).
func Escape(name string) string {
	for i := 0; i < len(name); i++ {
		if !plain[name[i]] && name[i] != '"' && name[i] != '\\' {
			return string(appendEscaped(make([]byte, 0, len(name)+16), name, false))
		}
	}
	return name
}

// appendEscaped appends s escaped, ready for a JSON string when json is true.
func appendEscaped(dst []byte, s string, json bool) []byte {
	for i := 0; i < len(s); {
		start := i
		for i < len(s) && plain[s[i]] {
			i++
		}
		dst = append(dst, s[start:i]...)
		if i == len(s) {
			break
		}
		c := s[i]
		if c == '"' || c == '\\' {
			if json {
				dst = append(dst, '\\')
			}
			dst = append(dst, c)
			i++
			continue
		}
		if r, n := utf8.DecodeRuneInString(s[i:]); c >= utf8.RuneSelf && (r != utf8.RuneError || n > 1) {
			dst = append(dst, s[i:i+n]...)
			i += n
			continue
		}
		dst = append(dst, '%', upperHex[c>>4], upperHex[c&15])
		i++
	}
	return dst
}

// Unescape is the inverse of Escape. A "%" that two upper-case hexadecimal digits do not follow is an error.
func Unescape(text string) (string, error) {
	at := strings.IndexByte(text, '%')
	if at < 0 {
		return text, nil
	}
	out := make([]byte, 0, len(text))
	for at >= 0 {
		out = append(out, text[:at]...)
		if len(text) < at+3 {
			return "", errEscape
		}
		hi, lo := strings.IndexByte(upperHex, text[at+1]), strings.IndexByte(upperHex, text[at+2])
		if hi < 0 || lo < 0 {
			return "", errEscape
		}
		out = append(out, byte(hi<<4|lo))
		text = text[at+3:]
		at = strings.IndexByte(text, '%')
	}
	return string(append(out, text...)), nil
}

var errEscape = errors.New("% without two upper-case hexadecimal digits")
