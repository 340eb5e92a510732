package idshift

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// readNSSwitch returns the sources of each database of nsswitch.conf(5), without [actions]. No file means no sources named.
func readNSSwitch(path string) (map[string][]string, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		db, sources, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		db = strings.ToLower(strings.TrimSpace(db))
		for _, s := range strings.Fields(sources) {
			if s[0] != '[' && s[len(s)-1] != ']' {
				out[db] = append(out[db], s)
			}
		}
	}
	return out, nil
}

// getsubids fills in the ranges from getsubids(1), which prints "N: OWNER FIRST COUNT" for each range.
func (s Sources) getsubids(c *Caller) error {
	owner := c.Name
	if owner == "" {
		owner = strconv.FormatUint(uint64(c.UID), 10)
	}
	for _, q := range []struct {
		ranges *[]Range
		args   []string
	}{
		{&c.UIDRanges, []string{owner}}, {&c.GIDRanges, []string{"-g", owner}},
	} {
		out, err := s.Run("getsubids", q.args...)
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == 1 {
			// The program answers "none" and "the source failed" alike, so say both.
			c.Notes = append(c.Notes, fmt.Sprintf("getsubids %s: source %q gives no ranges: %s",
				strings.Join(q.args, " "), c.Source, strings.TrimSpace(string(exit.Stderr))))
			continue
		}
		if errors.Is(err, exec.ErrNotFound) {
			return fmt.Errorf("sub-ids come from %q (nsswitch.conf), which only getsubids can ask: install it (Debian: package uidmap): %w", c.Source, err)
		}
		if err != nil {
			return fmt.Errorf("sub-ids come from %q (nsswitch.conf): getsubids %s: %w", c.Source, strings.Join(q.args, " "), err)
		}
		for line := range strings.Lines(string(out)) {
			f := strings.Fields(line)
			if len(f) != 4 || !strings.HasSuffix(f[0], ":") {
				return fmt.Errorf("getsubids %s: unexpected line %q", strings.Join(q.args, " "), line)
			}
			r, err := parseRange(f[2], f[3])
			if err != nil {
				return fmt.Errorf("getsubids %s: line %q: %w", strings.Join(q.args, " "), line, err)
			}
			*q.ranges = append(*q.ranges, without(r, *q.ranges)...)
		}
	}
	return nil
}
