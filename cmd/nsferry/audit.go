package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/nsferry/nsferry/audit"
	"github.com/nsferry/nsferry/idshift/userns"
)

type auditCmd struct {
	Dir string `arg:"" help:"A tree, or a directory with trees in it."`
	All bool   `help:"Tell every finding; otherwise the first 20 of each kind, and a count."`
}

// Run prints owners and findings. Findings that are problems are exit status 1.
func (c *auditCmd) Run(ctx context.Context, e *userns.Env, out *Out) error {
	o := audit.Options{Most: 20}
	if c.All {
		o.Most = 0
	}
	r, err := audit.Audit(ctx, e, c.Dir, o)
	if err != nil {
		return err
	}
	err = out.Answer(r, func(w io.Writer) error { return printAudit(w, r) })
	if err == nil && r.Problems > 0 {
		err = exitStatus(exitFailed)
	}
	return err
}

func printAudit(w io.Writer, r audit.Report) error {
	var text []byte
	for _, o := range r.Owners {
		id := fmt.Sprint(o.ID)
		if o.Unknown {
			id = "unknown"
		}
		text = fmt.Appendf(text, "%s %-11s %-8s %7d inodes %10s", o.Kind, id, o.Who, o.Inodes, bytesText(o.Bytes))
		for _, model := range slices.Sorted(maps.Keys(o.Inside)) {
			text = fmt.Appendf(text, "  %s %d", model, o.Inside[model])
		}
		text = append(text, '\n')
	}
	for _, t := range r.Trees {
		text = fmt.Appendf(text, "rootfs %s (model %s)\n", t.Path, t.Model)
	}
	for _, f := range r.Findings {
		text = fmt.Appendf(text, "%-7s  %s: %s  [%s]\n         %s\n         mend: %s\n", f.Severity, f.Path, f.What, f.ID, f.Why, f.Mend)
	}
	for _, id := range slices.Sorted(maps.Keys(r.More)) {
		text = fmt.Appendf(text, "and %d more  [%s]; --all tells them\n", r.More[id], id)
	}
	_, err := w.Write(text)
	return err
}

type duCmd struct {
	Dir      []string `arg:"" help:"Trees; what only inner root can read is counted too."`
	Apparent bool     `help:"Sizes as files say, holes counted, instead of what is allocated."`
	Bytes    bool     `help:"Bytes instead of KiB."`
}

// Run prints one line a tree, like du -s.
func (c *duCmd) Run(ctx context.Context, e *userns.Env, out *Out) error {
	sizes := []audit.Size{}
	for _, dir := range c.Dir {
		s, err := audit.Measure(ctx, e, dir)
		if err != nil {
			return err
		}
		if s.Mounts > 0 {
			out.Warn(Warning{What: "mount points left out", Count: s.Mounts, First: dir})
		}
		sizes = append(sizes, s)
	}
	return out.Answer(sizes, func(w io.Writer) error {
		for _, s := range sizes {
			n := s.Allocated
			if c.Apparent {
				n = s.Apparent
			}
			if !c.Bytes {
				n = (n + 1023) / 1024 // rounded up, as du does
			}
			if _, err := fmt.Fprintf(w, "%d\t%s\n", n, s.Path); err != nil {
				return err
			}
		}
		return nil
	})
}
