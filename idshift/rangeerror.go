package idshift

import "fmt"

// usualCount is the length of range that useradd(8) gives, and that a Debian tree needs to be mapped linearly up to nobody.
const usualCount = 65536

// RangeError says that the caller has too few sub-ids for a model, and what root has to add.
type RangeError struct {
	Kind  Kind
	Model Model
	// Have is the number of sub-ids that there are.
	Have uint32
	// File is where the line goes; empty when Source, a source named in nsswitch.conf, is to be changed instead.
	File, Source string
	// Line is the exact line to add to File, or the range to ask for in its notation.
	Line string
}

// Error names the lack and the remedy.
func (e *RangeError) Error() string { return e.Lack() + ": " + e.Remedy() }

// Lack says what is missing.
func (e *RangeError) Lack() string {
	if e.Have == 0 {
		return fmt.Sprintf("no sub-%ss", e.Kind)
	}
	return fmt.Sprintf("%d sub-%ss are too few for model %s", e.Have, e.Kind, e.Model)
}

// Remedy says what to do about it.
func (e *RangeError) Remedy() string {
	if e.File == "" {
		return fmt.Sprintf("have %d ids assigned in the subid source %q (nsswitch.conf), e.g. %s", usualCount, e.Source, e.Line)
	}
	return fmt.Sprintf("as root, add this line to %s: %s", e.File, e.Line)
}

// rangeError makes the error for what LookupCaller found out about the caller.
func rangeError(m Model, c Caller, k Kind, have uint32) error {
	first := c.FreeUID
	if k == GID {
		first = c.FreeGID
	}
	if first == 0 {
		first = firstSubID
	}
	owner := c.Name
	if owner == "" {
		owner = fmt.Sprint(c.UID)
	}
	e := &RangeError{Kind: k, Model: m, Have: have, Line: fmt.Sprintf("%s:%d:%d", owner, first, usualCount)}
	if c.Source == "" {
		e.File = k.file()
	} else {
		e.Source = c.Source
	}
	return e
}
