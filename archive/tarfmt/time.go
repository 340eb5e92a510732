package tarfmt

import (
	"errors"
	"strconv"
)

// append appends t as pax wants it: decimal seconds with up to nine digits of fraction, without trailing zeros. The
// fraction has the sign of the whole: half a second before the epoch, Sec -1 and Nsec 500000000 here, is "-0.5".
func (t Time) append(dst []byte) []byte {
	sec, ns := t.Sec, t.Nsec
	if sec < 0 {
		dst = append(dst, '-')
		if ns != 0 {
			sec, ns = sec+1, 1e9-ns
		}
	}
	abs := uint64(sec)
	if sec < 0 {
		abs = -abs
	}
	dst = strconv.AppendUint(dst, abs, 10)
	if ns == 0 {
		return dst
	}
	dst = append(dst, '.')
	for div := uint32(1e8); ns != 0; div /= 10 {
		dst = append(dst, '0'+byte(ns/div))
		ns %= div
	}
	return dst
}

// parseTime reads a pax time. Digits beyond nanoseconds are dropped towards the past, as GNU tar does. (bsdtar writes times
// before 1970 with a fraction as floor and fraction, "-2.75" for -1.25. Nothing in the record tells that apart.)
func parseTime(s []byte) (Time, error) {
	bad := errors.New("not a time in seconds")
	negative := len(s) > 0 && s[0] == '-'
	if negative {
		s = s[1:]
	}
	i := 0
	for i < len(s) && s[i] != '.' {
		i++
	}
	sec, err := parseDecimal(s[:i])
	if err != nil {
		return Time{}, bad
	}
	t := Time{Sec: sec}
	rest := false
	if i < len(s) {
		div := uint32(1e8)
		for _, c := range s[i+1:] {
			if c < '0' || c > '9' {
				return Time{}, bad
			}
			t.Nsec += uint32(c-'0') * div
			rest = rest || div == 0 && c != '0'
			div /= 10
		}
	}
	if negative {
		return t.negate(rest), nil
	}
	return t, nil
}

// negate mirrors a time at the epoch, one nanosecond further into the past when a rest was dropped.
func (t Time) negate(rest bool) Time {
	if rest {
		if t.Nsec++; t.Nsec == 1e9 {
			// Sec came from a parsed decimal: at its maximum the result is still the minimum of an int64.
			return Time{Sec: -t.Sec - 1}
		}
	}
	if t.Nsec == 0 {
		return Time{Sec: -t.Sec}
	}
	return Time{Sec: -t.Sec - 1, Nsec: 1e9 - t.Nsec}
}
