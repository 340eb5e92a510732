package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nsferry/nsferry/idshift/userns"
)

type packed struct {
	Files int `json:"files"`
}

func (p packed) String() string { return fmt.Sprintf("packed %d files", p.Files) }

func TestOut(t *testing.T) {
	lacking := fmt.Errorf("pack x: %w", &userns.EnvError{ID: "newuidmap.missing", What: "newuidmap is missing", Remedy: "apt-get install uidmap"})
	warn := func(o *Out) {
		o.Warn(Warning{What: "device nodes left out", Count: 2, First: "dev/console"})
		o.Warn(Warning{What: "sockets left out", Count: 1})
		o.Warn(Warning{What: "device nodes left out", Count: 3, First: "dev/null"})
	}
	tests := []struct {
		name           string
		globals        Globals
		do             func(*Out)
		err            error
		code           int
		stdout, stderr string
	}{
		{name: "summary", do: func(o *Out) { o.Summary(packed{3}) }, stderr: "nsferry: packed 3 files\n"},
		{name: "summary quiet", globals: Globals{Quiet: true}, do: func(o *Out) { o.Summary(packed{3}) }},
		{name: "summary json", globals: Globals{JSON: true}, do: func(o *Out) { o.Summary(packed{3}) },
			stdout: `{"command":"pack","exit":0,"result":{"files":3}}` + "\n"},
		{name: "json beside an archive", globals: Globals{JSON: true}, do: func(o *Out) {
			fmt.Fprint(o.TakeStdout(), "ARCHIVE")
			o.Summary(packed{3})
		}, stdout: "ARCHIVE", stderr: `{"command":"pack","exit":0,"result":{"files":3}}` + "\n"},
		{name: "warnings", do: warn,
			stderr: "nsferry: warning: 5 device nodes left out (first: dev/console)\nnsferry: warning: 1 sockets left out\n"},
		{name: "warnings are never quiet", globals: Globals{Quiet: true, JSON: true}, do: warn,
			stdout: `{"command":"pack","exit":0,"warnings":[{"what":"device nodes left out","count":5,"first":"dev/console"},{"what":"sockets left out","count":1}]}` + "\n",
			stderr: "nsferry: warning: 5 device nodes left out (first: dev/console)\nnsferry: warning: 1 sockets left out\n"},
		{name: "error of two lines", err: errors.New("a\nb"), code: 1, stderr: "nsferry: a\nnsferry: b\n"},
		{name: "remedy", err: lacking, code: 4,
			stderr: "nsferry: pack x: newuidmap is missing\nnsferry: remedy: apt-get install uidmap\n"},
		{name: "remedy json", globals: Globals{JSON: true}, err: lacking, code: 4,
			stdout: `{"command":"pack","exit":4,"error":"pack x: newuidmap is missing","remedy":"apt-get install uidmap"}` + "\n",
			stderr: "nsferry: pack x: newuidmap is missing\nnsferry: remedy: apt-get install uidmap\n"},
		{name: "a command's own status is no error", err: exitStatus(7), code: 7},
		{name: "verbose", globals: Globals{Verbose: true}, do: func(o *Out) { o.Verbose("%d", 1) }, stderr: "nsferry: 1\n"},
		{name: "not verbose", do: func(o *Out) { o.Verbose("%d", 1) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			o := &Out{Stdout: &stdout, Stderr: &stderr}
			o.configure(tt.globals)
			if tt.do != nil {
				tt.do(o)
			}
			if got := o.finish("pack", tt.err, exitCode(tt.err, false)); got != tt.code {
				t.Errorf("exit code %d, want %d", got, tt.code)
			}
			if d := cmp.Diff(tt.stdout, stdout.String()); d != "" {
				t.Errorf("stdout (-want +got):\n%s", d)
			}
			if d := cmp.Diff(tt.stderr, stderr.String()); d != "" {
				t.Errorf("stderr (-want +got):\n%s", d)
			}
		})
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

// A report that could not be written must not look like success.
func TestOutReportLost(t *testing.T) {
	o := &Out{Stdout: fullDisk{}, Stderr: io.Discard}
	o.configure(Globals{JSON: true})
	if got := o.finish("pack", nil, exitDone); got != exitFailed {
		t.Errorf("exit code %d, want %d", got, exitFailed)
	}
}

func TestExitCode(t *testing.T) {
	tests := []struct {
		name        string
		err         error
		interrupted bool
		want        int
	}{
		{"done", nil, false, 0},
		{"done in spite of a signal", nil, true, 0},
		{"failed", io.ErrUnexpectedEOF, false, 1},
		{"usage", fmt.Errorf("x: %w", &userns.UsageError{What: "both"}), false, 2},
		{"environment", fmt.Errorf("x: %w", &userns.EnvError{What: "no user namespaces"}), false, 4},
		{"from a half", fmt.Errorf("x: %w", &userns.RemoteError{Message: "no range", Code: 4}), false, 4},
		{"interrupted", context.Canceled, true, 130},
		{"interrupted, whatever the error", io.ErrUnexpectedEOF, true, 130},
		{"the command's own", exitStatus(143), true, 143},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := exitCode(tt.err, tt.interrupted); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}
