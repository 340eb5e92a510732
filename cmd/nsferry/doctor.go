package main

import (
	"context"
	"fmt"
	"io"

	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
)

type doctorCmd struct {
	Path []string `arg:"" optional:"" help:"Directories in which trees shall be made."`
}

// checkup is what doctor reports.
type checkup struct {
	Findings []userns.Finding            `json:"findings"`
	Paths    map[string][]userns.Finding `json:"paths,omitempty"`
}

// Run tests every prerequisite by use. One that is missing is exit status 4.
func (c *doctorCmd) Run(ctx context.Context, env envFunc, g *Globals, out *Out) error {
	r := checkup{Findings: userns.Diagnose(ctx, userns.Options{Mode: g.Mode, Model: g.Model, Map: g.MapSpec})}
	sick := problems(r.Findings)
	if e, err := env(); err == nil && sick == 0 {
		r.Paths = make(map[string][]userns.Finding)
		for _, path := range c.Path {
			r.Paths[path] = ferry.Examine(ctx, e, path)
			sick += problems(r.Paths[path])
		}
	}
	err := out.Answer(r, func(w io.Writer) error {
		if err := printFindings(w, "", r.Findings, g.Verbose); err != nil {
			return err
		}
		for _, path := range c.Path {
			if err := printFindings(w, path, r.Paths[path], true); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && sick > 0 {
		err = exitStatus(userns.ExitEnvironment)
	}
	return err
}

func problems(found []userns.Finding) (n int) {
	for _, f := range found {
		if f.State == userns.StateProblem {
			n++
		}
	}
	return n
}

// printFindings prints one finding a line, evidence and remedy below it.
func printFindings(w io.Writer, path string, found []userns.Finding, evidence bool) error {
	if path != "" && len(found) > 0 {
		if _, err := fmt.Fprintf(w, "%s\n", path); err != nil {
			return err
		}
	}
	for _, f := range found {
		if _, err := fmt.Fprintf(w, "%-7s  %s  [%s]\n", f.State, f.What, f.ID); err != nil {
			return err
		}
		if f.Evidence != "" && (evidence || f.State != userns.StateOK) {
			if _, err := fmt.Fprintf(w, "         %s\n", f.Evidence); err != nil {
				return err
			}
		}
		if f.Remedy != "" {
			if _, err := fmt.Fprintf(w, "         remedy: %s\n", f.Remedy); err != nil {
				return err
			}
		}
	}
	return nil
}
