package tarfmt

import (
	"errors"
	"math"
)

// errNumber is wrapped by its callers with the name of the field.
var errNumber = errors.New("not a number, or too large")

// parseDecimal reads a non-negative decimal number without sign or spaces.
func parseDecimal(s []byte) (int64, error) {
	if len(s) == 0 {
		return 0, errNumber
	}
	var n int64
	for _, c := range s {
		d := int64(c) - '0'
		if d < 0 || d > 9 || n > (math.MaxInt64-d)/10 {
			return 0, errNumber
		}
		n = n*10 + d
	}
	return n, nil
}

// number reads a numeric header field: octal digits between optional spaces, ended by NUL, space or the field's end, or
// GNU's base-256 form (first byte 0x80 or 0xff: a big-endian two's complement number follows). An empty field is 0.
func (b *block) number(f field) (int64, error) {
	s := b.field(f)
	if s[0] == 0x80 || s[0] == 0xff {
		return parseBase256(s)
	}
	i := 0
	for i < len(s) && s[i] == ' ' {
		i++
	}
	var n int64
	for ; i < len(s) && s[i] >= '0' && s[i] <= '7'; i++ {
		n = n<<3 | int64(s[i]-'0') // twelve digits at most
	}
	if i < len(s) && s[i] != 0 && s[i] != ' ' {
		return 0, errNumber
	}
	return n, nil
}

func parseBase256(s []byte) (int64, error) {
	var n int64
	if s[0] == 0xff {
		n = -1
	}
	for _, c := range s[1:] {
		if n > math.MaxInt64>>8 || n < math.MinInt64>>8 {
			return 0, errNumber
		}
		n = n<<8 | int64(c)
	}
	return n, nil
}
