package ownership

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nsferry/nsferry/idshift"
	"github.com/nsferry/nsferry/idshift/userns"
)

// Change is from which map to which other one a tree goes.
type Change struct {
	From, To         idshift.Mapping // inside → outside
	FromName, ToName string          // as the caller spelled them
}

// NewEnv decides how Shift runs: in a namespace that maps every outside id of both maps, or as real root. from and to are
// each the name of a model, FIRST:COUNT (what the base model makes of that range) or a map as idshift.ParseSpec reads it.
// Of o the mode and the machine count.
func NewEnv(o userns.Options, from, to string) (*userns.Env, Change, error) {
	c := Change{FromName: from, ToName: to}
	if !slices.Contains(idshift.Models(), idshift.Model(to)) { // a mistake in it counts before what the machine lacks
		if _, err := parseMap(to, idshift.Caller{}); err != nil {
			return nil, c, fmt.Errorf("--to: %w", err)
		}
	}
	o.Model, o.Map = from, ""
	if !slices.Contains(idshift.Models(), idshift.Model(from)) {
		m, err := parseMap(from, idshift.Caller{})
		if err != nil {
			return nil, c, fmt.Errorf("--from: %w", err)
		}
		o.Model, o.Map = "", spec(m)
	}
	e, err := userns.NewEnv(o)
	if err != nil {
		return nil, c, err
	}
	if c.From, err = parseMap(from, e.Caller); err != nil {
		return nil, c, fmt.Errorf("--from: %w", err)
	}
	if c.To, err = parseMap(to, e.Caller); err != nil {
		return nil, c, fmt.Errorf("--to: %w", err)
	}
	if e.Direct {
		return e, c, nil
	}
	all := *e
	also := e.Caller
	also.UIDRanges = append(slices.Clone(also.UIDRanges), outside(c.To.UID)...)
	also.GIDRanges = append(slices.Clone(also.GIDRanges), outside(c.To.GID)...)
	if all.Handoff, err = idshift.Handoff(c.From, also); err != nil {
		return nil, c, err
	}
	return &all, c, nil
}

// outside returns the outside ids of a map.
func outside(m idshift.Map) []idshift.Range {
	var out []idshift.Range
	for _, x := range m.Extents() {
		out = append(out, idshift.Range{First: x.Outside, Count: x.Count})
	}
	return out
}

// spec spells a mapping for idshift.ParseSpec.
func spec(m idshift.Mapping) string {
	var s []string
	for _, x := range m.UID.Extents() {
		s = append(s, "u:"+x.String())
	}
	for _, x := range m.GID.Extents() {
		s = append(s, "g:"+x.String())
	}
	return strings.Join(s, ",")
}

// parseMap reads one side of a change.
func parseMap(s string, c idshift.Caller) (idshift.Mapping, error) {
	if slices.Contains(idshift.Models(), idshift.Model(s)) {
		m, err := idshift.Plan(idshift.Model(s), c)
		var r *idshift.RangeError
		if errors.As(err, &r) {
			err = &userns.EnvError{ID: "subid.range", What: err.Error(), Remedy: "add the line named above, or spell the map: FIRST:COUNT, or INSIDE:OUTSIDE:COUNT"}
		}
		return m, err
	}
	if r, ok := parseRange(s); ok {
		m, err := idshift.Plan(idshift.ModelBase, idshift.Caller{UIDRanges: []idshift.Range{r}, GIDRanges: []idshift.Range{r}})
		if err != nil {
			err = &userns.UsageError{What: fmt.Sprintf("range %q: %v", s, err)}
		}
		return m, err
	}
	m, err := idshift.ParseSpec(s)
	if err != nil {
		err = &userns.UsageError{What: fmt.Sprintf("%q is neither a model (base, caller, identity) nor a range FIRST:COUNT nor a map: %v", s, err)}
	}
	return m, err
}

// parseRange reads FIRST:COUNT.
func parseRange(s string) (idshift.Range, bool) {
	first, count, ok := strings.Cut(s, ":")
	f, ferr := strconv.ParseUint(first, 10, 32)
	n, nerr := strconv.ParseUint(count, 10, 32)
	return idshift.Range{First: uint32(f), Count: uint32(n)}, ok && ferr == nil && nerr == nil
}
