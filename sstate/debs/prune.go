package debs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"pault.ag/go/debian/version"
)

// PruneOptions say what goes. The zero value removes nothing.
type PruneOptions struct {
	Versions int           // how many versions of a package stay, newest first; 0 is all
	Age      time.Duration // what came, or was hard linked, longer ago goes; 0 is never
	Size     int64         // the oldest go until no more bytes are left; 0 is no limit
	Keep     []string      // rootfs trees and manifests; what they use stays in any case
	DryRun   bool
	Now      time.Time    // the zero value is now
	Note     func(string) // told what is waited for; may be nil
}

// Pruned is what Prune did, or in a dry run would do.
type Pruned struct {
	DryRun  bool      `json:"dry_run,omitempty"`
	Removed []Refusal `json:"removed,omitempty"` // with the reason
	Files   int       `json:"files"`             // of the removed packages
	Bytes   int64     `json:"bytes"`             // of these
	Kept    int       `json:"kept"`
	Left    int64     `json:"left"`          // bytes of the kept
	Odd     []Refusal `json:"odd,omitempty"` // what is no package, and stays
}

// String is the summary in one line.
func (p Pruned) String() string {
	verb := "removed"
	if p.DryRun {
		verb = "would remove"
	}
	return fmt.Sprintf("%s %d packages, %d bytes; %d packages stay, %d bytes", verb, len(p.Removed), p.Bytes, p.Kept, p.Left)
}

// Prune removes packages, debs and sources, from the cache at dl. What is in a rootfs as a hard link stays there.
func Prune(ctx context.Context, env EnvFunc, dl string, o PruneOptions) (p Pruned, err error) {
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	c, there, err := openExisting(ctx, dl, o.Note)
	if err != nil {
		return p, fmt.Errorf("prune: %w", err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	units, odd, err := c.units(there)
	if err != nil {
		return p, fmt.Errorf("prune: %w", err)
	}
	keep, err := usedBy(ctx, env, o.Keep)
	if err != nil {
		return p, fmt.Errorf("prune: %w", err)
	}
	doomed := planPrune(units, keep, o)
	p = Pruned{DryRun: o.DryRun, Odd: odd}
	stays := map[string]bool{} // a tarball may be of two revisions
	for i, u := range units {
		if doomed[i] == "" {
			p.Kept++
			p.Left += u.size
			for _, f := range u.parts {
				stays[f.path] = true
			}
		}
	}
	var parts []part
	for i, u := range units {
		if doomed[i] == "" {
			continue
		}
		p.Removed = append(p.Removed, Refusal{u.file, doomed[i]})
		for _, f := range u.parts {
			if f.Ino != 0 && !stays[f.path] {
				stays[f.path] = true
				parts = append(parts, f)
				p.Bytes += f.Size
			}
		}
	}
	p.Files = len(parts)
	if !o.DryRun {
		if p.Files, err = c.remove(ctx, parts); err != nil {
			return p, fmt.Errorf("prune: %w", err)
		}
	}
	return p, nil
}

// planPrune says of each unit why it goes; "" stays.
func planPrune(units []unit, keep *uses, o PruneOptions) []string {
	doomed := make([]string, len(units))
	order := make([]int, len(units)) // by package, newest version first
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		u, v := units[a], units[b]
		return cmp.Or(cmp.Compare(u.Name, v.Name), cmp.Compare(u.Arch, v.Arch), -compareVersions(u.Version, v.Version))
	})
	rank := 0
	for n, i := range order {
		u := units[i]
		if n > 0 {
			switch last := units[order[n-1]]; {
			case last.Name != u.Name || last.Arch != u.Arch:
				rank = 0
			case compareVersions(last.Version, u.Version) != 0:
				rank++
			}
		}
		switch {
		case keep.has(u.Package):
		case o.Versions > 0 && rank >= o.Versions:
			doomed[i] = "superseded"
		case o.Age > 0 && o.Now.Sub(time.Unix(0, u.used)) > o.Age:
			doomed[i] = "not used since " + time.Unix(0, u.used).UTC().Format(time.DateOnly)
		}
	}
	if o.Size > 0 {
		shrink(units, keep, o.Size, doomed)
	}
	return doomed
}

// shrink dooms the units that have not been used for longest until no more than most bytes stay.
func shrink(units []unit, keep *uses, most int64, doomed []string) {
	var total int64
	var order []int
	for i, u := range units {
		if doomed[i] != "" {
			continue
		}
		total += u.size
		if !keep.has(u.Package) {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(units[a].used, units[b].used) })
	for _, i := range order {
		if total <= most {
			return
		}
		doomed[i] = "the cache is too large"
		total -= units[i].size
	}
}

// compareVersions is the order of deb-version(7). What is no version comes before all that are.
func compareVersions(a, b string) int {
	x, errX := version.Parse(a)
	y, errY := version.Parse(b)
	switch {
	case errX != nil && errY != nil:
		return cmp.Compare(a, b)
	case errX != nil:
		return -1
	case errY != nil:
		return 1
	}
	return version.Compare(x, y)
}
