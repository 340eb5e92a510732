package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/ownership"
)

type shiftCmd struct {
	Dir     string `arg:"" help:"The tree's root directory; no symlink to it."`
	From    string `required:"" placeholder:"MODEL|MAP" help:"Whose owners the tree has: base, caller, identity, FIRST:COUNT for the base model over that range, or a map as for --map."`
	To      string `required:"" placeholder:"MODEL|MAP" help:"Whose owners it shall have."`
	DryRun  bool   `short:"n" help:"Change nothing; say how much would be, and what stands in the way."`
	Shared  bool   `help:"Also change files that have other names (hard links) outside of the tree."`
	Journal string `placeholder:"FILE" help:"Where to note what a kill would make one forget; default is .NAME.shift beside the tree."`
}

// shifted is the summary of shift.
type shifted struct{ ownership.Shifted }

func (s shifted) String() string {
	switch {
	case s.DryRun && s.Resumed:
		return fmt.Sprintf("an earlier shift of %d names was broken off; it would be finished", s.Inodes)
	case s.DryRun:
		return fmt.Sprintf("would change %d of %d names", s.Changed, s.Inodes)
	case s.Resumed:
		return fmt.Sprintf("finished an earlier shift: changed %d of %d names", s.Changed, s.Inodes)
	}
	return fmt.Sprintf("changed %d of %d names", s.Changed, s.Inodes)
}

// Run shifts the tree. --model and --map have no part in it: the command names its maps itself.
func (c *shiftCmd) Run(ctx context.Context, g *Globals, out *Out) error {
	e, change, err := ownership.NewEnv(userns.Options{Mode: g.Mode}, c.From, c.To)
	if err != nil {
		return err
	}
	s, err := ownership.Shift(ctx, e, change, c.Dir, ownership.ShiftOptions{Workers: g.Jobs, DryRun: c.DryRun, Shared: c.Shared, Journal: c.Journal})
	if err != nil {
		return err
	}
	warnMounts(out, s.Mounts)
	out.Summary(shifted{s})
	return nil
}

func warnMounts(out *Out, n int64) {
	if n > 0 {
		out.Warn(Warning{What: "mount points left as they are, with all below", Count: n})
	}
}

// handing is what give and take have in common.
type handing struct {
	Path      []string `arg:"" help:"Files and directories; of a symlink the link itself."`
	Recursive bool     `short:"R" help:"Directories with all that is in them; mounts are not crossed."`
}

type giveCmd struct{ handing }

type takeCmd struct{ handing }

// handed is the summary of give and take.
type handed struct{ ownership.Handed }

func (h handed) String() string {
	var lost []string
	if h.Setuid > 0 {
		lost = append(lost, fmt.Sprintf("%d lost setuid or setgid bits", h.Setuid))
	}
	if h.Capabilities > 0 {
		lost = append(lost, fmt.Sprintf("%d lost capabilities", h.Capabilities))
	}
	s := fmt.Sprintf("changed the owner of %d of %d", h.Changed, h.Inodes)
	if len(lost) > 0 {
		s += ", of which " + strings.Join(lost, " and ") + ", as chown does"
	}
	return s
}

// Run gives every path to the caller, also when one of them fails.
func (c *giveCmd) Run(ctx context.Context, g *Globals, e *userns.Env, out *Out) error {
	return c.run(ctx, g, e, out, ownership.Give)
}

// Run makes every path inner root's, also when one of them fails.
func (c *takeCmd) Run(ctx context.Context, g *Globals, e *userns.Env, out *Out) error {
	return c.run(ctx, g, e, out, ownership.Take)
}

func (c *handing) run(ctx context.Context, g *Globals, e *userns.Env, out *Out,
	hand func(context.Context, *userns.Env, string, ownership.HandOptions) (ownership.Handed, error)) error {
	var sum ownership.Handed
	var errs []error
	for _, path := range c.Path {
		h, err := hand(ctx, e, path, ownership.HandOptions{Recursive: c.Recursive, Workers: g.Jobs})
		sum.Add(h)
		errs = append(errs, err)
	}
	warnMounts(out, sum.Mounts)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	out.Summary(handed{sum})
	return nil
}

type clampCmd struct {
	Dir   string `arg:"" help:"The tree's root directory; no symlink to it."`
	Epoch int64  `required:"" env:"SOURCE_DATE_EPOCH" placeholder:"SECONDS" help:"Seconds since 1970."`
}

// clamped is the summary of clamp.
type clamped struct{ ownership.Clamped }

func (c clamped) String() string {
	return fmt.Sprintf("set the times of %d of %d names", c.Changed, c.Inodes)
}

// Run clamps the tree.
func (c *clampCmd) Run(ctx context.Context, g *Globals, e *userns.Env, out *Out) error {
	s, err := ownership.Clamp(ctx, e, c.Dir, c.Epoch, g.Jobs)
	if err != nil {
		return err
	}
	warnMounts(out, s.Mounts)
	out.Summary(clamped{s})
	return nil
}
