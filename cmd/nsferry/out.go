package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/nsferry/nsferry/idshift/userns"
)

// Out is how a command speaks. The rules: stdout is data (what was asked for, or an archive); stderr is text for people,
// every line starting with "nsferry: ", lower case, no full stop; with --json stdout gets exactly one object at the end,
// also after a failure. A command reports through Answer, Summary and Warn and returns its error; it prints nothing
// else, except data to Stdout.
type Out struct {
	Stdout, Stderr io.Writer

	json, quiet, verbose, noProgress bool

	mu       sync.Mutex
	result   any
	warnings []Warning
	inUse    bool // stdout carries an archive
}

// Warning is something that a policy flag allowed and that is therefore no error. It is printed once, with its count.
type Warning struct {
	What  string `json:"what"`            // plural noun phrase: "device nodes left out"
	Count int64  `json:"count"`           // how often
	First string `json:"first,omitempty"` // the first path, for people
}

// report is the object that --json prints.
type report struct {
	Command  string    `json:"command"`
	Exit     int       `json:"exit"`
	Result   any       `json:"result,omitempty"`
	Warnings []Warning `json:"warnings,omitempty"`
	Error    string    `json:"error,omitempty"`
	Remedy   string    `json:"remedy,omitempty"`
}

func (o *Out) configure(g Globals) {
	o.json, o.quiet, o.verbose, o.noProgress = g.JSON, g.Quiet, g.Verbose, g.NoProgress
}

// Answer reports what was asked for: v as the result in JSON, or the output of text on stdout.
func (o *Out) Answer(v any, text func(io.Writer) error) error {
	if o.json {
		o.result = v
		return nil
	}
	return text(o.Stdout)
}

// Summary reports what was done: s as the result in JSON, or its String on stderr unless --quiet.
func (o *Out) Summary(s fmt.Stringer) {
	o.result = s
	if !o.json && !o.quiet {
		o.line("%s", s)
	}
}

// Verbose prints one line for people who asked for more.
func (o *Out) Verbose(format string, args ...any) {
	if o.verbose {
		o.line(format, args...)
	}
}

// Note prints one line that people should see at once, unless --quiet.
func (o *Out) Note(text string) {
	if !o.quiet {
		o.line("%s", text)
	}
}

// Warn adds w to the warnings; the counts of equal ones are summed. It may be called by several goroutines.
func (o *Out) Warn(w Warning) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range o.warnings {
		if o.warnings[i].What == w.What {
			o.warnings[i].Count += w.Count
			return
		}
	}
	o.warnings = append(o.warnings, w)
}

// TakeStdout returns stdout for an archive. The JSON object then goes to stderr.
func (o *Out) TakeStdout() io.Writer {
	o.inUse = true
	return o.Stdout
}

// note says something that a user who waits wants to know at once.
func (o *Out) note(text string) { o.line("%s", text) }

func (o *Out) line(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for l := range strings.SplitSeq(fmt.Sprintf(format, args...), "\n") {
		fmt.Fprintf(o.Stderr, "nsferry: %s\n", l)
	}
}

// finish prints warnings, the error with its remedy, and the JSON object, and returns code, or exitFailed when the
// report itself could not be written.
func (o *Out) finish(command string, err error, code int) int {
	for _, w := range o.warnings {
		if first := w.First; first != "" {
			o.line("warning: %d %s (first: %s)", w.Count, w.What, first)
		} else {
			o.line("warning: %d %s", w.Count, w.What)
		}
	}
	r := report{Command: command, Exit: code, Result: o.result, Warnings: o.warnings}
	var status exitStatus
	if err != nil && !errors.As(err, &status) {
		r.Error, r.Remedy = splitRemedy(err)
		o.line("%s", r.Error)
		if r.Remedy != "" {
			o.line("remedy: %s", r.Remedy)
		}
		if code == exitUsage {
			o.line("see nsferry --help")
		}
	}
	if !o.json {
		return code
	}
	w := o.Stdout
	if o.inUse {
		w = o.Stderr
	}
	if err := json.NewEncoder(w).Encode(r); err != nil {
		o.line("%v", err)
		return max(code, exitFailed)
	}
	return code
}

// splitRemedy returns what went wrong and, if err knows it, what the user has to type or to ask root for.
func splitRemedy(err error) (text, remedy string) {
	text = err.Error()
	var e *userns.EnvError
	if errors.As(err, &e) && e.Remedy != "" {
		return strings.Replace(text, "\n  remedy: "+e.Remedy, "", 1), e.Remedy
	}
	return text, ""
}
