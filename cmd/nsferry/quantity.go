package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nsferry/nsferry/idshift/userns"
)

// parseSize reads a number of bytes with one of K, M, G, T behind it, powers of 1024; "" is 0.
func parseSize(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	number, shift := text, 0
	if i := strings.IndexByte("KMGT", text[len(text)-1]&^0x20); i >= 0 {
		number, shift = text[:len(text)-1], 10*(i+1)
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n <= 0 || n > (1<<62)>>shift {
		return 0, &userns.UsageError{What: fmt.Sprintf("%q is no size; say 500M or 20G", text)}
	}
	return n << shift, nil
}

// parseAge reads a duration of Go's, or days; "" is 0.
func parseAge(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n int
		n, err = strconv.Atoi(days)
		d = time.Duration(n) * 24 * time.Hour
		if n > 36500 {
			err = errors.New("out of range")
		}
	}
	if err != nil || d <= 0 {
		return 0, &userns.UsageError{What: fmt.Sprintf("%q is no age; say 30d or 12h", text)}
	}
	return d, nil
}
